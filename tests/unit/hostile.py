"""Builders of files that should be refused, and of odd ones that should not. Each returns the file's bytes."""

import io
import struct
import zipfile
import zlib
from typing import Any

from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas


def picture(kind: str, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    """Gradients, so that no part compresses to nothing."""
    body = io.BytesIO()
    red = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", (red, red.transpose(Image.Transpose.ROTATE_180), red.point(lambda value: value // 2)))
    image.save(body, kind, **options)
    return body.getvalue()


def tiff(sizes: tuple[tuple[int, int], ...]) -> bytes:
    """One page per size."""
    body = io.BytesIO()
    first, *rest = [Image.radial_gradient("L").resize(size) for size in sizes]
    first.save(body, "TIFF", save_all=True, append_images=rest)
    return body.getvalue()


def pdf(pages: int = 1, size: tuple[float, float] = A4, password: str | None = None) -> bytes:
    """Pages with a line of text each."""
    body = io.BytesIO()
    canvas = Canvas(body, pagesize=size, encrypt=password, invariant=True)
    for number in range(pages):
        canvas.drawString(72, 72, f"This is page number {number + 1} of the document.")
        canvas.showPage()
    canvas.save()
    return body.getvalue()


def pdf_without_pages() -> bytes:
    """Valid, and its page tree is empty."""
    objects = (b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [] /Count 0 >>")
    body = b"%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"xref\n0 3\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return body + table + b"trailer\n<< /Size 3 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(body)


def archive() -> bytes:
    """A ZIP with one member."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as file:
        file.writestr("payload.txt", "inside " * 20)
    return body.getvalue()


def office() -> bytes:
    """Begins as a Word document does."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("word/document.xml", "<document/>")
    return body.getvalue()


def png_bomb(width: int, height: int) -> bytes:
    """A few hundred bytes whose header promises a huge picture."""
    header = struct.pack(">LLBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1_000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body)) for kind, body in chunks
    )


def gif_with_scripted_tail() -> bytes:
    """Ends in a second end mark, so that a search for the last one finds nothing after it."""
    return picture("GIF") + b"<script>alert(1)</script>\x00;"


def jpeg_with_pdf_in_comment() -> bytes:
    """PDF readers look for their header in the first 1,024 bytes."""
    body, comment = picture("JPEG"), pdf()[:900]
    return body[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + body[2:]


def camera_jpeg() -> bytes:
    """A Samsung-like trailer: named records of noise, among them the letters of a ZIP's end record."""
    noise = Image.effect_noise((200, 200), 60).tobytes()
    records = b"\x00\x00\x01\x0aImage_UTC_Data1448340425591" + noise + b"PK\x05\x06" + noise[:100]
    return picture("JPEG") + records + b"SEFH\x65\x00\x00\x00\x01\x00\x00\x00" + struct.pack("<L", 24) + b"SEFT"


def multi_picture_jpeg() -> bytes:
    """Two whole pictures one after the other: CIPA DC-007."""
    body = io.BytesIO()
    left, right = (Image.effect_noise((320, 240), sigma).convert("RGB") for sigma in (20, 60))
    left.save(body, "MPO", save_all=True, append_images=[right])
    return body.getvalue()


def pdf_with_attached_archive() -> bytes:
    """An uncompressed ZIP as an attachment near the file's end."""
    inner = archive()
    attachment = b"99 0 obj\n<< /Type /EmbeddedFile /Length %d >>\nstream\n%s\nendstream\nendobj\n" % (
        len(inner),
        inner,
    )
    whole = pdf()
    at = whole.rindex(b"xref\n", 0, whole.rindex(b"startxref"))
    moved = (whole[:at] + attachment + whole[at:]).replace(
        b"startxref\n%d" % at, b"startxref\n%d" % (at + len(attachment))
    )
    assert moved != whole[:at] + attachment + whole[at:]
    return moved
