"""Every setting, from the environment (prefix HOLDFAST_) or an `.env` file.

Temporal's own are TEMPORAL_*: https://docs.temporal.io/develop/environment-configuration.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Without any setting everything lives in `.holdfast/` and listens on loopback only."""

    model_config = SettingsConfigDict(env_prefix="HOLDFAST_", env_file=".env", extra="ignore")

    data_dir: Path = Field(default=Path(".holdfast"), description="SQLite files, local blobs, logs.")
    database_url: str = Field(
        default="", description="`postgresql://…` or `sqlite:///…`; by default SQLite in data_dir."
    )
    ledger_url: str = Field(
        default="", description="Where effects are kept; by default a SQLite file of its own, or database_url."
    )
    blobs_url: str = Field(default="", description="`s3://`, `gs://`, `az://` or a folder; by default in data_dir.")
    max_upload_bytes: int = Field(default=100 * 1024 * 1024, gt=0, description="Larger uploads are refused with 413.")

    api_host: str = "127.0.0.1"
    api_port: int = 8000
    public_url: str = Field(default="", description="How clients reach the API; by default its host and port.")

    temporal_port: int = Field(default=7233, description="Of the embedded server.")
    temporal_ui_port: int = Field(default=8233, description="Of the embedded server's Web UI.")
    temporal_ui_url: str = Field(default="", description="For links in answers; by default the embedded Web UI.")

    cpu_processes: int | None = Field(default=None, gt=0, description="Children for CPU work; by default one a core.")
    drain_seconds: float = Field(default=20, gt=0, description="How long a stopping worker lets activities finish.")

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "pretty"] = Field(default="auto", description="auto: pretty on a terminal.")
    otlp_endpoint: SecretStr | None = Field(
        default=None, description="OTLP over HTTP for traces, such as http://127.0.0.1:4318/v1/traces."
    )

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

    def resolved_public_url(self) -> str:
        """`public_url`, or where the API listens."""
        return (self.public_url or f"http://{self.api_host}:{self.api_port}").rstrip("/")

    def resolved_temporal_ui_url(self) -> str:
        """`temporal_ui_url`, or the embedded one."""
        return (self.temporal_ui_url or f"http://127.0.0.1:{self.temporal_ui_port}").rstrip("/")
