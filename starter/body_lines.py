"""Numbered lines of a body that is streamed: never more in memory than one block and one line."""

import hashlib
from collections.abc import AsyncIterator

LONGEST_LINE_BYTES = 64 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Windows programs begin files with it

Line = tuple[int, bytes | None]  # its number from 1, and None in place of one that is too long


class BodyLines:
    """Lines end in LF or CR LF, the last one need not. Iterating gives those of one block at a time.

    `sha256` is of everything after the line that `first` took, as far as it was read. What the blocks raise, such as a
    client that went away, is raised here.
    """

    def __init__(self, blocks: AsyncIterator[bytes], longest_bytes: int = LONGEST_LINE_BYTES) -> None:
        self._blocks = blocks
        self._longest_bytes = longest_bytes
        self._digest = hashlib.sha256()
        self._number = 0
        self._piece = bytearray()
        self._too_long = False
        self._left = b""  # of the block in which the first line ended

    @property
    def sha256(self) -> str:
        """Hexadecimal."""
        return self._digest.hexdigest()

    async def first(self, longest_bytes: int) -> bytes | None:
        """The first line that is not blank, empty where there is none; None if it is longer than this."""
        lines, longest = self._begun(), self._longest_bytes
        self._longest_bytes = longest_bytes
        async for block in lines:
            while b"\n" in block:
                line, _, block = block.partition(b"\n")  # noqa: PLW2901 - what is left of it
                self._keep(line)
                _, taken = self._ended()
                if taken is None or taken.strip():
                    self._left, self._longest_bytes = block, longest
                    return taken
            self._keep(block)
            if self._too_long:
                return None
        self._longest_bytes = longest
        _, taken = self._ended()
        return taken

    async def __aiter__(self) -> AsyncIterator[list[Line]]:
        """The lines that end in each block, and the last one at the end."""
        async for block in self._begun():
            self._digest.update(block)
            if b"\n" not in block:
                self._keep(block)
                continue
            begin, *whole, rest = block.split(b"\n")
            self._keep(begin)
            lines = [self._ended()]
            for each in whole:
                self._keep(each)
                lines.append(self._ended())
            self._keep(rest)
            yield lines
        if self._piece or self._too_long:
            yield [self._ended()]

    async def _begun(self) -> AsyncIterator[bytes]:
        if self._left:
            block, self._left = self._left, b""
            yield block
        async for block in self._blocks:
            yield block

    def _keep(self, piece: bytes) -> None:
        if self._too_long or len(self._piece) + len(piece) > self._longest_bytes + len(b"\r"):
            self._too_long = True
            self._piece.clear()
        else:
            self._piece += piece

    def _ended(self) -> Line:
        self._number += 1
        line: bytes | None = bytes(self._piece).removesuffix(b"\r")
        if self._number == 1 and line is not None:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if self._too_long or len(line or b"") > self._longest_bytes:
            line = None
        self._piece.clear()
        self._too_long = False
        return self._number, line
