"""docker-compose.yml, Dockerfile and deploy/ agree with the Compose Specification and with our own code.

No container engine is needed; where `docker compose` is installed, it judges the file too.
"""

import hashlib
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data"
CONFIG = "deploy/temporal-dynamic-config.yaml"
PINNED = re.compile(r"^[\w./-]+:v?\d+\.\d+(\.\d+)?[\w.-]*$")  # PostgreSQL's releases have two parts
OUR_IMAGE = "holdfast:"
SHARED_SETTINGS = {
    "HOLDFAST_DATABASE_URL",
    "HOLDFAST_BLOBS_URL",
    "TEMPORAL_ADDRESS",
    "TEMPORAL_NAMESPACE",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
    "AWS_ALLOW_HTTP",
    "HOLDFAST_SIGNING_KEY",
    "HOLDFAST_PUBLIC_URL",
}
CHANNEL_PREFIXES = ("smtp_", "mail_", "slack_", "fcm_", "apns_", "vapid_", "web_push_", "webhook_", "max_drops_")
VENDOR_URLS = {"slack_api_url", "fcm_api_url", "apns_url"}  # only tests set other ones
# Keys that only `temporal server start-dev` needs: elsewhere their default is what TUNING sets.
START_DEV_ONLY = {"system.forceSearchAttributesCacheRefreshOnRead"}


def read(path: str) -> str:
    return (ROOT / path).read_text()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(read("docker-compose.yml"))
    return loaded


@pytest.fixture(scope="module")
def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services that run our image."""
    return {name: each for name, each in compose["services"].items() if each["image"].startswith(OUR_IMAGE)}


def test_follows_the_compose_specification(compose: dict[str, Any]) -> None:
    raw = (DATA / "compose-spec.json").read_bytes()
    assert hashlib.sha256(raw).hexdigest() in (DATA / "README.md").read_text()
    schema = json.loads(raw)
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [f"{list(error.path)}: {error.message}" for error in validator.iter_errors(compose)] == []


def test_the_schema_refuses_a_misspelt_key(compose: dict[str, Any]) -> None:
    schema = json.loads((DATA / "compose-spec.json").read_text())
    wrong = {**compose, "services": {"worker": {"image": "holdfast:0.1.0", "stop_grace_perod": "60s"}}}
    assert not jsonschema.validators.validator_for(schema)(schema).is_valid(wrong)


def test_docker_compose_accepts_it() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose here")
    command = [docker, "compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_image_is_pinned(compose: dict[str, Any]) -> None:
    loose = [each["image"] for each in compose["services"].values() if not PINNED.match(each["image"])]
    assert loose == []
    assert not PINNED.match("postgres:latest")
    assert not PINNED.match("postgres:17")
    assert not PINNED.match("postgres")


def test_server_and_schema_come_from_one_release(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["temporal"]["image"].split(":")[1] == services["temporal-schema"]["image"].split(":")[1]


def test_every_service_that_a_service_waits_for_exists_and_can_say_so(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for awaited, how in service.get("depends_on", {}).items():
            target = services[awaited]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in target, f"{name} waits for {awaited}, which has no healthcheck"
            else:
                assert how["condition"] == "service_completed_successfully", name
                assert target["restart"] == "no", f"{name} waits for the end of {awaited}, which is restarted"


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for each in compose["services"].values() for port in each.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_password_can_be_set(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|PWD|SECRET|_ACCESS_KEY|SIGNING_KEY", key):
                assert re.fullmatch(r"\$\{[A-Z_]+:-dev-only-[a-z]+\}", value), f"{name}: {key}"


def test_mounted_files_and_used_volumes_exist(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), mount
                assert mount.endswith(":ro"), mount
            else:
                assert source in compose["volumes"], mount


def test_our_commands_exist(ours: dict[str, dict[str, Any]]) -> None:
    from starter.cli import app

    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    image_command = re.findall(r"^CMD (\[.*\])$", read("Dockerfile"), re.MULTILINE)
    assert len(image_command) == 1
    commands = {name: service["command"] for name, service in ours.items()}
    for command in [*commands.values(), json.loads(image_command[0])]:
        if command[0] == "holdfast":
            assert command[1] in known, command
        else:
            assert command[:2] == ["python", "worker.py"], command
            assert (ROOT / "worker.py").is_file()
    assert commands == {
        "bootstrap": ["holdfast", "bootstrap"],
        "worker": ["python", "worker.py", "--without", "notifications-bulk"],
        "bulk-worker": ["python", "worker.py", "--queue", "notifications-bulk", "--nice", "19"],
        "api": ["holdfast", "api"],
    }


def test_our_services_share_their_connections(ours: dict[str, dict[str, Any]]) -> None:
    for name, service in ours.items():
        assert service["environment"].keys() >= SHARED_SETTINGS, name
    for key in SHARED_SETTINGS:
        assert len({service["environment"][key] for service in ours.values()}) == 1, key


@pytest.mark.parametrize("path", ["docker-compose.yml", "Dockerfile"])
def test_every_setting_of_ours_is_known(path: str) -> None:
    from runtime.settings import Settings

    used = {name.removeprefix("HOLDFAST_").lower() for name in re.findall(r"\bHOLDFAST_[A-Z_]+", read(path))}
    assert used
    assert used <= Settings.model_fields.keys()


def test_bootstrap_worker_and_api_get_settings_that_load(
    ours: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from runtime.settings import Settings

    for service in ours.values():
        with monkeypatch.context() as patched:
            for key, value in service["environment"].items():
                patched.setenv(key, re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value))
            settings = Settings(_env_file=None)
        assert settings.resolved_database_url() == "postgresql://holdfast:dev-only-store@postgresql:5432/holdfast"
        assert settings.resolved_ledger_url() == settings.resolved_database_url()
        assert settings.resolved_blobs_url() == "s3://holdfast"


def test_worker_and_api_read_the_same_unsubscribe_links_with_or_without_an_env_file(
    ours: dict[str, dict[str, Any]],
) -> None:
    for key in ("HOLDFAST_SIGNING_KEY", "HOLDFAST_PUBLIC_URL"):
        (value,) = {ours[name]["environment"][key] for name in ("worker", "api")}
        assert value.startswith(f"${{{key}:-"), value


def test_every_setting_of_a_channel_is_passed_on_from_the_env_file(
    ours: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from contracts.payloads.notification import ChannelName
    from runtime.settings import Settings

    wanted = {name for name in Settings.model_fields if name.startswith(CHANNEL_PREFIXES)} - VENDOR_URLS
    passed = ours["worker"]["environment"]
    for name in wanted:
        key = f"HOLDFAST_{name.upper()}"
        assert passed[key].startswith(f"${{{key}:-"), name
    with monkeypatch.context() as patched:
        for key, value in passed.items():
            patched.setenv(key, re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value))
        settings = Settings(_env_file=None)
    assert settings.configured_channels() == {ChannelName.EMAIL, ChannelName.WEBHOOK}
    assert (settings.slack_workspace, settings.apns_environment) == ("default", "production")


def test_mail_goes_to_the_catcher_until_a_relay_is_set(compose: dict[str, Any]) -> None:
    catcher = compose["services"]["mail"]
    assert catcher["image"].startswith("axllent/mailpit:v")
    assert catcher["ports"] == ["127.0.0.1:8025:8025", "127.0.0.1:1025:1025"]
    environment = compose["services"]["worker"]["environment"]
    assert environment["HOLDFAST_SMTP_URL"] == "${HOLDFAST_SMTP_URL:-smtp://mail:1025}"
    assert environment["HOLDFAST_SMTP_INSECURE"] == "${HOLDFAST_SMTP_INSECURE:-true}"


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("smtp://relay.example:587", True),
        ("smtp://user:password@127.0.0.1:25", True),
        ("smtps://user:password@relay.example", True),
        ("smtp://user:password@relay.example:587", False),
    ],
)
def test_a_relays_password_never_goes_over_the_network_in_clear(
    url: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runtime.settings import Settings

    monkeypatch.setenv("HOLDFAST_SMTP_URL", url)
    monkeypatch.setenv("HOLDFAST_SMTP_INSECURE", "true")
    if taken:
        assert Settings(_env_file=None).smtp_insecure
    else:
        with pytest.raises(ValueError, match="would send the password of HOLDFAST_SMTP_URL over the network in clear"):
            Settings(_env_file=None)


def test_the_worker_may_drain_before_it_is_killed(ours: dict[str, dict[str, Any]]) -> None:
    from runtime.drain import BEYOND_DRAIN
    from runtime.settings import Settings

    drain = float(Settings.model_fields["drain_seconds"].default) + BEYOND_DRAIN.total_seconds()
    assert float(ours["worker"]["stop_grace_period"].removesuffix("s")) > drain


def test_the_bucket_of_the_settings_is_the_mounted_folder(compose: dict[str, Any]) -> None:
    blobs = compose["services"]["blobs"]
    bucket = compose["services"]["worker"]["environment"]["HOLDFAST_BLOBS_URL"].removeprefix("s3://")
    root = blobs["command"][-1]
    assert f"blobs:{root}/{bucket}" in blobs["volumes"]
    assert blobs["environment"]["VGW_REGION"] == compose["services"]["worker"]["environment"]["AWS_REGION"]


def test_dynamic_config_is_the_embedded_servers_tuning(compose: dict[str, Any]) -> None:
    config = yaml.safe_load(read(CONFIG))
    for key, values in config.items():
        assert re.fullmatch(r"[a-z-]+(\.\w+)+", key)
        assert all(value.keys() <= {"value", "constraints"} for value in values), key
    temporal = compose["services"]["temporal"]
    assert f"./{CONFIG}:{temporal['environment']['DYNAMIC_CONFIG_FILE_PATH']}:ro" in temporal["volumes"]

    tuning = getattr(pytest.importorskip("runtime.server"), "TUNING", None)
    if tuning is None:
        pytest.skip("runtime.server has no TUNING")
    wanted = {key: json.loads(value) for key, value in dict(tuning).items() if key not in START_DEV_ONLY}
    assert {key: values[0]["value"] for key, values in config.items()} == wanted


def test_the_image_is_built_from_a_pinned_base_and_the_lock_file() -> None:
    dockerfile = read("Dockerfile")
    bases = re.findall(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", bases[0])
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${BASE}"}
    assert re.search(r"\buv==\d+\.\d+\.\d+\b", dockerfile)
    syncs = re.findall(r"\buv sync\b.*", dockerfile)
    assert syncs
    assert all({"--frozen", "--no-dev"} <= set(sync.split()) for sync in syncs)
    assert re.search(r"^USER (?!root\b)\w+$", dockerfile, re.MULTILINE)
    assert "STOPSIGNAL SIGTERM" in dockerfile


def test_the_image_gets_every_package_of_ours_and_nothing_private() -> None:
    wheel = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    dockerfile, ignore = read("Dockerfile"), read(".dockerignore").splitlines()
    for path in wheel["only-include"]:
        assert f"!{path}" in ignore
        if path != "worker.py":
            assert f"COPY {path} {path}\n" in dockerfile
    assert re.search(r"^COPY .*\bworker\.py\b", dockerfile, re.MULTILINE)
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*", "everything is left out that is not named"
    assert not any(".env" in rule for rule in rules)
