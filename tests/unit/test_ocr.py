"""What is read: every word, in the order of reading, at the right place, from the right source."""

import io
import itertools
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from activities.adapters import inspection, ocr
from activities.adapters.files import PDF, Limits, PageText, Word
from starter.demo.samples import Sample, scanned_pdf, write_samples

LIMITS = Limits(max_pixels=50_000_000, max_pages=20)
PIXELS_PER_POINT = ocr.DPI / 72


def _paper(size: tuple[int, int] = (1_240, 700)) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", size, "white")
    return image, ImageDraw.Draw(image)


def _read(folder: Path, image: Image.Image) -> PageText:
    path = folder / "page.png"
    image.save(path)
    return ocr.read_page(str(path), "image/png", 1)


def _canvas(folder: Path, draw: Callable[[Canvas], None], **options: tuple[float, float, float, float]) -> str:
    path = folder / "page.pdf"
    canvas = Canvas(str(path), pagesize=A4, **options)
    draw(canvas)
    canvas.showPage()
    canvas.save()
    return str(path)


def _scan_of(*lines: str) -> ImageReader:
    image, draw = _paper((1_240, 1_754))
    for number, line in enumerate(lines):
        draw.text((150, 200 + number * 90), line, font=ImageFont.load_default(40), fill="black")
    body = io.BytesIO()
    image.save(body, "JPEG")
    return ImageReader(body)


def _find(page: PageText, text: str) -> Word:
    found = [word for word in page.words if word.text == text]
    assert len(found) == 1, (text, page.text)
    return found[0]


def _overlap(word: Word, box: tuple[float, float, float, float]) -> float:
    """Of the two boxes' common area, in their joint area."""
    width = min(word.x1, box[2]) - max(word.x0, box[0])
    height = min(word.y1, box[3]) - max(word.y0, box[1])
    common = max(0.0, width) * max(0.0, height)
    areas = (word.x1 - word.x0) * (word.y1 - word.y0) + (box[2] - box[0]) * (box[3] - box[1])
    return common / (areas - common)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    return {sample.path.name: sample for sample in write_samples(tmp_path_factory.mktemp("samples"))}


@pytest.fixture(scope="module")
def pages(samples: dict[str, Sample]) -> dict[str, list[PageText]]:
    read = {}
    for name, sample in samples.items():
        seen = inspection.inspect(str(sample.path), name, LIMITS)
        assert seen.pages == sample.pages
        read[name] = [ocr.read_page(str(sample.path), seen.media_type, page + 1) for page in range(sample.pages)]
    return read


def test_reads_every_known_word_of_every_sample(samples: dict[str, Sample], pages: dict[str, list[PageText]]) -> None:
    for name, sample in samples.items():
        text = "\n".join(page.text for page in pages[name]).lower()
        assert [word for word in sample.words if word.lower() not in text] == [], name


def test_numbers_pages_from_1_and_keeps_every_box_inside_its_page(pages: dict[str, list[PageText]]) -> None:
    for read in pages.values():
        assert [page.page for page in read] == list(range(1, len(read) + 1))
        for page in read:
            assert page.words
            assert 0.9 < page.confidence <= 1.0
            for word in page.words:
                assert 0 <= word.x0 < word.x1 <= page.width, word
                assert 0 <= word.y0 < word.y1 <= page.height, word
                assert 0.0 <= word.confidence <= 1.0


def test_the_words_of_a_page_are_its_text_in_the_same_order(pages: dict[str, list[PageText]]) -> None:
    for page in itertools.chain.from_iterable(pages.values()):
        assert [word.text for word in page.words] == page.text.split()


def test_keeps_the_rows_of_a_crooked_invoice_together_and_in_order(pages: dict[str, list[PageText]]) -> None:
    lines = pages["invoice-scan.jpg"][0].text.splitlines()
    rows = [
        "Northwind Paper Mill",
        "14 Harbour Road, Bristol BS1 5TY",
        "Description Quantity Price Amount",
        "Recycled paper A4, 80 gsm 120 4.35 522.00",
        "Kraft envelopes C5 40 6.10 244.00",
        "Cardboard tubes 60 cm 25 3.48 87.00",
        "Delivery, two pallets 1 95.00 95.00",
        "Total due 948.00 EUR",
        "Thank you for your order.",
    ]
    assert [line for line in lines if line in rows] == rows


def test_reads_a_phone_photo_the_way_its_exif_turns_it(pages: dict[str, list[PageText]]) -> None:
    page = pages["delivery-note-photo.jpg"][0]
    assert page.width < page.height
    assert page.text.splitlines()[0] == "DELIVERY NOTE"
    assert "Steel brackets 24" in page.text.splitlines()


def test_takes_a_text_layer_where_there_is_one_and_reads_the_scanned_page(pages: dict[str, list[PageText]]) -> None:
    assert [page.source for page in pages["contract.pdf"]] == ["text_layer", "ocr", "text_layer"]
    assert {page.source for page in pages["inspection-report.pdf"]} == {"ocr"}


def test_a_scanned_pdf_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, again = (scanned_pdf(tmp_path / name, pages=2, seed=5) for name in ("a.pdf", "b.pdf"))
    other = scanned_pdf(tmp_path / "c.pdf", pages=2, seed=6)
    assert first.path.read_bytes() == again.path.read_bytes()
    assert first.words == again.words != other.words
    assert first.path.read_bytes() != other.path.read_bytes()


def test_reads_long_crooked_lines_without_losing_words_or_spaces(tmp_path: Path) -> None:
    lines = [
        "which stated that the goods were to be inspected by the purchaser before acceptance of any delivery",
        "and the supplier keeps to the schedule given in this agreement unless notice is sent to the address",
        "provided that samples, photographs and the reference 2026-00417 reach us within 14 days of the date",
    ]
    image, draw = _paper((1_654, 500))
    for number, line in enumerate(lines):
        draw.text((120, 150 + number * 40), line, font=ImageFont.load_default(28), fill="black")
    for degrees in (-3.0, 2.5):
        crooked = image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white")
        assert _read(tmp_path, crooked).text.splitlines() == lines


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_reads_a_page_that_lies_on_its_side_and_puts_boxes_where_the_words_are(tmp_path: Path, quarters: int) -> None:
    image, draw = _paper()
    font = ImageFont.load_default(36)
    draw.text((100, 120), "Goods received in the warehouse on Tuesday", font=font, fill="black")
    draw.text((100, 220), "by the night shift", font=font, fill="black")
    draw.text((900, 520), "Remarks", font=font, fill="black")
    left, top, right, bottom = draw.textbbox((900, 520), "Remarks", font=font)
    width, height = image.size
    for _ in range(quarters):  # against the clock
        left, top, right, bottom = top, width - right, bottom, width - left
        width, height = height, width
    page = _read(tmp_path, image.rotate(90 * quarters, expand=True))
    assert (page.width, page.height) == (width, height)
    assert page.text.splitlines() == ["Goods received in the warehouse on Tuesday", "by the night shift", "Remarks"]
    assert _overlap(_find(page, "Remarks"), (left, top, right, bottom)) > 0.5


def test_reads_a_long_receipt_without_shrinking_it_to_nothing(tmp_path: Path) -> None:
    image, draw = _paper((420, 4_200))
    lines = [f"Article {number:03d}   {number}.50" for number in range(1, 31)]
    for number, line in enumerate(lines):
        draw.text((30, 60 + number * 135), line, font=ImageFont.load_default(26), fill="black")
    assert [line.split()[1] for line in _read(tmp_path, image).text.splitlines()] == [line.split()[1] for line in lines]


def test_reads_black_letters_on_a_transparent_ground(tmp_path: Path) -> None:
    image = Image.new("RGBA", (600, 200), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((40, 60), "Clear ground", font=ImageFont.load_default(48), fill=(0, 0, 0, 255))
    assert _read(tmp_path, image).text == "Clear ground"


def test_reads_a_small_picture(tmp_path: Path) -> None:
    image, draw = _paper((160, 40))
    draw.text((8, 8), "Voucher 4711", font=ImageFont.load_default(18), fill="black")
    assert _read(tmp_path, image).text == "Voucher 4711"


def test_reads_the_page_of_a_tiff_that_was_asked_for(tmp_path: Path) -> None:
    sheets = []
    for text in ("First sheet", "Second sheet"):
        image, draw = _paper((500, 200))
        draw.text((40, 60), text, font=ImageFont.load_default(48), fill="black")
        sheets.append(image)
    path = tmp_path / "pages.tif"
    sheets[0].save(path, save_all=True, append_images=sheets[1:])
    assert ocr.read_page(str(path), "image/tiff", 2).text == "Second sheet"


def test_a_blank_page_has_no_text_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = _read(tmp_path, _paper()[0])
    assert (page.text, page.words, page.confidence, page.source) == ("", (), 0.0, "ocr")
    assert capfd.readouterr() == ("", "")


def test_loads_its_models_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network"))
    ocr._engine.cache_clear()
    ocr.warm()
    assert _read(tmp_path, _paper()[0]).text == ""


def test_a_text_layers_boxes_are_where_its_words_are_printed(tmp_path: Path) -> None:
    path = _canvas(tmp_path, lambda canvas: canvas.drawString(100, 700, "Somewhere on this page"))
    page = ocr.read_page(path, PDF, 1)
    assert (page.source, page.width, page.height) == ("text_layer", 1_654, 2_339)
    word = _find(page, "Somewhere")
    assert word.x0 == pytest.approx(100 * PIXELS_PER_POINT, abs=4)
    assert word.y0 < (A4[1] - 700) * PIXELS_PER_POINT < word.y1 + 2
    assert word.y1 - word.y0 < 20 * PIXELS_PER_POINT


def test_a_text_layers_boxes_follow_a_turned_page(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setPageRotation(90)  # reportlab then makes the sheet itself 842 x 595 points
        canvas.drawString(500, 100, "Somewhere on this page")

    page = ocr.read_page(_canvas(tmp_path, draw), PDF, 1)
    assert (page.width, page.height) == (1_654, 2_339)
    word = _find(page, "Somewhere")  # turned by a quarter, a point's x is its old y and its y is its old x
    assert word.x0 - 2 < 100 * PIXELS_PER_POINT < word.x1 + 2
    assert word.y0 == pytest.approx(500 * PIXELS_PER_POINT, abs=4)
    assert word.y1 - word.y0 > word.x1 - word.x0


def test_a_text_layers_boxes_follow_the_visible_part_of_a_page(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(100, 700, "Somewhere on this page")
        canvas.drawString(10, 20, "Outside")

    page = ocr.read_page(_canvas(tmp_path, draw, cropBox=(90, 400, 500, 800)), PDF, 1)
    assert _find(page, "Somewhere").x0 == pytest.approx(10 * PIXELS_PER_POINT, abs=4)
    assert "Outside" not in [word.text for word in page.words]


def test_joins_a_word_broken_at_a_lines_end_and_boxes_its_two_parts(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(72, 700, "This takes some compre-")
        canvas.drawString(72, 684, "hension of well-known words")

    page = ocr.read_page(_canvas(tmp_path, draw), PDF, 1)
    assert page.text == "This takes some comprehension of well-known words"
    assert _find(page, "compre-").y1 < _find(page, "hension").y1
    assert _find(page, "hension").x0 == pytest.approx(72 * PIXELS_PER_POINT, abs=4)


def test_reads_what_was_typed_into_a_form(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(72, 700, "Name of the person who ordered")
        canvas.acroForm.textfield(name="who", value="Ottoline", x=72, y=660, width=200, height=24)

    page = ocr.read_page(_canvas(tmp_path, draw), PDF, 1)
    assert page.source == "text_layer"
    assert "Ottoline" in page.text


def test_a_scan_with_a_footer_is_read_and_not_taken_for_text(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawImage(_scan_of("Minutes of the meeting", "Nobody objected"), 0, 0, *A4)
        canvas.drawString(72, 30, "Scanned by the office copier, page 1 of 1")

    page = ocr.read_page(_canvas(tmp_path, draw), PDF, 1)
    assert page.source == "ocr"
    assert page.text.splitlines() == [
        "Minutes of the meeting",
        "Nobody objected",
        "Scanned by the office copier, page 1 of 1",
    ]


def test_a_scan_in_strips_is_a_scan(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        for strip in range(4):
            canvas.drawImage(_scan_of("Minutes"), 0, strip * A4[1] / 4, A4[0], A4[1] / 4)
        canvas.drawString(72, 30, "Scanned by the office copier")

    assert ocr.read_page(_canvas(tmp_path, draw), PDF, 1).source == "ocr"


def test_invisible_text_over_a_scan_is_its_text_however_short(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawImage(_scan_of("Minutes of the meeting"), 0, 0, *A4)
        text = canvas.beginText(72, 700)
        text.setTextRenderMode(3)
        text.textLine("Minutes of the meeting")
        canvas.drawText(text)

    page = ocr.read_page(_canvas(tmp_path, draw), PDF, 1)
    assert (page.source, page.text) == ("text_layer", "Minutes of the meeting")


def test_a_text_page_on_a_background_picture_keeps_its_text(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawImage(_scan_of(), 0, 0, *A4)
        for line in range(12):
            canvas.drawString(72, 700 - line * 20, f"Paragraph {line} says what it has to say at some length.")

    assert ocr.read_page(_canvas(tmp_path, draw), PDF, 1).source == "text_layer"


def test_a_page_number_alone_is_no_text_layer(tmp_path: Path) -> None:
    page = ocr.read_page(_canvas(tmp_path, lambda canvas: canvas.drawString(280, 400, "17")), PDF, 1)
    assert page.source == "ocr"


def test_letters_without_a_meaning_are_no_text_layer(tmp_path: Path) -> None:
    path = tmp_path / "page.pdf"
    canvas = Canvas(str(path), pagesize=A4, pageCompression=0)
    canvas.drawString(72, 700, "QWERTZ" * 5 + " and a few words")
    canvas.save()
    assert ocr.read_page(str(path), PDF, 1).source == "text_layer"
    path.write_bytes(path.read_bytes().replace(b"QWERTZ", b"\x01\x02\x03\x04\x05\x06"))
    assert ocr.read_page(str(path), PDF, 1).source == "ocr"
