"""FCM and Google's token endpoint, as cheap as Python can be: counts pushes and distinct device tokens.

The same process serves every contender. HTTP/1.1 with keep-alive, requests may follow each other without waiting.

    python -m bench.broadcast.sink PORT

/control/reset?WANTED begins a count, /control reads it.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import cast

import uvloop

TOKEN_MARK = b'"token":"'
ACCESS_TOKEN = "ya29." + "a" * 215  # as long as Google's


@dataclass
class Count:
    """Since the last reset. Times are of the wall clock, which the runner shares."""

    wanted: int = 0
    total: int = 0
    distinct: set[bytes] = field(default_factory=set)
    unreadable: int = 0
    first_at: float | None = None
    reached_at: float | None = None
    head: str = ""
    body: str = ""
    cpu_before: float = field(default_factory=time.process_time)

    def view(self) -> dict[str, object]:
        return {
            "total": self.total,
            "distinct": len(self.distinct),
            "unreadable": self.unreadable,
            "first_at": self.first_at,
            "reached_at": self.reached_at,
            "head": self.head,
            "body": self.body,
            "cpu": time.process_time() - self.cpu_before,
        }


class Sink(asyncio.Protocol):
    """One connection."""

    count = Count()

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        answers = []
        while True:
            head_end = buffer.find(b"\r\n\r\n")
            if head_end < 0:
                break
            head = buffer[:head_end]
            at = head.lower().find(b"\r\ncontent-length:")
            length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            end = head_end + 4 + length
            if len(buffer) < end:
                break
            answers.append(self._answer(head, buffer[head_end + 4 : end]))
            buffer = buffer[end:]
        self._buffer = buffer
        if answers:
            self._transport.write(b"".join(answers))

    def _answer(self, head: bytes, body: bytes) -> bytes:
        path = head.split(b" ", 2)[1]
        if path.endswith(b"/messages:send"):
            return self._push(head, body)
        if path == b"/token":
            return _json({"access_token": ACCESS_TOKEN, "expires_in": 3599, "token_type": "Bearer"})
        if path.startswith(b"/control/reset?"):
            Sink.count = Count(wanted=int(path.rsplit(b"?", 1)[1]))
        return _json(Sink.count.view())

    def _push(self, head: bytes, body: bytes) -> bytes:
        count = Sink.count
        count.total += 1
        start = body.find(TOKEN_MARK)
        end = body.find(b'"', start + len(TOKEN_MARK))
        if start < 0 or end < 0:
            count.unreadable += 1
        count.distinct.add(body[start + len(TOKEN_MARK) : end])
        if count.first_at is None:
            count.first_at = time.time()
            count.head, count.body = head.decode(), body.decode()
        if count.reached_at is None and len(count.distinct) >= count.wanted:
            count.reached_at = time.time()
        name = b'{\n  "name": "projects/bench/messages/0:%016d%%31bd1c9631bd1c96"\n}\n' % count.total
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\nContent-Length: %d\r\n\r\n%b" % (
            len(name),
            name,
        )


def _json(value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
