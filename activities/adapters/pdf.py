"""PDF pages by PDFium: measured, rendered, and their own text with boxes (https://pypdfium2.readthedocs.io)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from PIL import Image

from activities.adapters.files import UnacceptableFile, Word

POINTS_PER_INCH = 72
MAX_SIDE_POINTS = 14_400  # 200 inches: ISO 32000-1 annex C.2
MIN_TEXT_CHARACTERS = 8  # fewer is a stamp or a page number
FEW_CHARACTERS = 200  # beside a picture over most of the page this is a footer, not the page's text
PICTURE_SHARE = 0.6  # of the page's area


@contextmanager
def _opened(path: str) -> Iterator[pdfium.PdfDocument]:
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            message = "The PDF is encrypted with a password; save it without one."
            raise UnacceptableFile("encrypted_pdf", message) from error
        raise UnacceptableFile("damaged", f"The PDF cannot be opened ({error}); export it again.") from error
    try:
        yield document
    finally:
        document.close()


def _page(document: pdfium.PdfDocument, number: int) -> pdfium.PdfPage:
    try:
        return document[number - 1]
    except (pdfium.PdfiumError, IndexError) as error:
        message = f"Page {number} of the PDF cannot be opened ({error}); export it again."
        raise UnacceptableFile("damaged", message) from error


def measure(path: str) -> tuple[int, int, int]:
    """Pages, and width and height of the first one in points; 0, 0 without pages.

    Raises:
        UnacceptableFile: encrypted_pdf, damaged, or too_many_pixels for a side over 14,400 points.
    """
    with _opened(path) as document:
        for number in range(len(document)):
            width, height = document.get_page_size(number)
            if max(width, height) > MAX_SIDE_POINTS:
                message = f"Page {number + 1} is {width:.0f} x {height:.0f} points; a side may be {MAX_SIDE_POINTS:,}."
                raise UnacceptableFile("too_many_pixels", message)
        if len(document) == 0:
            return 0, 0, 0
        width, height = _page(document, 1).get_size()
        return len(document), round(width), round(height)


def render(path: str, number: int, *, dpi: float, max_pixels: int) -> Image.Image:
    """A page, counted from 1, as RGB on white; at a lower dpi where it would exceed `max_pixels`.

    Raises:
        UnacceptableFile: encrypted_pdf or damaged.
    """
    with _opened(path) as document:
        page = _page(document, number)
        width, height = page.get_size()
        scale = min(dpi / POINTS_PER_INCH, math.sqrt(max_pixels / max(1.0, width * height)))
        return page.render(scale=scale).to_pil().convert("RGB")


def text_layer(path: str, number: int, *, dpi: float) -> tuple[str, tuple[Word, ...], int, int] | None:
    """A page's own text, its words with boxes at `dpi`, and the page's width and height at `dpi`; None if it has none.

    A picture over most of the page with a few characters beside it is a scan with a footer and has none.

    Raises:
        UnacceptableFile: encrypted_pdf or damaged.
    """
    with _opened(path) as document:
        page = _page(document, number)
        width, height = page.get_size()
        layer = page.get_textpage()
        text = layer.get_text_bounded()
        real = [character for character in text if character.isalnum()]
        if len(real) < MIN_TEXT_CHARACTERS or ("\ufffd" in text and text.count("\ufffd") > len(real) / 10):
            return None
        if len(real) < FEW_CHARACTERS and _picture_share(page) > PICTURE_SHARE:
            return None
        scale = dpi / POINTS_PER_INCH
        words = tuple(_words(layer, height, scale))
        tidy = "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").splitlines()).strip()
        return tidy, words, round(width * scale), round(height * scale)


def _picture_share(page: pdfium.PdfPage) -> float:
    width, height = page.get_size()
    share = 0.0
    for picture in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE]):
        left, bottom, right, top = picture.get_bounds()
        share = max(share, (right - left) * (top - bottom) / max(1.0, width * height))
    return share


def _words(layer: pdfium.PdfTextPage, height: float, scale: float) -> Iterator[Word]:
    """Runs of characters between white space; a hyphenated or invisible word counts like any other."""
    text = layer.get_text_range()
    word, boxes = "", []
    for index, character in enumerate([*text, " "]):
        if not character.isspace():
            word += character
            if index < layer.count_chars():
                boxes.append(layer.get_charbox(index))
        elif word:
            x0, y0 = min(box[0] for box in boxes), height - max(box[3] for box in boxes)
            x1, y1 = max(box[2] for box in boxes), height - min(box[1] for box in boxes)
            yield Word(word, round(x0 * scale), round(y0 * scale), round(x1 * scale), round(y1 * scale), 1.0)
            word, boxes = "", []
