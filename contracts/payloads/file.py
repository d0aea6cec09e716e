"""The file job: verify -> thumbnails -> OCR per page -> searchable text."""

from contracts.payloads.job import JobRef, JobRequest
from contracts.payloads.model import Fact, StepOrder

PIPELINE_VERSION = 1  # a new number makes the same bytes be processed again
THUMBNAIL_SIZES_PX = (128, 512, 1024)


class FileRequest(JobRequest):
    """`content_id` names the stored bytes; name, owner and text stay in the store."""

    content_id: str


class VerifyFile(StepOrder):
    """Judge the real type, size, pixels and pages from the bytes."""

    job: JobRef
    content_id: str


class FileVerified(Fact):
    """`pages` is 1 for a single image. `media_type` is what the bytes are, not what the name says."""

    media_type: str
    pages: int
    width: int
    height: int


class MakeThumbnails(StepOrder):
    """Thumbnails of the first page, longest side in pixels."""

    job: JobRef
    content_id: str
    media_type: str
    sizes_px: tuple[int, ...] = THUMBNAIL_SIZES_PX


class ThumbnailsMade(Fact):
    """The sizes made, as ordered."""

    sizes_px: tuple[int, ...]


class ReadPage(StepOrder):
    """Read one page, counted from 1."""

    job: JobRef
    content_id: str
    media_type: str
    page: int


class PageRead(Fact):
    """`source` is `text_layer` or `ocr`; `confidence` is the mean over the words, 0 to 1."""

    page: int
    words: int
    confidence: float
    source: str


class PublishText(StepOrder):
    """Make the pages' text searchable, all at once."""

    job: JobRef
    content_id: str
    pages: int


class TextPublished(Fact):
    """Counts over all pages."""

    pages: int
    words: int
    characters: int


class FileResult(Fact):
    """What came out; the content itself is read from the store."""

    content_id: str
    media_type: str
    pages: int
    pages_ocr: int
    words: int
    characters: int
    thumbnails_px: tuple[int, ...]
