"""Which files are taken, as what, and what each refusal says."""

import contextlib
import io
import pickle
import re
from pathlib import Path

import pytest
from PIL import Image

from activities.adapters import inspection
from activities.adapters.files import Inspected, Limits, UnacceptableFile
from tests.unit import hostile

LIMITS = Limits(max_pixels=1_000_000, max_pages=3)
BROKEN_PDF = b"%PDF-1.7\n" + b"nothing of a PDF\n" * 20 + b"%%EOF\n"


def _inspect(folder: Path, body: bytes, name: str = "upload") -> Inspected:
    path = folder / "bytes"
    path.write_bytes(body)
    return inspection.inspect(str(path), name, LIMITS)


def _refusal(folder: Path, body: bytes, name: str = "upload") -> UnacceptableFile:
    with pytest.raises(UnacceptableFile) as caught:
        _inspect(folder, body, name)
    assert re.fullmatch(r"[A-Z].*\.", str(caught.value)), "a sentence for who uploaded it"
    return caught.value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_takes_each_kind_of_picture_with_its_size(tmp_path: Path, kind: str) -> None:
    assert _inspect(tmp_path, hostile.picture(kind)) == Inspected(f"image/{kind.lower()}", 1, 64, 48)


def test_counts_the_pages_of_a_pdf_and_measures_the_first_in_points(tmp_path: Path) -> None:
    assert _inspect(tmp_path, hostile.pdf(pages=3), "a.PDF") == Inspected("application/pdf", 3, 595, 842)


def test_counts_the_pages_of_a_tiff(tmp_path: Path) -> None:
    assert _inspect(tmp_path, hostile.tiff(((40, 30), (50, 20), (10, 10)))) == Inspected("image/tiff", 3, 40, 30)


def test_takes_an_animated_gif_as_one_page(tmp_path: Path) -> None:
    frames = [Image.effect_noise((20, 20), sigma) for sigma in (10, 50, 90, 130)]
    body = io.BytesIO()
    frames[0].save(body, "GIF", save_all=True, append_images=frames[1:])
    assert _inspect(tmp_path, body.getvalue()).pages == 1


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.jpe", "a", "a.dat", "", "C:\\scans\\a.jpg ", "../a.png.jpg"])
def test_takes_a_jpeg_under_any_name_that_claims_no_other_kind(tmp_path: Path, name: str) -> None:
    assert _inspect(tmp_path, hostile.picture("JPEG"), name).media_type == "image/jpeg"


@pytest.mark.parametrize("name", ["a.tif", "a.tiff"])
def test_takes_both_extensions_of_tiff(tmp_path: Path, name: str) -> None:
    assert _inspect(tmp_path, hostile.picture("TIFF"), name).media_type == "image/tiff"


def test_takes_what_cameras_append(tmp_path: Path) -> None:
    assert _inspect(tmp_path, hostile.camera_jpeg()).media_type == "image/jpeg"


def test_takes_a_multi_picture_jpeg_as_its_first_picture(tmp_path: Path) -> None:
    body = hostile.multi_picture_jpeg()
    assert body.count(b"\xff\xd8\xff") > 1
    assert _inspect(tmp_path, body) == Inspected("image/jpeg", 1, 320, 240)


def test_takes_a_pdf_with_an_archive_attached(tmp_path: Path) -> None:
    assert _inspect(tmp_path, hostile.pdf_with_attached_archive()).pages == 1


def test_takes_a_picture_whose_metadata_are_broken(tmp_path: Path) -> None:
    body = hostile.picture("JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xffgarbage")
    assert _inspect(tmp_path, body).media_type == "image/jpeg"


def test_refuses_an_empty_file(tmp_path: Path) -> None:
    assert _refusal(tmp_path, b"").code == "empty"


@pytest.mark.parametrize(
    "body",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'\xef\xbb\xbf<?xml version="1.0"?><svg/>',
        b"\n  <!DOCTYPE html><html></html>",
        b"<body onload=alert(1)>",
        '<svg xmlns="http://www.w3.org/2000/svg"/>'.encode("utf-16"),
    ],
)
def test_refuses_svg_and_other_markup(tmp_path: Path, body: bytes) -> None:
    assert _refusal(tmp_path, body, "picture.svg").code == "svg"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (hostile.archive(), "a ZIP archive"),
        (hostile.office(), "an Office document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "an old Office document"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(100), "a HEIC picture"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(100), "a video"),
        (b"MZ\x90\x00" + bytes(100), "a Windows program"),
        (b"\x7fELF" + bytes(100), "a Linux program"),
        (b"Best regards, BM", "not known"),
        (b"BMW invoice, as text, that only begins like a bitmap", "not known"),
        (b"\x00", "not known"),
    ],
)
def test_refuses_other_types_and_names_those_it_knows(tmp_path: Path, body: bytes, named: str) -> None:
    refusal = _refusal(tmp_path, body)
    assert refusal.code == "unsupported_type"
    assert named in str(refusal)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("scan.png", hostile.pdf()),
        ("scan.pdf", hostile.picture("PNG")),
        ("scan.jpg", hostile.picture("WEBP")),
        ("scan.gif ", hostile.picture("BMP")),
    ],
)
def test_refuses_a_name_that_claims_another_kind(tmp_path: Path, name: str, body: bytes) -> None:
    refusal = _refusal(tmp_path, body, name)
    assert refusal.code == "wrong_extension"
    assert name.strip()[-4:] in str(refusal)


def test_refuses_a_decompression_bomb_before_it_decodes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    refusal = _refusal(tmp_path, hostile.png_bomb(50_000, 50_000))
    assert refusal.code == "too_many_pixels"
    assert "50,000 x 50,000" in str(refusal)


def test_takes_exactly_as_many_pixels_as_the_limit_and_not_one_row_more(tmp_path: Path) -> None:
    assert _inspect(tmp_path, hostile.picture("JPEG", (1_000, 1_000))).width == 1_000
    assert _refusal(tmp_path, hostile.picture("JPEG", (1_000, 1_001))).code == "too_many_pixels"


def test_refuses_a_tiff_of_which_a_later_page_is_too_large(tmp_path: Path) -> None:
    assert _refusal(tmp_path, hostile.tiff(((10, 10), (1_100, 1_000)))).code == "too_many_pixels"


def test_refuses_a_pdf_page_over_200_inches(tmp_path: Path) -> None:
    assert _inspect(tmp_path, hostile.pdf(size=(14_400, 100))).width == 14_400
    assert _refusal(tmp_path, hostile.pdf(size=(14_401, 100))).code == "too_many_pixels"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_refuses_a_picture_that_ends_too_early(tmp_path: Path, kind: str, share: float) -> None:
    body = hostile.picture(kind, (320, 240))
    refusal = _refusal(tmp_path, body[: int(len(body) * share)])
    assert refusal.code == "truncated"


def test_refuses_a_tiff_whose_last_strip_is_cut_off(tmp_path: Path) -> None:
    body = hostile.picture("TIFF", (320, 240))
    assert _refusal(tmp_path, body[:-200]).code == "truncated"


def test_refuses_a_pdf_without_its_end(tmp_path: Path) -> None:
    body = hostile.pdf(pages=3)
    assert _refusal(tmp_path, body[: len(body) // 2]).code == "truncated"


def test_refuses_a_linearized_pdf_shorter_than_it_says(tmp_path: Path) -> None:
    body = hostile.pdf().replace(b"\n", b"\n99 0 obj << /Linearized 1 /L 999999 >> endobj\n", 1)
    assert _refusal(tmp_path, body).code == "truncated"


@pytest.mark.parametrize(
    "body",
    [
        b"\x89PNG\r\n\x1a\n" + hostile.picture("PNG")[8:].replace(b"IHDR", b"IHDX", 1),
        b"\xff\xd8\xff\xe0" + bytes(400) + b"\xff\xd9",
        BROKEN_PDF,
        b"II*\x00\x08\x00\x00\x00" + b"\x02\x00" + bytes(60),
        b"GIF89a" + bytes(40) + b";",
    ],
    ids=["png", "jpeg", "pdf", "tiff", "gif"],
)
def test_refuses_bytes_that_only_begin_like_their_kind(tmp_path: Path, body: bytes) -> None:
    assert _refusal(tmp_path, body).code == "damaged"


def test_refuses_a_png_with_wrong_bytes_in_its_middle(tmp_path: Path) -> None:
    body = bytearray(hostile.picture("PNG", (320, 240)))
    middle = len(body) // 2
    body[middle : middle + 40] = bytes(40)
    assert _refusal(tmp_path, bytes(body)).code == "damaged"


def test_refuses_a_pdf_that_needs_a_password(tmp_path: Path) -> None:
    assert _refusal(tmp_path, hostile.pdf(password="secret")).code == "encrypted_pdf"


def test_refuses_more_pages_than_the_limit(tmp_path: Path) -> None:
    assert _refusal(tmp_path, hostile.pdf(pages=4)).code == "too_many_pages"
    assert _refusal(tmp_path, hostile.tiff(((8, 8),) * 4)).code == "too_many_pages"


@pytest.mark.parametrize("before", [hostile.pdf(), hostile.pdf(password="secret"), BROKEN_PDF])
def test_refuses_a_pdf_without_pages_whatever_was_opened_before(tmp_path: Path, before: bytes) -> None:
    with contextlib.suppress(UnacceptableFile):
        _inspect(tmp_path, before)
    assert _refusal(tmp_path, hostile.pdf_without_pages()).code == "no_pages"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(hostile.picture("JPEG") + hostile.pdf(), id="jpeg-pdf"),
        pytest.param(hostile.picture("PNG") + hostile.pdf(), id="png-pdf"),
        pytest.param(hostile.picture("GIF") + hostile.pdf(), id="gif-pdf"),
        pytest.param(hostile.picture("WEBP") + hostile.pdf(), id="webp-pdf"),
        pytest.param(hostile.picture("JPEG") + hostile.archive(), id="jpeg-zip"),
        pytest.param(hostile.picture("PNG") + hostile.archive(), id="png-zip"),
        pytest.param(hostile.picture("TIFF") + hostile.archive(), id="tiff-zip"),
        pytest.param(hostile.picture("BMP") + hostile.archive(), id="bmp-zip"),
        pytest.param(hostile.picture("JPEG") + b"<html><body>", id="jpeg-html"),
        pytest.param(hostile.picture("PNG") + b"<SCRIPT>alert(1)</SCRIPT>", id="png-script"),
        pytest.param(hostile.picture("JPEG") + b"\n<?php system('id'); ?>", id="jpeg-php"),
        pytest.param(hostile.camera_jpeg() + b"<script >", id="camera-script"),
        pytest.param(hostile.gif_with_scripted_tail(), id="gif-script"),
        pytest.param(hostile.jpeg_with_pdf_in_comment(), id="pdf-in-comment"),
        pytest.param(b"\n" + hostile.pdf(), id="newline-pdf"),
        pytest.param(bytes(500) + hostile.pdf(), id="zeros-pdf"),
        pytest.param(hostile.pdf() + hostile.archive(), id="pdf-zip"),
    ],
)
def test_refuses_a_file_that_is_two_files(tmp_path: Path, body: bytes) -> None:
    assert _refusal(tmp_path, body).code == "polyglot"


def test_a_refusal_comes_whole_out_of_a_child_process() -> None:
    sent = UnacceptableFile("empty", "The file has no bytes; upload it again.")
    got = pickle.loads(pickle.dumps(sent))
    assert (type(got), got.code, str(got)) == (UnacceptableFile, sent.code, str(sent))


def test_a_missing_file_is_not_the_uploaders_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inspection.inspect(str(tmp_path / "gone"), "a.png", LIMITS)
