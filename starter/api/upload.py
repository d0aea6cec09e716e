"""One file out of a multipart request, streamed: at no time is more than a chunk or two in memory."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header

from starter.api.problems import Problem

FIELD = "file"
MAX_HEADER_BYTES = 8 * 1024  # of one part
MAX_FILENAME_CHARACTERS = 255


@dataclass
class Upload:
    """Reads the body when iterated; afterwards `size_bytes` and `sha256` are known.

    `filename` is known once `open_upload` returns. Iterating raises Problem 413 above `limit_bytes` and 400 for a
    body that ends early.
    """

    filename: str
    limit_bytes: int
    _chunks: AsyncIterator[bytes]
    size_bytes: int = 0
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """Hexadecimal, of what was read so far."""
        return self._digest.hexdigest()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The file's bytes."""
        async for chunk in self._chunks:
            self.size_bytes += len(chunk)
            if self.size_bytes > self.limit_bytes:
                raise too_large(self.limit_bytes)
            self._digest.update(chunk)
            yield chunk


def too_large(limit_bytes: int) -> Problem:
    """413, saying the limit."""
    megabytes = limit_bytes / 1024 / 1024
    return Problem(413, "too_large", f"The file is larger than {megabytes:.0f} MiB (HOLDFAST_MAX_UPLOAD_BYTES).")


async def open_upload(request: Request, limit_bytes: int) -> Upload:
    """Read up to the start of the part named `file`.

    Raises:
        Problem: 413 if the declared length is over the limit, 415 if this is not multipart, 400 if it is malformed
            or has no such part with a file name.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes + MAX_HEADER_BYTES:
        raise too_large(limit_bytes)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Problem(
            415, "not_multipart", f"Send multipart/form-data with one part named {FIELD!r} that has a file name."
        )
    parts = _Parts(boundary)
    body = request.stream()
    async for chunk in body:
        parts.feed(chunk)
        if parts.filename is not None:
            return Upload(parts.filename, limit_bytes, _file_bytes(parts, body))
    raise Problem(400, "no_file", f"The request has no part named {FIELD!r} with a file name.")


async def _file_bytes(parts: "_Parts", body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while True:
        for chunk in parts.take():
            yield chunk
        if parts.complete:
            async for _rest in body:  # read to the end, or the client never reads our answer
                pass
            return
        try:
            parts.feed(await anext(body))
        except StopAsyncIteration:
            raise Problem(400, "incomplete", "The body ended before the file's last boundary; send it again.") from None


class _Parts:
    """Callbacks of the parser, for one file part; other parts are skipped."""

    def __init__(self, boundary: bytes) -> None:
        self.filename: str | None = None
        self.complete = False
        self._chunks: list[bytes] = []
        self._in_file = False
        self._name = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise Problem(400, "malformed_multipart", f"The multipart body cannot be read: {error}") from error

    def take(self) -> list[bytes]:
        chunks, self._chunks = self._chunks, []
        return chunks

    def _part_begin(self) -> None:
        self._disposition = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._name) + len(self._value) > MAX_HEADER_BYTES:
            raise Problem(400, "malformed_multipart", f"A part's header is longer than {MAX_HEADER_BYTES} bytes.")

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _kind, options = parse_options_header(self._disposition)
        filename = options.get(b"filename")
        if self.filename is None and options.get(b"name") == FIELD.encode() and filename:
            self.filename = _safe_name(filename.decode("utf-8", "replace"))
            self._in_file = True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._chunks.append(bytes(data[start:end]))

    def _part_end(self) -> None:
        if self._in_file:
            self._in_file = False
            self.complete = True


def _safe_name(filename: str) -> str:
    """The last path component without control characters: it is shown to people and never opened."""
    last = filename.replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(character for character in last if character.isprintable()).strip()
    return printable[-MAX_FILENAME_CHARACTERS:] or "unnamed"
