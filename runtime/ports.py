"""Ports of this machine."""

import socket


class PortInUse(Exception):
    """Another program listens there."""


def check_free(port: int, setting: str) -> None:
    """Say which setting to change before a child fails to listen.

    Raises:
        PortInUse: something listens on this port of 127.0.0.1.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            msg = (
                f"port {port} of 127.0.0.1 is taken, perhaps by another `holdfast up`: stop that, or choose another "
                f"port with {setting}"
            )
            raise PortInUse(msg) from error


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
