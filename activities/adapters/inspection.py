"""What a file really is, judged from its bytes. Every refusal is final and says what to do.

The codes: empty, svg, unsupported_type, wrong_extension, too_many_pixels, truncated, damaged, encrypted_pdf, no_pages,
too_many_pages, polyglot.
"""

import mmap
import re
import struct
import warnings
import zlib
from pathlib import Path, PureWindowsPath

from PIL import Image, ImageFile, TiffImagePlugin

from activities.adapters import pdf
from activities.adapters.files import DECODE_ERRORS, PDF, Inspected, Limits, UnacceptableFile, raise_if_ours

Image.MAX_IMAGE_PIXELS = None  # Limits.max_pixels is checked before decoding, and says more than Pillow's warning
ImageFile.LOAD_TRUNCATED_IMAGES = False

TIFF = "image/tiff"
NAMES = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    TIFF: "TIFF",
    "image/bmp": "BMP",
    PDF: "PDF",
}
EXTENSIONS = {
    "image/jpeg": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "image/png": {".png"},
    "image/webp": {".webp"},
    "image/gif": {".gif"},
    TIFF: {".tif", ".tiff"},
    "image/bmp": {".bmp", ".dib"},
    PDF: {".pdf"},
}
SIGNATURES = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"II[*+]\x00|MM\x00[*+]"), TIFF),  # + is BigTIFF
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    # Text may begin with BM: the size of the next header, one of eight, tells a bitmap.
    # https://learn.microsoft.com/en-us/windows/win32/gdi/bitmap-header-types
    (re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", re.DOTALL), "image/bmp"),
    (re.compile(rb"%PDF-"), PDF),
)
OTHERS = (  # https://en.wikipedia.org/wiki/List_of_file_signatures
    (re.compile(rb"PK\x03\x04.{26,}?(?:word/|xl/|ppt/|\[Content_Types\])", re.DOTALL), "an Office document"),
    (re.compile(rb"PK\x03\x04.{26}mimetypeapplication/", re.DOTALL), "an OpenDocument file or e-book"),
    (re.compile(rb"PK\x03\x04|PK\x05\x06"), "a ZIP archive"),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "an old Office document"),
    (re.compile(rb"....ftyp(?:hei[cmsx]|hev[cx]|mif1|msf1)", re.DOTALL), "a HEIC picture"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "an AVIF picture"),
    (re.compile(rb"....ftyp|\x1aE\xdf\xa3", re.DOTALL), "a video or sound file"),
    (re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL "), "a JPEG XL picture"),
    (re.compile(rb"\x00\x00\x00\x0cjP  "), "a JPEG 2000 picture"),
    (re.compile(rb"8BPS"), "a Photoshop document"),
    (re.compile(rb"%!PS"), "a PostScript document"),
    (re.compile(rb"MZ"), "a Windows program"),
    (re.compile(rb"\x7fELF"), "a Linux program"),
    (re.compile(rb"\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe"), "a macOS or Java program"),
    (re.compile(rb"#!"), "a script"),
    (re.compile(rb"\x1f\x8b"), "a gzip archive"),
    (re.compile(rb"Rar!"), "a RAR archive"),
    (re.compile(rb"7z\xbc\xaf\x27\x1c"), "a 7-Zip archive"),
    (re.compile(rb"\{\\rtf"), "an RTF document"),
)
ACCEPTED = "Send a JPEG, PNG, WebP, GIF, TIFF, BMP or PDF file."
MARKUP = re.compile(rb"\s*<[a-z!?/]", re.IGNORECASE)
HEAD_BYTES = 4_096
PDF_HEADER_WITHIN = 1_024  # bytes; readers look there for it: Adobe, PDF Reference 1.7, appendix H.3, note 13
PDF_END_WITHIN = 4_096  # bytes from the end; readers ask for 1,024, but some writers pad with zeros
LINEARIZED = re.compile(rb"/Linearized\b[^>]{0,200}/L\s+(\d{1,12})")
TIFF_TAIL_BYTES = 65_536  # a TIFF has no end mark
TIFF_DATA = ((273, 279), (324, 325))  # StripOffsets, StripByteCounts; TileOffsets, TileByteCounts: TIFF 6.0
# Camera makers append what they like (Samsung's trailer, motion photos, further JPEGs), so only these are refused.
FOREIGN = re.compile(rb"(?i:<script[\s>]|<html[\s>]|<svg[\s>]|<\?php\s)|%PDF-[12]\.\d|Rar!\x1a\x07|7z\xbc\xaf\x27\x1c")
ZIP_END = b"PK\x05\x06"
ZIP_END_STRUCT = struct.Struct("<4s4H2LH")  # https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT 4.3.16
ZIP64_LOCATOR, ZIP64_LOCATOR_BYTES, ZIP_ENTRY = b"PK\x06\x07", 20, b"PK\x01\x02"
ZIP_COMMENT_BYTES = 65_535
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
JPEG_START, JPEG_END, JPEG_TEMPORARY = 0xD8, 0xD9, 0x01  # markers without a length
GIF_BLOCK, GIF_EXTENSION, GIF_END = 0x2C, 0x21, 0x3B


def inspect(path: str, declared_name: str, limits: Limits) -> Inspected:
    """The real type, pages and size of a file that is whole and safe to work on.

    Width and height are pixels of a picture as stored, points of a PDF's first page.

    Raises:
        UnacceptableFile: with one of the codes above.
    """
    if Path(path).stat().st_size == 0:
        raise UnacceptableFile("empty", "The file has no bytes; upload it again.")
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        media_type = _media_type(data[:HEAD_BYTES])
        _check_name(declared_name, media_type)
        _check_one_format(data, media_type)
        if media_type == PDF:
            _check_pdf_end(data)
    if media_type == PDF:
        return Inspected(PDF, *pdf.measure(path, limits.max_pages))
    return _inspect_image(path, media_type, limits)


def _media_type(head: bytes) -> str:
    for pattern, media_type in SIGNATURES:
        if pattern.match(head):
            return media_type
    text = head.decode("utf-16", "replace").encode() if head[:2] in {b"\xff\xfe", b"\xfe\xff"} else head
    if MARKUP.match(text.removeprefix(b"\xef\xbb\xbf")):
        raise UnacceptableFile("svg", f"SVG, HTML and XML can carry programs and are not processed. {ACCEPTED}")
    for pattern, name in OTHERS:
        if pattern.match(head):
            raise UnacceptableFile("unsupported_type", f"This is {name}. {ACCEPTED}")
    if b"%PDF-" in head[:PDF_HEADER_WITHIN]:
        message = "Something stands before the PDF's first byte, so it may be two files in one. Export the PDF again."
        raise UnacceptableFile("polyglot", message)
    raise UnacceptableFile("unsupported_type", f"The type of this file is not known. {ACCEPTED}")


def _check_name(name: str, media_type: str) -> None:
    extension = PureWindowsPath(name.strip()).suffix.lower()  # takes either slash
    claimed = next((kind for kind, names in EXTENSIONS.items() if extension in names), None)
    if claimed and claimed != media_type:
        message = (
            f"The name ends in {extension}, but the bytes are {NAMES[media_type]}. "
            "Rename the file, or send the one that was meant."
        )
        raise UnacceptableFile("wrong_extension", message)


def _check_one_format(data: mmap.mmap, media_type: str) -> None:
    """Refuse a file that another program would read as another type."""
    other = None
    start = 0 if media_type == PDF else _end(data, media_type)
    if media_type != PDF and b"%PDF-" in data[:PDF_HEADER_WITHIN]:
        other = "a PDF"
    elif media_type != PDF and FOREIGN.search(data, start):
        other = "another document after the picture's end"
    elif _ends_as_zip(data, start, inside_pdf=media_type == PDF):
        other = "a ZIP archive"
    if other:
        message = f"The file is {NAMES[media_type]} and also {other}. Open it, save it anew and send that."
        raise UnacceptableFile("polyglot", message)


def _end(data: mmap.mmap, media_type: str) -> int:
    """Where the picture ends by its own structure; the file's length if it does not say.

    Raises:
        UnacceptableFile: truncated, or damaged where the structure carries checksums.
    """
    try:
        match media_type:
            case "image/jpeg":
                return _jpeg_end(data)
            case "image/png":
                return _png_end(data)
            case "image/gif":
                return _gif_end(data)
            case "image/bmp":  # many writers leave the size wrong, so it tells nothing about missing bytes
                end = int.from_bytes(data[2:6], "little")
                return min(end, len(data)) if end > ZIP_END_STRUCT.size else len(data)
            case "image/webp":
                end = 8 + int.from_bytes(data[4:8], "little")
            case _:
                end = max(0, len(data) - TIFF_TAIL_BYTES)
    except (IndexError, struct.error) as error:
        raise _cut_off(media_type) from error
    if end > len(data):
        raise _cut_off(media_type)
    return end


def _jpeg_end(data: mmap.mmap) -> int:
    """After the picture's own end mark; a thumbnail's, inside a segment, is stepped over. ITU-T T.81, annex B."""
    at = 2
    while found := JPEG_MARKER.search(data, at):
        at = found.end()
        marker = data[at - 1]
        if marker == JPEG_END:
            return at
        if marker not in {JPEG_START, JPEG_TEMPORARY}:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return len(data)  # whether anything is missing shows when it is decoded


def _png_end(data: mmap.mmap) -> int:
    """After IEND, every checksum right: Pillow does not look at those of the pixels. https://www.w3.org/TR/png-3/ 5."""
    at = 8
    kind = b""
    while kind != b"IEND":
        length: int
        length, kind = struct.unpack_from(">L4s", data, at)
        with memoryview(data) as view, view[at + 4 : at + 8 + length] as checked:
            checksum = zlib.crc32(checked)
        at += 12 + length
        if struct.unpack_from(">L", data, at - 4)[0] != checksum:
            raise _damaged("image/png")
    return at


def _gif_end(data: mmap.mmap) -> int:
    """After the trailer. https://www.w3.org/Graphics/GIF/spec-gif89a.txt, 18 to 27."""
    at = 13 + _gif_colours(data[10])
    while at < len(data):
        kind = data[at]
        if kind == GIF_BLOCK:
            at += 11 + _gif_colours(data[at + 9])
        elif kind == GIF_EXTENSION:
            at += 2
        else:
            return at + 1 if kind == GIF_END else at
        while data[at]:
            at += 1 + data[at]
        at += 1
    return len(data)


def _gif_colours(flags: int) -> int:
    """Bytes of a colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _ends_as_zip(data: mmap.mmap, start: int, *, inside_pdf: bool) -> bool:
    """Whether an end record with a directory before it is there. At the end of a PDF's stream it is an attachment's."""
    first = max(start, len(data) - ZIP_END_STRUCT.size - ZIP_COMMENT_BYTES)
    at = data.rfind(ZIP_END, first)
    while at >= 0:
        if at + ZIP_END_STRUCT.size <= len(data):
            _, disk, _, here, total, size, _, comment = ZIP_END_STRUCT.unpack_from(data, at)
            end = at + ZIP_END_STRUCT.size + comment
            listed = disk == 0 and here == total > 0 and at >= size and data[at - size : at - size + 4] == ZIP_ENTRY
            large = at >= ZIP64_LOCATOR_BYTES and data[at - ZIP64_LOCATOR_BYTES : at][:4] == ZIP64_LOCATOR
            attached = inside_pdf and end < len(data) and data[end : end + 32].lstrip().startswith(b"endstream")
            if (listed or large) and end <= len(data) and not attached:
                return True
        at = data.rfind(ZIP_END, first, at)
    return False


def _check_pdf_end(data: mmap.mmap) -> None:
    linearized = LINEARIZED.search(data[:PDF_HEADER_WITHIN])  # says how long the file is: ISO 32000-1, table F.1
    cut = linearized is not None and int(linearized[1]) > len(data)
    if cut or data.find(b"%%EOF", max(0, len(data) - PDF_END_WITHIN)) < 0:
        raise _cut_off(PDF)


def _cut_off(media_type: str) -> UnacceptableFile:
    message = f"The {NAMES[media_type]} file ends too early, as after a broken transfer; upload it again."
    return UnacceptableFile("truncated", message)


def _damaged(media_type: str) -> UnacceptableFile:
    message = f"The file begins like {NAMES[media_type]} but cannot be decoded; export it again and upload that."
    return UnacceptableFile("damaged", message)


def _inspect_image(path: str, media_type: str, limits: Limits) -> Inspected:
    size = Path(path).stat().st_size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # metadata that Pillow corrects; what it cannot decode it raises
            with Image.open(path, formats=[NAMES[media_type]]) as image:
                width, height = image.size
                pages = 0
                while _turn_to(image, pages, media_type):
                    if media_type == TIFF and pages == limits.max_pages:
                        message = f"The TIFF has more than {limits.max_pages:,} pages; split it."
                        raise UnacceptableFile("too_many_pages", message)
                    pages += 1
                    _check_pixels(image, limits)
                    if isinstance(image, TiffImagePlugin.TiffImageFile) and _tiff_extent(image) > size:
                        raise _cut_off(media_type)
                    image.load()
    except DECODE_ERRORS as error:
        raise_if_ours(error)
        if any(word in str(error).lower() for word in ("truncated", "unexpected end", "not enough")):
            raise _cut_off(media_type) from error
        raise _damaged(media_type) from error
    return Inspected(media_type, pages, width, height)


def _turn_to(image: ImageFile.ImageFile, frame: int, media_type: str) -> bool:
    """Of the animated kinds only the first frame is a page."""
    if frame == 0:
        return True
    if media_type != TIFF:
        return False
    try:
        image.seek(frame)
    except EOFError:
        return False
    return True


def _check_pixels(image: Image.Image, limits: Limits) -> None:
    if image.width * image.height > limits.max_pixels:
        message = (
            f"The picture is {image.width:,} x {image.height:,} pixels, more than "
            f"{limits.max_pixels / 1_000_000:,.3g} megapixels; send a smaller one."
        )
        raise UnacceptableFile("too_many_pixels", message)


def _tiff_extent(image: TiffImagePlugin.TiffImageFile) -> int:
    """How many bytes the file must have for this frame's strips or tiles to be in it."""
    tags = image.tag_v2
    ends = [0]
    for offsets, counts in TIFF_DATA:
        ends += [at + count for at, count in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)]
    return int(max(ends))
