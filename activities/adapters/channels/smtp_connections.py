"""A few SMTP connections, each used by one mail at a time and many in a row."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, cast

import structlog
from aiosmtplib import SMTP, SMTPException

log = structlog.get_logger(__name__)

Tls = Literal["starttls", "implicit", "none"]

MAILS_PER_CONNECTION = 100  # relays commonly close after as many
SECONDS_PER_CONNECTION = 300.0
IDLE_SECONDS = 30.0
CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 30.0
MAX_WAIT_SECONDS = 20.0  # for one of the connections; then the mail waits elsewhere, without holding its claim


class NoConnectionFree(Exception):
    """All connections were busy for MAX_WAIT_SECONDS."""


@dataclass
class Connection:
    """An open connection.

    `used` tells whether an earlier mail went over it, so that it may have died since. `dot_written` is true once all of
    the mail has left this process, its final dot with it: only then can the relay have taken it. Over TLS it is true
    once the mail is handed to TLS: what lies between there and the socket cannot be seen.
    """

    smtp: SMTP
    opened_at: float = field(default_factory=time.monotonic)
    idle_since: float = 0.0
    used: int = 0
    dot_written: bool = False

    @property
    def worn(self) -> bool:
        """Whether it should not carry another mail."""
        now = time.monotonic()
        return (
            not self.smtp.is_connected
            or self.used >= MAILS_PER_CONNECTION
            or now - self.opened_at > SECONDS_PER_CONNECTION
            or (self.idle_since > 0 and now - self.idle_since > IDLE_SECONDS)
        )

    def watch(self) -> None:
        """Keep `dot_written` true to the last byte."""
        protocol = self.smtp.protocol
        assert protocol is not None
        transport = cast("asyncio.WriteTransport", self.smtp.transport)  # uvloop's are not derived from it
        # With both limits at 0 the transport calls resume_writing when its buffer is empty.
        transport.set_write_buffer_limits(high=0)
        write, resume = protocol.write, protocol.resume_writing
        dot_given = False

        def watched(data: bytes) -> None:
            nonlocal dot_given
            dot_given = data.endswith(b"\r\n.\r\n")
            write(data)
            if dot_given and transport.get_write_buffer_size() == 0:
                self.dot_written = True

        def drained() -> None:
            self.dot_written = self.dot_written or dot_given
            resume()

        protocol.write = watched  # type: ignore[method-assign]
        protocol.resume_writing = drained  # type: ignore[method-assign]


class Connections:
    """At most `size` at once; who comes later waits in order.

    Args:
        host: of the relay.
        port: of the relay.
        tls: `starttls` refuses to go on without it.
        username: None for no login.
        password: for the username.
        size: connections at once.
        ssl_context: by default the system's certificates.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: Tls,
        username: str | None,
        password: str | None,
        size: int,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._username = username
        self._password = password
        self._ssl_context = ssl_context
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._sweeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def use(self, *, fresh: bool = False) -> AsyncIterator[Connection]:
        """A connection for one mail. It is kept unless the block raises or closes it.

        Raises:
            NoConnectionFree: none is free within MAX_WAIT_SECONDS.
            SMTPException: cannot connect, or the login was refused.
            OSError: cannot connect.
        """
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError as error:
            raise NoConnectionFree from error
        try:
            connection = None if fresh else await self._take()
            if connection is None:
                connection = Connection(await self._open())
                connection.watch()
            kept = False
            try:
                connection.dot_written = False
                yield connection
                kept = True
            finally:
                connection.used += 1
                if kept and not connection.worn:
                    connection.idle_since = time.monotonic()
                    self._idle.append(connection)
                    self._sweep_later()
                else:
                    connection.smtp.close()
        finally:
            self._free.release()

    async def close(self) -> None:
        """Say goodbye on every idle connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_quit(connection) for connection in idle))

    async def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()  # the warmest, so that the others grow old
            if not connection.worn:
                return connection
            await _quit(connection)
        return None

    async def _open(self) -> SMTP:
        smtp = SMTP(
            hostname=self._host,
            port=self._port,
            timeout=CONNECT_SECONDS,
            use_tls=self._tls == "implicit",
            start_tls=self._tls == "starttls",
            tls_context=self._ssl_context,
            username=self._username,
            password=self._password,
        )
        try:
            await smtp.connect()
        except BaseException:
            smtp.close()
            raise
        smtp.timeout = COMMAND_SECONDS
        return smtp

    def _sweep_later(self) -> None:
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        while self._idle:
            await asyncio.sleep(IDLE_SECONDS / 3)
            worn = [connection for connection in self._idle if connection.worn]
            self._idle = [connection for connection in self._idle if connection not in worn]
            await asyncio.gather(*(_quit(connection) for connection in worn))


async def _quit(connection: Connection) -> None:
    try:
        with suppress(SMTPException, OSError):  # it is being thrown away
            if connection.smtp.is_connected:
                await connection.smtp.quit(timeout=2)
    finally:
        connection.smtp.close()
