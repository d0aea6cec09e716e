"""The words the file job's steps share with the child processes. Light to import."""

from dataclasses import dataclass
from typing import Literal

PDF = "application/pdf"


class UnacceptableFile(Exception):
    """The file can never be processed; the message tells who uploaded it what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)  # both, so that it survives pickling
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """The sentence."""
        return self.message


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
