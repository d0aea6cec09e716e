"""PDF pages by PDFium: measured, rendered, and their own text with boxes (https://pypdfium2.readthedocs.io).

Boxes and sizes of a page are those of its displayed form: /Rotate and /CropBox applied, origin top left.
"""

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from PIL import Image

from activities.adapters.files import UnacceptableFile, Word

POINTS_PER_INCH = 72
MAX_SIDE_POINTS = 14_400  # 200 inches: ISO 32000-1 annex C.2
MIN_TEXT_CHARACTERS = 8  # letters and digits; fewer is a stamp or a page number
MAX_UNREADABLE_SHARE = 0.2  # of the characters: above it the font's own table of characters is broken
FEW_CHARACTERS = 200  # beside a picture over most of the page this is a footer, not the page's text
PICTURE_SHARE = 0.6  # of the page's area
INVISIBLE_SHARE = 0.5  # of the characters: then the text was laid over a scan by another OCR program


@dataclass(frozen=True, slots=True)
class TextLayer:
    """A page's own text, its words, and the page's width and height, in pixels at the dpi that was asked for."""

    text: str
    words: tuple[Word, ...]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Character:
    """`box` is left, top, right, bottom in pixels; None where PDFium made the character up, as for a line's end."""

    text: str
    box: tuple[int, int, int, int] | None = None
    readable: bool = True
    invisible: bool = False
    breaks_word: bool = False  # a hyphen at a line's end


def measure(path: str, max_pages: int) -> tuple[int, int, int]:
    """Pages, and width and height of the first one in points.

    Raises:
        UnacceptableFile: encrypted_pdf, damaged, no_pages, too_many_pages, or too_many_pixels for a side over 14,400
            points.
    """
    with _opened(path) as document:
        pages = len(document)
        if pages > max_pages:
            raise UnacceptableFile("too_many_pages", f"The PDF has {pages:,} pages, more than {max_pages:,}; split it.")
        for number in range(1, pages + 1):
            try:
                width, height = document.get_page_size(number - 1)
            except pdfium.PdfiumError as error:
                raise _damaged_page(number) from error
            if max(width, height) > MAX_SIDE_POINTS:
                message = (
                    f"Page {number} is {width:,.0f} x {height:,.0f} points, and a side may have {MAX_SIDE_POINTS:,}; "
                    "export the PDF at a smaller paper size."
                )
                raise UnacceptableFile("too_many_pixels", message)
        width, height = _page(document, 1).get_size()
        return pages, round(width), round(height)


def render(path: str, number: int, *, dpi: float, max_pixels: int) -> Image.Image:
    """A page, counted from 1, as RGB on white with its filled-in form fields; at a lower dpi above `max_pixels`.

    Raises:
        UnacceptableFile: encrypted_pdf, no_pages or damaged.
    """
    with _opened(path) as document:
        page = _page(document, number)
        width, height = page.get_size()
        scale = min(dpi / POINTS_PER_INCH, math.sqrt(max_pixels / max(1.0, width * height)))
        picture: Image.Image = page.render(scale=scale).to_pil()
        return picture.convert("RGB")  # a copy: the rendered buffer goes with the document


def text_layer(path: str, number: int, *, dpi: float) -> TextLayer | None:
    """A page's own text with boxes at `dpi`; None if it has none worth the name, so that it must be read by OCR.

    It has none where there are hardly any letters, where the font says nothing about which letters they are, and where
    pictures cover most of the page and the text beside them is short: a scan with a footer. Invisible text over a
    scan is another program's OCR and counts.

    Raises:
        UnacceptableFile: encrypted_pdf, no_pages or damaged.
    """
    with _opened(path) as document:
        page = _page(document, number)
        if page.formenv is not None:
            page.flatten()  # what was typed into form fields becomes text of the page
            page.close()
            page = _page(document, number)
        width, height = (max(1, round(side * dpi / POINTS_PER_INCH)) for side in page.get_size())
        characters = list(_characters(page, width, height))
        printed = [character for character in characters if character.box is not None and not character.text.isspace()]
        letters = sum(character.text.isalnum() for character in printed)
        unreadable = sum(not character.readable for character in printed)
        if letters < MIN_TEXT_CHARACTERS or unreadable > MAX_UNREADABLE_SHARE * len(printed):
            return None
        laid_over = sum(character.invisible for character in printed) > INVISIBLE_SHARE * len(printed)
        if letters < FEW_CHARACTERS and not laid_over and _picture_share(page) > PICTURE_SHARE:
            return None
        return TextLayer(_text(characters), tuple(_words(characters, width, height)), width, height)


@contextmanager
def _opened(path: str) -> Iterator[pdfium.PdfDocument]:
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        _refuse(path)
        raise UnacceptableFile("damaged", "The PDF cannot be opened; export it again.") from error
    try:
        if document.get_formtype() != pdfium_c.FORMTYPE_NONE:
            document.init_forms()
        yield document
    finally:
        document.close()  # closes its pages, too


def _refuse(path: str) -> None:
    """Say why it could not be opened: pypdfium2 reports an earlier document's reason for one without pages."""
    document = pdfium_c.FPDF_LoadDocument(path.encode() + b"\x00", None)
    if document:
        pdfium_c.FPDF_CloseDocument(document)
        raise UnacceptableFile("no_pages", "The PDF has no pages; export it again.")
    reason = pdfium_c.FPDF_GetLastError()
    if reason in {pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY}:
        message = "The PDF is encrypted; save it without a password and upload that."
        raise UnacceptableFile("encrypted_pdf", message)
    if reason == pdfium_c.FPDF_ERR_FILE:
        raise OSError(path)  # the disk's fault, not the file's


def _page(document: pdfium.PdfDocument, number: int) -> pdfium.PdfPage:
    try:
        return document[number - 1]
    except (pdfium.PdfiumError, IndexError) as error:
        raise _damaged_page(number) from error


def _damaged_page(number: int) -> UnacceptableFile:
    return UnacceptableFile("damaged", f"Page {number} of the PDF cannot be opened; export it again.")


def _characters(page: pdfium.PdfPage, width: int, height: int) -> Iterator[_Character]:
    layer = page.get_textpage()
    for index in range(layer.count_chars()):
        breaks_word = pdfium_c.FPDFText_IsHyphen(layer, index) == 1
        text = "-" if breaks_word else chr(pdfium_c.FPDFText_GetUnicode(layer, index))
        if pdfium_c.FPDFText_IsGenerated(layer, index) == 1:
            yield _Character(text, breaks_word=breaks_word)
            continue
        item = pdfium_c.FPDFText_GetTextObject(layer, index)
        mode = pdfium_c.FPDFTextObj_GetTextRenderMode(item) if item else None
        yield _Character(
            text,
            _on_screen(page, layer.get_charbox(index, loose=True), width, height),
            readable=_is_readable(text) and pdfium_c.FPDFText_HasUnicodeMapError(layer, index) != 1,
            invisible=mode == pdfium_c.FPDF_TEXTRENDERMODE_INVISIBLE,
            breaks_word=breaks_word,
        )


def _is_readable(text: str) -> bool:
    """Control and private-use characters are not printable; half of a character beyond U+FFFF is not either, alone."""
    return text.isspace() or "\ud800" <= text <= "\udfff" or (text.isprintable() and text != "\ufffd")


def _on_screen(
    page: pdfium.PdfPage, box: tuple[float, float, float, float], width: int, height: int
) -> tuple[int, int, int, int]:
    left, bottom, right, top = box
    x, y = ctypes.c_int(), ctypes.c_int()
    corners = []
    for corner in ((left, bottom), (right, top)):
        pdfium_c.FPDF_PageToDevice(page, 0, 0, width, height, 0, *corner, x, y)
        corners.append((x.value, y.value))
    (x0, y0), (x1, y1) = corners
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _picture_share(page: pdfium.PdfPage) -> float:
    """Of the page's area, the strips of one scan added up. A form with a picture in it counts whole."""
    width, height = page.get_size()
    share = 0.0
    for item in page.get_objects(max_depth=1):
        if item.type == pdfium_c.FPDF_PAGEOBJ_IMAGE or (item.type == pdfium_c.FPDF_PAGEOBJ_FORM and _has_picture(item)):
            left, bottom, right, top = item.get_bounds()
            share += (right - left) * (top - bottom) / max(1.0, width * height)
    return share


def _has_picture(form: pdfium.PdfObject) -> bool:
    return any(form.page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE], form=form))


def _text(characters: list[_Character]) -> str:
    """Lines as printed, a word broken at a line's end joined again, as `pdftotext` does."""
    joined = ""
    broken = False
    for character in characters:
        if character.breaks_word:
            broken = True
        elif not (broken and character.text in "\r\n"):
            broken = False
            joined += character.text
    return "\n".join(line.strip() for line in _well_formed(joined).splitlines()).strip()


def _words(characters: list[_Character], width: int, height: int) -> Iterator[Word]:
    """Runs of characters between white space; a word broken at a line's end is two, each with its own box.

    What lies outside the page, as printers' marks do, is left out.
    """
    word: list[_Character] = []
    for character in [*characters, _Character(" ")]:
        if not character.text.isspace():
            word.append(character)
            if not character.breaks_word:
                continue
        boxes = [box for one in word if (box := one.box)]
        text = _well_formed("".join(one.text for one in word))
        word = []
        if not boxes:
            continue
        x0, y0 = max(0, min(box[0] for box in boxes)), max(0, min(box[1] for box in boxes))
        x1, y1 = min(width, max(box[2] for box in boxes)), min(height, max(box[3] for box in boxes))
        if x0 < x1 and y0 < y1:
            yield Word(text, x0, y0, x1, y1, 1.0)


def _well_formed(text: str) -> str:
    """PDFium gives a character beyond U+FFFF in two halves; NUL is not text to a database."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\x00", "")
