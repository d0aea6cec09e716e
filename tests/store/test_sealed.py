import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import JsonValue, SecretStr

from runtime.settings import Settings
from store.sealed import CannotUnseal, Sealing
from tests.store.test_database import ROOT

SECRET = "xoxp-very-secret"
VALUE: dict[str, JsonValue] = {"access_token": SECRET, "scopes": ["a", "ä"], "expires_at": None, "n": 1}


def a_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def test_what_is_sealed_is_unsealed_and_looks_different_each_time() -> None:
    sealing = Sealing([a_key()])
    texts = {sealing.seal("acme", "c1", VALUE) for _ in range(10)}
    assert len(texts) == 10
    assert all(sealing.unseal("acme", "c1", text) == VALUE for text in texts)
    assert not any(SECRET in text or base64.b64encode(SECRET.encode()).decode()[:12] in text for text in texts)


@pytest.mark.parametrize(("tenant", "connection"), [("globex", "c1"), ("acme", "c2"), ("acm", "ec1"), ("acmec", "1")])
def test_it_opens_for_its_own_connection_only(tenant: str, connection: str) -> None:
    sealing = Sealing([a_key()])
    text = sealing.seal("acme", "c1", VALUE)
    with pytest.raises(CannotUnseal, match=f"of connection {connection} are damaged, or another connection's"):
        sealing.unseal(tenant, connection, text)


def test_a_change_of_any_character_is_noticed() -> None:
    sealing = Sealing([a_key()])
    text = sealing.seal("acme", "c1", {"t": SECRET})
    for place in range(len(text) - 2):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        with pytest.raises(CannotUnseal) as caught:
            sealing.unseal("acme", "c1", changed)
        assert SECRET not in str(caught.value)
    for broken in ("", "1", "1.", text[:-7], text[:30], text + "ä", "2" + text[1:]):
        with pytest.raises(CannotUnseal):
            sealing.unseal("acme", "c1", broken)


def test_the_first_key_seals_and_all_open() -> None:
    old, new = a_key(), a_key()
    text = Sealing([old]).seal("acme", "c1", VALUE)
    both = Sealing([new, old])
    assert both.unseal("acme", "c1", text) == VALUE
    again = both.seal("acme", "c1", VALUE)
    assert Sealing([new]).unseal("acme", "c1", again) == VALUE
    with pytest.raises(CannotUnseal) as caught:
        Sealing([new]).unseal("acme", "c1", text)
    said = str(caught.value)
    assert "Set HOLDFAST_CREDENTIALS_KEYS" in said
    assert not any(secret in said for secret in (old, new, SECRET, text))
    assert caught.value.__cause__ is None
    assert not any(key in repr(both) for key in (old, new))


@pytest.mark.parametrize("key", ["", "short", "not base64 at all!", base64.b64encode(b"k" * 16).decode(), "ä" * 43])
def test_a_key_that_is_none_is_refused_without_saying_it(key: str) -> None:
    with pytest.raises(ValueError, match="key 2 of HOLDFAST_CREDENTIALS_KEYS") as caught:
        Sealing([a_key(), key])
    assert not key or key not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(ValueError, match="no key"):
        Sealing([])


def test_keys_in_both_alphabets_with_and_without_padding_are_one_key() -> None:
    raw = b"\xfb\xff" * 16
    forms = [base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()]
    forms += [form.rstrip("=") for form in forms]
    text = Sealing(forms[:1]).seal("acme", "c1", VALUE)
    assert [Sealing([form]).unseal("acme", "c1", text) for form in forms] == [VALUE] * 4


def test_the_setting_is_a_list_and_by_default_one_key_that_is_kept(tmp_path: Path) -> None:
    first, second = a_key(), a_key()
    given = Settings(_env_file=None, data_dir=tmp_path, credentials_keys=SecretStr(f" {first}, {second},"))
    assert given.resolved_credentials_keys() == (first, second)
    assert first not in repr(given)
    assert not list(tmp_path.iterdir())
    default = Settings(_env_file=None, data_dir=tmp_path / "data")
    (kept,) = default.resolved_credentials_keys()
    assert default.resolved_credentials_keys() == (kept,)
    Sealing([kept])
    assert default.resolved_signing_key() != kept
    assert default.resolved_signing_key() == default.resolved_signing_key()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["credentials.key", "signing.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").iterdir()} == {0o600}


def test_processes_that_start_at_once_agree_on_a_key(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from runtime.settings import Settings; "
        "print(Settings(_env_file=None, data_dir=Path(sys.argv[1])).resolved_credentials_keys()[0])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate(timeout=30)[0] for process in started}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["credentials.key"]
