"""`python -m runtime.leash COMMAND…` ends COMMAND when standard input ends, that is, when whoever started it dies.

A killed parent cannot stop its children; the operating system closes its end of the pipe for it.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

GRACE_SECONDS = 30.0  # between SIGTERM and SIGKILL; longer than a worker's drain


PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html


def leashed(command: Sequence[str]) -> list[str]:
    """The command to start instead, with `stdin` a pipe that stays open."""
    return [sys.executable, "-m", "runtime.leash", *command]


def _die_with_parent() -> Callable[[], None] | None:
    """On Linux the child gets SIGTERM even when the leash itself is killed; elsewhere that leaves the child behind."""
    if sys.platform != "linux":
        return None
    libc, leash = ctypes.CDLL(None), os.getpid()

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != leash:  # killed before the request
            os._exit(128 + signal.SIGTERM)

    return in_child


def main() -> int:
    """Run, forward SIGTERM and SIGINT, end with the child; its exit code, or 128 and the signal's number."""
    child = subprocess.Popen(  # noqa: S603 - our own arguments
        sys.argv[1:],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_die_with_parent(),  # noqa: PLW1509 - this process has one thread
    )
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    waiting = selectors.DefaultSelector()
    waiting.register(sys.stdin.fileno(), selectors.EVENT_READ)
    waiting.register(wake_read, selectors.EVENT_READ)
    timeout = None
    while child.poll() is None:
        ready = waiting.select(timeout)
        if not ready and timeout is not None:
            child.kill()
            child.wait()
        for key, _ in ready:
            got = os.read(key.fd, 64)
            if key.fd == wake_read:
                for byte in got:
                    if byte != signal.SIGCHLD:
                        child.send_signal(byte)
                        timeout = GRACE_SECONDS
            elif not got:
                waiting.unregister(key.fd)
                child.terminate()
                timeout = GRACE_SECONDS
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main())
