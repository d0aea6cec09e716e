"""What a file really is, judged from its bytes. Every refusal is final and says what to do.

empty svg unsupported_type wrong_extension too_many_pixels truncated damaged encrypted_pdf no_pages too_many_pages
polyglot
"""

import mmap
import re
import struct
import warnings
from pathlib import Path, PurePath

from PIL import Image, ImageFile, UnidentifiedImageError

from activities.adapters import pdf
from activities.adapters.files import PDF, Inspected, Limits, UnacceptableFile

Image.MAX_IMAGE_PIXELS = None  # Limits.max_pixels is checked before decoding, and says more than Pillow's warning
ImageFile.LOAD_TRUNCATED_IMAGES = False

EXTENSIONS = {
    "image/jpeg": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "image/png": {".png"},
    "image/webp": {".webp"},
    "image/gif": {".gif"},
    "image/tiff": {".tif", ".tiff"},
    "image/bmp": {".bmp", ".dib"},
    PDF: {".pdf"},
}
SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"BM", "image/bmp"),
    (b"%PDF-", PDF),
)
FORMATS = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/tiff": "TIFF",
    "image/bmp": "BMP",
}
KNOWN_OTHERS = (
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
    (b"MZ", "a Windows program"),
    (b"\x7fELF", "a Linux program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"{\\rtf", "an RTF document"),
)
ACCEPTED = "Send a JPEG, PNG, WebP, GIF, TIFF, BMP or PDF file."
MARKUP = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*<(?:\?xml|!doctype|!--|svg|html|script)", re.IGNORECASE)
ACTIVE_TAIL = re.compile(rb"<script[\s>]|<html[\s>]|<\?php|%PDF-1\.|%PDF-2\.", re.IGNORECASE)
ZIP_END = b"PK\x05\x06"
ZIP_END_STRUCT = struct.Struct("<4s4H2LH")  # https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT 4.3.16
JPEG_END, PNG_END, GIF_END = b"\xff\xd9", b"IEND\xaeB`\x82", b"\x00;"


def inspect(path: str, declared_name: str, limits: Limits) -> Inspected:
    """The real type, pages and size of a file that is whole and safe to work on.

    Raises:
        UnacceptableFile: with one of the codes above.
    """
    if Path(path).stat().st_size == 0:
        raise UnacceptableFile("empty", "The file has no bytes; upload it again.")
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        media_type = _media_type(data)
        _check_name(declared_name, media_type)
        _check_one_format(data, media_type)
        if media_type == PDF:
            return _inspect_pdf(path, data, limits)
    return _inspect_image(path, media_type, limits)


def _media_type(data: mmap.mmap) -> str:
    head = data[:1024]
    for signature, media_type in SIGNATURES:
        if head.startswith(signature):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if MARKUP.match(head):
        message = f"SVG, HTML and XML can carry programs and are not processed. {ACCEPTED}"
        raise UnacceptableFile("svg", message)
    if b"%PDF-" in head:
        message = "Something stands before the PDF's first byte, so it may be two files in one. Export the PDF again."
        raise UnacceptableFile("polyglot", message)
    if head[4:8] == b"ftyp" and head[8:12] in {b"heic", b"heix", b"mif1", b"avif", b"hevc"}:
        raise UnacceptableFile("unsupported_type", f"This is a HEIC or AVIF picture. {ACCEPTED}")
    for signature, name in KNOWN_OTHERS:
        if head.startswith(signature):
            raise UnacceptableFile("unsupported_type", f"This is {name}. {ACCEPTED}")
    raise UnacceptableFile("unsupported_type", f"The type of this file is not known. {ACCEPTED}")


def _check_name(name: str, media_type: str) -> None:
    extension = PurePath(name).suffix.lower()
    claimed = next((kind for kind, names in EXTENSIONS.items() if extension in names), None)
    if claimed and claimed != media_type:
        message = (
            f"The name ends in {extension}, but the bytes are {media_type}. Rename the file or send the right one."
        )
        raise UnacceptableFile("wrong_extension", message)


def _check_one_format(data: mmap.mmap, media_type: str) -> None:
    """Refuse a file that another program would read as another type; a camera's own trailer is no such thing."""
    other = None
    if _has_zip_end(data):
        other = "a ZIP archive"
    elif media_type in {"image/jpeg", "image/png", "image/gif"}:
        end = {"image/jpeg": JPEG_END, "image/png": PNG_END, "image/gif": GIF_END}[media_type]
        at = data.rfind(end) if media_type != "image/jpeg" else data.find(JPEG_END)
        if at >= 0 and ACTIVE_TAIL.search(data, at + len(end)):
            other = "another document after the picture's end"
    if other:
        message = f"The file is {media_type} and also {other}. Open it and save it anew, then send that."
        raise UnacceptableFile("polyglot", message)


def _has_zip_end(data: mmap.mmap) -> bool:
    start = max(0, len(data) - 65_557)  # a ZIP's end record and its longest comment
    at = data.rfind(ZIP_END, start)
    if at < 0 or at + ZIP_END_STRUCT.size > len(data):
        return False
    _, disk, first_disk, here, total, size, offset, comment = ZIP_END_STRUCT.unpack_from(data, at)
    return disk == first_disk == 0 and here == total > 0 and size + offset <= at and at + 22 + comment <= len(data)


def _inspect_pdf(path: str, data: mmap.mmap, limits: Limits) -> Inspected:
    if data.find(b"%%EOF", max(0, len(data) - 4096)) < 0:
        raise UnacceptableFile("truncated", "The PDF ends before its end mark; upload it again.")
    pages, width, height = pdf.measure(path)
    if pages == 0:
        raise UnacceptableFile("no_pages", "The PDF has no pages; export it again.")
    if pages > limits.max_pages:
        message = f"The PDF has {pages:,} pages, more than {limits.max_pages:,}; split it."
        raise UnacceptableFile("too_many_pages", message)
    return Inspected(PDF, pages, width, height)


def _inspect_image(path: str, media_type: str, limits: Limits) -> Inspected:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # metadata that Pillow corrects; what it cannot decode it raises
            with Image.open(path, formats=[FORMATS[media_type]]) as image:
                frames = getattr(image, "n_frames", 1) if media_type == "image/tiff" else 1
                if frames > limits.max_pages:
                    message = f"The TIFF has {frames:,} pages, more than {limits.max_pages:,}; split it."
                    raise UnacceptableFile("too_many_pages", message)
                width, height = image.size
                for frame in range(frames):
                    image.seek(frame)
                    if image.width * image.height > limits.max_pixels:
                        message = (
                            f"The picture is {image.width:,} x {image.height:,} pixels, more than "
                            f"{limits.max_pixels // 1_000_000:,} megapixels; send a smaller one."
                        )
                        raise UnacceptableFile("too_many_pixels", message)
                    image.load()
    except UnidentifiedImageError as error:
        raise UnacceptableFile(
            "damaged", f"The bytes begin like {media_type} but cannot be read; export it again."
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, MemoryError) as error:
        cut = any(word in str(error).lower() for word in ("truncated", "unexpected end", "eof", "not enough"))
        code = "truncated" if cut else "damaged"
        message = f"The picture cannot be decoded to its end ({error}); upload it again."
        raise UnacceptableFile(code, message) from error
    return Inspected(media_type, frames, width, height)
