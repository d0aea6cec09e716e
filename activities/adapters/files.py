"""The words the file job's steps share with the child processes. Light to import."""

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

PDF = "application/pdf"

# What Pillow raises on bytes that are not what they say; MemoryError is not among them, it may pass.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class UnacceptableFile(Exception):
    """The file can never be processed; the message tells who uploaded it what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type["UnacceptableFile"], tuple[str, str]]:
        """Both arguments, so that it comes whole out of a child process."""
        return type(self), (self.code, self.message)

    def __str__(self) -> str:
        """The sentence."""
        return self.message


def raise_if_ours(error: Exception) -> None:
    """Raise again what the disk did: an error of the system has a number, Pillow's complaint about bytes has none."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_pixels` is per page."""

    max_pixels: int
    max_pages: int


@dataclass(frozen=True, slots=True)
class Inspected:
    """Width and height of the first page: pixels of an image as stored, points of a PDF."""

    media_type: str
    pages: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """`size` is what was asked for; width and height in pixels are at most that."""

    size: int
    width: int
    height: int
    webp: bytes


@dataclass(frozen=True, slots=True)
class Word:
    """A word and its box in pixels of the page as it was read, origin top left."""

    text: str
    x0: int
    y0: int
    x1: int
    y1: int
    confidence: float


@dataclass(frozen=True, slots=True)
class PageText:
    """One page, counted from 1; width and height are those of the picture that was read, in pixels."""

    page: int
    width: int
    height: int
    text: str
    words: tuple[Word, ...]
    confidence: float
    source: Literal["text_layer", "ocr"]
