"""Which Temporal service to use, from the standard environment or profile.

https://docs.temporal.io/develop/environment-configuration
"""

from typing import Any

from temporalio.envconfig import ClientConfig


class ProfileError(Exception):
    """The Temporal environment or profile cannot be used; the message says why."""


def connect_config() -> dict[str, Any]:
    """Arguments for `Client.connect`; without `target_host` if no service is named.

    Raises:
        ProfileError: a profile that does not exist, or a file that cannot be read.
    """
    try:
        return dict(ClientConfig.load_client_connect_config())
    except RuntimeError as error:  # ConfigError, which the SDK does not export
        message = f"{error}: check TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE and the certificate files they name"
        raise ProfileError(message) from error


def external_service_configured() -> bool:
    """Whether a service is named, so that none is started here.

    Raises:
        ProfileError: see `connect_config`.
    """
    return bool(connect_config().get("target_host"))
