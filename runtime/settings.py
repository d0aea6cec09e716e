"""Every setting, from the environment (prefix HOLDFAST_) or an `.env` file.

Temporal's own are TEMPORAL_*: https://docs.temporal.io/develop/environment-configuration.
"""

import os
import secrets
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.payloads.notification import ChannelName

BUILT_IN_TEMPLATES = Path(__file__).parent.parent / "templates"


class Settings(BaseSettings):
    """Without any setting everything lives in `.holdfast/` and listens on loopback only."""

    model_config = SettingsConfigDict(
        env_prefix="HOLDFAST_",
        env_file=".env",
        env_ignore_empty=True,  # docker-compose.yml passes on what `.env` leaves out as an empty text
        extra="ignore",
    )

    data_dir: Path = Field(default=Path(".holdfast"), description="SQLite files, local blobs, logs.")
    database_url: str = Field(
        default="", description="`postgresql://…` or `sqlite:///…`; by default SQLite in data_dir."
    )
    ledger_url: str = Field(
        default="", description="Where effects are kept; by default a SQLite file of its own, or database_url."
    )
    blobs_url: str = Field(default="", description="`s3://`, `gs://`, `az://` or a folder; by default in data_dir.")
    max_upload_bytes: int = Field(default=100 * 1024 * 1024, gt=0, description="Larger uploads are refused with 413.")
    max_recipients: int = Field(default=2_000_000, gt=0, description="Lines of one broadcast or audience; else 413.")

    api_host: str = "127.0.0.1"
    api_port: int = 8000
    public_url: str = Field(default="", description="How clients reach the API; by default its host and port.")

    temporal_port: int = Field(default=7233, description="Of the embedded server.")
    temporal_ui_port: int = Field(default=8233, description="Of the embedded server's Web UI.")
    temporal_ui_url: str = Field(default="", description="For links in answers; by default the embedded Web UI.")

    cpu_processes: int | None = Field(default=None, gt=0, description="Children for CPU work; by default one a core.")
    bulk_processes: int = Field(
        default=1, gt=0, description="Workers of `holdfast up` for broadcasts and what comes of them."
    )
    drain_seconds: float = Field(default=20, gt=0, description="How long a stopping worker lets activities finish.")

    signing_key: SecretStr | None = Field(
        default=None, description="Signs unsubscribe links; by default made once and kept in data_dir."
    )
    credentials_keys: SecretStr | None = Field(
        default=None,
        description="Seal customers' credentials: base64 of 32 bytes each, comma separated, newest first; by default "
        "one made once and kept in data_dir.",
    )
    templates_dir: Path = Field(default=BUILT_IN_TEMPLATES, description="Message templates, a folder each.")
    max_drops_per_hour: int = Field(
        default=500, gt=0, description="Dead addresses of one channel; beyond it the channel's setup is suspected."
    )

    connector_hosts: dict[str, str] = Field(
        default={}, description="JSON: another scheme and host of a vendor's API, such as a proxy, by its name."
    )
    connector_speed: float = Field(
        default=1.0, gt=0, description="Divides every window of the vendors' limits: for the simulator in scaled time."
    )
    vendor_pages_at_once: int = Field(default=5, gt=0, description="Pages of one vendor at once, per worker process.")

    smtp_url: SecretStr | None = Field(
        default=None, description="`smtp://user:password@relay:587` (STARTTLS) or `smtps://…:465`."
    )
    smtp_insecure: bool = Field(default=False, description="Allow smtp:// without TLS, for a relay on this machine.")
    smtp_connections: int = Field(default=4, gt=0, description="Per worker process.")
    mail_from: str = Field(default="", description="`Acme <no-reply@acme.example>`.")
    slack_token: SecretStr | None = Field(default=None, description="A bot token with chat:write.")
    slack_workspace: str = Field(default="default", description="Names the workspace in limits and waits.")
    slack_api_url: str = "https://slack.com/api"
    fcm_credentials_file: Path | None = Field(default=None, description="The service account's JSON key.")
    fcm_api_url: str = "https://fcm.googleapis.com"
    apns_key_file: Path | None = Field(default=None, description="The .p8 key.")
    apns_key_id: str = ""
    apns_team_id: str = ""
    apns_topic: str = Field(default="", description="The app's bundle id.")
    apns_environment: Literal["production", "sandbox"] = "production"
    apns_url: str = Field(default="", description="By default Apple's for the environment.")
    vapid_private_key_file: Path | None = Field(default=None, description="PEM; signs Web Push messages.")
    vapid_public_key_file: Path | None = Field(default=None, description="PEM.")
    vapid_subject: str = Field(default="", description="`mailto:ops@acme.example`, for the push services' operators.")
    web_push_hosts: tuple[str, ...] = Field(
        default=(), description="Push services allowed besides the browsers' own, such as http://127.0.0.1:9000."
    )
    webhook_networks: tuple[str, ...] = Field(
        default=(), description="Private networks that webhooks may reach, such as 10.1.0.0/16. None by default."
    )

    simulator: bool = Field(
        default=False, description="`holdfast up` also runs local third parties and sends to them where none is set."
    )
    simulator_smtp_port: int = 2525
    simulator_http_port: int = 8025
    simulator_apns_port: int = 8026

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "pretty"] = Field(default="auto", description="auto: pretty on a terminal.")
    otlp_endpoint: SecretStr | None = Field(
        default=None, description="OTLP over HTTP for traces, such as http://127.0.0.1:4318/v1/traces."
    )

    @field_validator("smtp_insecure")
    @classmethod
    def _no_password_in_clear(cls, insecure: bool, info: ValidationInfo) -> bool:
        url = info.data.get("smtp_url")
        parts = urlsplit(url.get_secret_value()) if isinstance(url, SecretStr) else None
        if insecure and parts and parts.scheme == "smtp" and parts.password and not _is_loopback(parts.hostname or ""):
            raise ValueError(
                "HOLDFAST_SMTP_INSECURE would send the password of HOLDFAST_SMTP_URL over the network in clear: "
                "set it to false, or use smtps://"
            )
        return insecure

    def resolved_database_url(self) -> str:
        """`database_url`, or the default."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute()}/store.db"

    def resolved_ledger_url(self) -> str:
        """`ledger_url`, or a file beside the SQLite store, or the same PostgreSQL."""
        if self.ledger_url:
            return self.ledger_url
        if self.resolved_database_url().startswith("sqlite"):
            return self.resolved_database_url().removesuffix(".db") + ".ledger.db"
        return self.database_url

    def resolved_blobs_url(self) -> str:
        """`blobs_url`, or the default folder."""
        return self.blobs_url or str(self.data_dir.absolute() / "blobs")

    def resolved_signing_key(self) -> str:
        """`signing_key`, or the one in data_dir, made at the first call of any process."""
        if self.signing_key:
            return self.signing_key.get_secret_value()
        return self._kept_key("signing.key")

    def resolved_credentials_keys(self) -> tuple[str, ...]:
        """`credentials_keys` one by one, or the one in data_dir, made at the first call of any process."""
        if self.credentials_keys:
            given = self.credentials_keys.get_secret_value().split(",")
            return tuple(key.strip() for key in given if key.strip())
        return (self._kept_key("credentials.key"),)

    def _kept_key(self, name: str) -> str:
        path = self.data_dir / name
        if path.exists():
            return path.read_text()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{name}.{secrets.token_hex(8)}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(32))
        try:
            os.link(fresh, path)  # atomic: the first process wins
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        return path.read_text()

    def configured_channels(self) -> frozenset[ChannelName]:
        """Which channels the workers have; webhooks always."""
        asked = {
            ChannelName.EMAIL: self.smtp_url,
            ChannelName.SLACK: self.slack_token,
            ChannelName.FCM: self.fcm_credentials_file,
            ChannelName.APNS: self.apns_key_file,
            ChannelName.WEB_PUSH: self.vapid_private_key_file,
            ChannelName.WEBHOOK: True,
        }
        return frozenset(channel for channel, setting in asked.items() if setting)

    def resolved_public_url(self) -> str:
        """`public_url`, or where the API listens."""
        return (self.public_url or f"http://{self.api_host}:{self.api_port}").rstrip("/")

    def resolved_temporal_ui_url(self) -> str:
        """`temporal_ui_url`, or the embedded one."""
        return (self.temporal_ui_url or f"http://127.0.0.1:{self.temporal_ui_port}").rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
