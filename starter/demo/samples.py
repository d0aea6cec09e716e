"""Documents that look like what people upload, made from a seed: their words are known, so reading can be checked."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Table, TableStyle

SCAN_SIZE = (1240, 1754)  # A4 at 150 dpi
INK = (38, 38, 46)


@dataclass(frozen=True, slots=True)
class Sample:
    """A file, how many pages it has, and words that are on them."""

    path: Path
    pages: int
    words: tuple[str, ...]


def write_samples(folder: Path) -> tuple[Sample, ...]:
    """A crooked scan, a phone photo, a PDF with one scanned page, and a scanned PDF."""
    folder.mkdir(parents=True, exist_ok=True)
    return (
        crooked_scan(folder / "invoice-scan.jpg"),
        phone_photo(folder / "delivery-note-photo.jpg"),
        mixed_pdf(folder / "contract.pdf"),
        scanned_pdf(folder / "inspection-report.pdf", pages=5),
    )


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # Pillow's own TrueType, so nothing needs to be installed


def _paper(size: tuple[int, int], tint: tuple[int, int, int] = (251, 249, 243)) -> Image.Image:
    return Image.new("RGB", size, tint)


def _rows(
    draw: ImageDraw.ImageDraw, top: int, rows: Sequence[tuple[str, ...]], columns: tuple[int, ...], size: int
) -> int:
    for number, row in enumerate(rows):
        for x, cell in zip(columns, row, strict=True):
            draw.text((x, top), cell, font=_font(size), fill=INK)
        if number == 0:
            draw.line((columns[0], top + size * 1.5, 1130, top + size * 1.5), fill=INK, width=2)
        top += round(size * 2)
    return top


def invoice_page() -> Image.Image:
    """A one-page invoice, straight and clean."""
    page = _paper(SCAN_SIZE)
    draw = ImageDraw.Draw(page)
    draw.rectangle((90, 92, 150, 152), fill=(24, 84, 120))
    draw.text((172, 96), "Northwind Paper Mill", font=_font(46), fill=(24, 84, 120))
    draw.text((92, 176), "14 Harbour Road, Bristol BS1 5TY", font=_font(24), fill=INK)
    draw.text((800, 250), "INVOICE", font=_font(58), fill=INK)
    draw.text((800, 330), "Number 2026-00417", font=_font(26), fill=INK)
    draw.text((800, 370), "Date 18 November 2026", font=_font(26), fill=INK)
    draw.text((92, 330), "Bill to", font=_font(24), fill=(110, 110, 110))
    for line, text in enumerate(("Acme Stationery Ltd", "Accounts Payable", "8 Mill Lane, Leeds LS1 4AP")):
        draw.text((92, 366 + line * 38), text, font=_font(28), fill=INK)
    rows = [
        ("Description", "Quantity", "Price", "Amount"),
        ("Recycled paper A4, 80 gsm", "120", "4.35", "522.00"),
        ("Kraft envelopes C5", "40", "6.10", "244.00"),
        ("Cardboard tubes 60 cm", "25", "3.48", "87.00"),
        ("Delivery, two pallets", "1", "95.00", "95.00"),
    ]
    bottom = _rows(draw, 580, rows, (92, 640, 830, 1000), 28)
    draw.line((830, bottom + 10, 1130, bottom + 10), fill=INK, width=2)
    draw.text((640, bottom + 30), "Total due", font=_font(34), fill=INK)
    draw.text((960, bottom + 30), "948.00 EUR", font=_font(34), fill=INK)
    draw.text((92, bottom + 170), "Payable within 30 days to GB29 NWBK 6016 1331 9268 19.", font=_font(26), fill=INK)
    draw.text((92, bottom + 212), "Thank you for your order.", font=_font(26), fill=INK)
    return page


def _scanned(page: Image.Image, *, seed: int, degrees: float) -> Image.Image:
    """As a cheap scanner gives it: crooked, unevenly lit, grainy, a little soft, with dust."""
    noise = np.random.default_rng(seed)
    crooked = page.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=(236, 233, 225))
    pixels = np.asarray(crooked.filter(ImageFilter.GaussianBlur(0.6)), dtype=np.float32)
    height, width, _ = pixels.shape
    shade = 1.0 - 0.10 * np.linspace(0, 1, width)[None, :, None] - 0.05 * np.linspace(0, 1, height)[:, None, None] ** 2
    grain = noise.standard_normal((height, width, 1), dtype=np.float32) * 7
    lit = pixels * shade.astype(np.float32) + grain
    scan = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(scan)
    dust = random.Random(seed)  # noqa: S311 - not for secrets
    for _ in range(60):
        x, y = dust.randrange(width), dust.randrange(height)
        draw.point((x, y), fill=(120, 115, 105))
    return scan


def crooked_scan(path: Path) -> Sample:
    """An invoice scanned two degrees askew."""
    _scanned(invoice_page(), seed=7, degrees=2.0).save(path, quality=80, dpi=(150, 150))
    return Sample(path, 1, ("INVOICE", "2026-00417", "Envelopes", "948.00", "Bristol", "Cardboard"))


def delivery_note() -> Image.Image:
    """A filled-in and signed form, straight and clean."""
    note = _paper((1650, 2100), (250, 250, 246))
    draw = ImageDraw.Draw(note)
    draw.text((120, 105), "DELIVERY NOTE", font=_font(102), fill=INK)
    draw.text((120, 255), "Order 88213  Tuesday 17 November", font=_font(54), fill=INK)
    rows = (
        ("Item", "Pieces"),
        ("Oak shelves", "6"),
        ("Steel brackets", "24"),
        ("Wood screws", "200"),
        ("Furniture wax", "3"),
    )
    for number, (item, pieces) in enumerate(rows):
        top = 435 + number * 144
        draw.text((120, top), item, font=_font(66), fill=INK)
        draw.text((1290, top), pieces, font=_font(66), fill=INK)
        draw.line((120, top + 99, 1530, top + 99), fill=(190, 190, 190), width=3)
    draw.text((120, 1230), "Received in good condition", font=_font(60), fill=INK)
    draw.line((120, 1560, 930, 1560), fill=INK, width=4)
    strokes = ((180, 1530), (290, 1420), (340, 1560), (430, 1450), (520, 1555), (600, 1500), (700, 1530), (860, 1470))
    draw.line(strokes, fill=(30, 50, 140), width=7, joint="curve")
    draw.text((120, 1590), "Signature", font=_font(45), fill=(110, 110, 110))
    draw.ellipse((1130, 1330, 1480, 1680), outline=(150, 60, 60), width=9)
    draw.text((1178, 1470), "WAREHOUSE", font=_font(44), fill=(150, 60, 60))
    return note


def phone_photo(path: Path) -> Sample:
    """A delivery note on a desk, photographed at an angle by a phone held sideways: EXIF says how to turn it."""
    noise = np.random.default_rng(11)
    width, height = 2250, 3000
    grain = np.convolve(noise.normal(0, 14, height + 40), np.hanning(41) / 9, "valid")  # of wood, along the desk
    desk = np.array([134, 96, 62]) + grain[:height, None, None] + noise.normal(0, 2, (1, width, 1))
    photo = Image.fromarray(np.clip(desk, 0, 255).astype(np.uint8))
    note = delivery_note()
    corners = ((335, 442), (1930, 362), (2050, 2546), (228, 2626))  # of the note on the desk
    onto = _perspective(corners, note.size)
    warped = note.transform(photo.size, Image.Transform.PERSPECTIVE, onto, Image.Resampling.BICUBIC)
    mask = Image.new("L", note.size, 255).transform(photo.size, Image.Transform.PERSPECTIVE, onto)
    shadow = mask.reduce(8).filter(ImageFilter.GaussianBlur(4)).resize(photo.size).point(lambda value: value // 2)
    photo.paste((30, 20, 12), (19, 27), shadow)
    photo.paste(warped, mask=mask)
    y, x = np.ogrid[0:height, 0:width]
    light = (1.06 - 0.36 * np.hypot((x - 670) / width, (y - 940) / height)).astype(np.float32)  # a lamp, upper left
    sensor = noise.standard_normal((height, width), dtype=np.float32) * 4
    lit = np.asarray(photo).astype(np.float32) * light[:, :, None] + sensor[:, :, None]
    upright = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left; turn clockwise to see it upright
    exif[0x010F], exif[0x0110], exif[0x0132] = "Fairway", "Pocket 9", "2026:11:17 14:32:08"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, quality=82, exif=exif)
    return Sample(path, 1, ("DELIVERY", "88213", "shelves", "brackets", "200", "condition"))


def _perspective(corners: tuple[tuple[int, int], ...], size: tuple[int, int]) -> list[float]:
    """Pillow's eight coefficients that put a picture of `size` onto `corners`, clockwise from the upper left."""
    width, height = size
    rows, target = [], []
    for (x, y), (u, v) in zip(corners, ((0, 0), (width, 0), (width, height), (0, height)), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        target += [u, v]
    solved: list[float] = np.linalg.solve(np.array(rows, dtype=float), np.array(target, dtype=float)).tolist()
    return solved


def mixed_pdf(path: Path) -> Sample:
    """Three pages: text, a scanned invoice, text with a table."""
    canvas = Canvas(str(path), pagesize=A4, invariant=True)
    canvas.setTitle("Supply agreement")
    width, height = A4
    canvas.setFont("Helvetica-Bold", 20)
    canvas.drawString(25 * mm, height - 35 * mm, "Supply Agreement")
    canvas.setFont("Helvetica", 11)
    clauses = (
        "1. The Supplier delivers recycled paper to the Purchaser every quarter.",
        "2. Prices are fixed until 31 December 2027 and exclude transport.",
        "3. Either party may terminate with ninety days of written notice.",
        "4. The Supplier keeps a reserve stock of two pallets at Bristol.",
        "5. Claims are made within fourteen days of delivery, with photographs.",
    )
    canvas.drawString(25 * mm, height - 48 * mm, "between Northwind Paper Mill, Bristol (the Supplier)")
    canvas.drawString(25 * mm, height - 54 * mm, "and Acme Stationery Ltd, Leeds (the Purchaser).")
    for number, clause in enumerate(clauses):
        canvas.drawString(25 * mm, height - (70 + number * 9) * mm, clause)
    for left, who in ((25, "For the Supplier"), (115, "For the Purchaser")):
        canvas.line(left * mm, 60 * mm, (left + 65) * mm, 60 * mm)
        canvas.drawString(left * mm, 54 * mm, who)
    canvas.showPage()
    scan = io.BytesIO()
    _scanned(invoice_page(), seed=23, degrees=-1.2).save(scan, "JPEG", quality=75)
    canvas.drawImage(ImageReader(scan), 0, 0, width, height)
    canvas.showPage()
    canvas.setFont("Helvetica-Bold", 14)
    canvas.drawString(25 * mm, height - 35 * mm, "Schedule A: volumes")
    table = Table(
        [
            ["Quarter", "Reams", "Delivery"],
            ["Q1", "1,200", "Leeds"],
            ["Q2", "1,450", "Leeds"],
            ["Q3", "900", "Sheffield"],
        ],
        colWidths=[40 * mm, 40 * mm, 60 * mm],
    )
    table.setStyle(TableStyle([("GRID", (0, 0), (-1, -1), 0.5, "grey"), ("FONT", (0, 0), (-1, 0), "Helvetica-Bold")]))
    table.wrapOn(canvas, width, height)
    table.drawOn(canvas, 25 * mm, height - 75 * mm)
    canvas.showPage()
    canvas.save()
    return Sample(path, 3, ("Agreement", "ninety", "Northwind", "948.00", "Schedule", "Sheffield"))


FINDINGS = ("bearing", "coupling", "gasket", "valve", "impeller", "manifold", "rotor", "housing", "seal", "flange")


def _figure(number: int) -> Image.Image:
    """A drawing of two pipes and what joins them."""
    figure = Image.new("RGB", (700, 330), (226, 226, 222))
    draw = ImageDraw.Draw(figure)
    middle = 200 + 60 * (number % 5)
    draw.rectangle((0, 130, 700, 200), fill=(168, 172, 176), outline=INK, width=3)
    draw.rectangle((middle, 95, middle + 120, 235), fill=(120, 126, 132), outline=INK, width=3)
    for bolt in range(4):
        draw.ellipse((middle + 12 + bolt * 28, 106, middle + 26 + bolt * 28, 120), fill=INK)
    draw.line((middle + 130, 90, middle + 230, 40), fill=(170, 40, 40), width=4)
    draw.ellipse((middle - 20, 75, middle + 140, 255), outline=(170, 40, 40), width=5)
    return figure


def scanned_pdf(path: Path, pages: int, seed: int = 31) -> Sample:
    """An inspection report of which every page is a scan; each page names its number and a finding."""
    canvas = Canvas(str(path), pagesize=A4, invariant=True)
    canvas.setTitle("Inspection report")
    words = []
    for number in range(1, pages + 1):
        finding = FINDINGS[(number + seed) % len(FINDINGS)]
        code = f"INS-{seed:03d}-{number:04d}"
        words += [code, finding]
        page = _paper(SCAN_SIZE)
        draw = ImageDraw.Draw(page)
        draw.text((110, 120), "Inspection report", font=_font(50), fill=INK)
        draw.text((110, 210), f"Sheet {number} of {pages}   Reference {code}", font=_font(28), fill=INK)
        lines = (
            f"The {finding} on line {number} was examined under load.",
            f"Wear of {0.1 * number:.1f} mm was measured at the outer edge.",
            "No leak was found at nominal pressure.",
            f"Replace the {finding} before 30 June 2027.",
        )
        for line, text in enumerate(lines):
            draw.text((110, 340 + line * 70), text, font=_font(30), fill=INK)
        page.paste(_figure(number), (110, 700))
        draw.text((110, 1060), f"Figure {number}: position of the {finding}", font=_font(24), fill=INK)
        readings = [("Measured at", "Value", "Limit")]
        readings += [
            (f"{hour}:15", f"{2.1 + 0.3 * ((number + hour) % 5):.1f} bar", "4.0 bar") for hour in (8, 10, 12, 14)
        ]
        _rows(draw, 1180, readings, (110, 560, 900), 28)
        scan = io.BytesIO()
        _scanned(page, seed=seed * 1000 + number, degrees=(-1.5, 0.8, 1.7)[number % 3]).save(scan, "JPEG", quality=70)
        canvas.drawImage(ImageReader(scan), 0, 0, *A4)
        canvas.showPage()
    canvas.save()
    return Sample(path, pages, tuple(words))
