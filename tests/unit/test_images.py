"""Thumbnails: upright, in the right colours, transparent where they were, small, and without metadata."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from activities.adapters import images
from activities.adapters.files import Thumbnail, UnacceptableFile
from tests.unit import hostile

RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 220), (250, 250, 250)
AS_SEEN = {"upper left": RED, "upper right": GREEN, "lower left": BLUE, "lower right": WHITE}
# How a picture must be turned so that the EXIF value, applied to it, gives the picture as seen.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _four_corners(size: tuple[int, int] = (640, 480)) -> Image.Image:
    width, height = size
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


def _made(folder: Path, image: Image.Image, kind: str, *sizes: int, **options: Any) -> tuple[Thumbnail, ...]:
    path = folder / "picture"
    image.save(path, kind, **options)
    return images.thumbnails(str(path), f"image/{kind.lower()}", sizes)


def _opened(thumbnail: Thumbnail) -> Image.Image:
    image = Image.open(io.BytesIO(thumbnail.webp))
    assert image.format == "WEBP"
    assert image.size == (thumbnail.width, thumbnail.height)
    return image


def _pixel(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    found = image.getpixel((int(image.width * x), int(image.height * y)))
    assert isinstance(found, tuple)
    return found


def _near(found: tuple[int, ...], wanted: tuple[int, ...], within: int = 12) -> bool:
    return all(abs(a - b) <= within for a, b in zip(found, wanted, strict=True))


def _gamma_profile(primaries: tuple[tuple[float, float, float], ...]) -> bytes:
    """A matrix profile with gamma 2.2, primaries in XYZ adapted to D50: ICC.1:2022, 8.3.3."""

    def s15(value: float) -> bytes:
        return struct.pack(">l", round(value * 65_536))

    description = b"test\x00"
    text = b"desc" + bytes(4) + struct.pack(">L", len(description)) + description + bytes(79)
    bodies: dict[bytes, bytes] = {
        b"desc": text,
        b"cprt": b"text" + bytes(4) + b"none\x00",
        b"wtpt": b"XYZ " + bytes(4) + s15(0.9642) + s15(1.0) + s15(0.8249),
    }
    for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True):
        bodies[name] = b"XYZ " + bytes(4) + b"".join(map(s15, xyz))
        bodies[name[:1] + b"TRC"] = b"curv" + bytes(4) + struct.pack(">LH", 1, round(2.2 * 256))
    table, data = b"", b""
    start = 128 + 4 + 12 * len(bodies)
    for name, body in bodies.items():
        padded = body + bytes(-len(body) % 4)
        table += struct.pack(">4sLL", name, start + len(data), len(body))
        data += padded
    header = struct.pack(">L4sL4s4s4s", start + len(data), b"test", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + s15(0.9642) + s15(1.0) + s15(0.8249)
    return header + bytes(128 - len(header)) + struct.pack(">L", len(bodies)) + table + data


# Adobe RGB (1998), adapted to D50: http://www.brucelindbloom.com/index.html?WorkingSpaceInfo.html
WIDE = _gamma_profile(((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_turns_a_picture_as_its_exif_says(tmp_path: Path, kind: str, orientation: int) -> None:
    seen = _four_corners()
    turn = STORED_AS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (made,) = _made(tmp_path, seen.transpose(turn) if turn is not None else seen, kind, 200, exif=exif)
    assert (made.width, made.height) == (200, 150)
    image = _opened(made)
    corners = {"upper left": (0.2, 0.2), "upper right": (0.8, 0.2), "lower left": (0.2, 0.8), "lower right": (0.8, 0.8)}
    for corner, (x, y) in corners.items():
        assert _near(_pixel(image, x, y), AS_SEEN[corner]), corner


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_leaves_a_picture_with_a_meaningless_orientation_as_it_is(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (made,) = _made(tmp_path, _four_corners(), "JPEG", 200, exif=exif)
    assert _near(_pixel(_opened(made), 0.2, 0.2), RED)


def test_makes_each_size_in_the_order_asked_for(tmp_path: Path) -> None:
    made = _made(tmp_path, _four_corners((1_600, 800)), "JPEG", 100, 1_024, 320)
    assert [(one.size, one.width, one.height) for one in made] == [(100, 100, 50), (1_024, 1_024, 512), (320, 320, 160)]


def test_never_enlarges(tmp_path: Path) -> None:
    made = _made(tmp_path, _four_corners((50, 30)), "PNG", 40, 256)
    assert [(one.width, one.height) for one in made] == [(40, 24), (50, 30)]


def test_keeps_a_pixel_of_a_very_long_picture(tmp_path: Path) -> None:
    (made,) = _made(tmp_path, Image.new("RGB", (5_000, 3), RED), "PNG", 100)
    assert (made.width, made.height) == (100, 1)


def test_converts_a_wide_profile_to_srgb(tmp_path: Path) -> None:
    (plain,) = _made(tmp_path, Image.new("RGB", (80, 80), (180, 120, 90)), "PNG", 64)
    assert _near(_pixel(_opened(plain), 0.5, 0.5), (180, 120, 90), 3)
    for kind in ("PNG", "JPEG"):
        (made,) = _made(tmp_path, Image.new("RGB", (80, 80), (180, 120, 90)), kind, 64, icc_profile=WIDE)
        # By hand: linear Adobe RGB times its matrix, then the inverse of sRGB's (the same page), then sRGB's curve.
        assert _near(_pixel(_opened(made), 0.5, 0.5), (199, 121, 88), 4)


def test_converts_cmyk(tmp_path: Path) -> None:
    (made,) = _made(tmp_path, Image.new("CMYK", (80, 80), (0, 255, 255, 0)), "JPEG", 64)
    red, green, blue = _pixel(_opened(made), 0.5, 0.5)
    assert red > 200
    assert green < 60
    assert blue < 60


def test_converts_cielab(tmp_path: Path) -> None:
    lab = ImageCms.profileToProfile(_four_corners(), images.SRGB, images.CIELAB, outputMode="LAB")
    assert lab is not None
    (made,) = _made(tmp_path, lab, "TIFF", 64)
    assert _near(_pixel(_opened(made), 0.2, 0.2), RED)


@pytest.mark.parametrize("profile", [b"not a profile", WIDE[:200]])
def test_shows_a_picture_with_a_broken_profile_without_it(tmp_path: Path, profile: bytes) -> None:
    (made,) = _made(tmp_path, _four_corners(), "PNG", 64, icc_profile=profile)
    assert _near(_pixel(_opened(made), 0.2, 0.2), RED)


def _transparent(mode: str) -> tuple[Image.Image, dict[str, Any]]:
    """Left half clear, right half opaque."""
    if mode == "P":
        image = Image.new("P", (80, 80), 1)
        image.putpalette([0, 0, 0, *RED])
        image.paste(0, (0, 0, 40, 80))
        return image, {"transparency": 0}
    if mode == "RGB":
        image = Image.new("RGB", (80, 80), RED)
        image.paste((1, 2, 3), (0, 0, 40, 80))
        return image, {"transparency": (1, 2, 3)}
    image = Image.new("RGBA", (80, 80), (*RED, 255))
    image.paste((0, 0, 0, 0), (0, 0, 40, 80))
    return image.convert(mode), {}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_keeps_transparency(tmp_path: Path, mode: str) -> None:
    image, options = _transparent(mode)
    (made,) = _made(tmp_path, image, "PNG", 40, **options)
    small = _opened(made)
    assert small.mode == "RGBA"
    assert _pixel(small, 0.2, 0.5)[3] == 0
    assert _pixel(small, 0.8, 0.5)[3] == 255


def test_keeps_transparency_beside_a_wide_profile(tmp_path: Path) -> None:
    image, _ = _transparent("RGBA")
    (made,) = _made(tmp_path, image, "PNG", 40, icc_profile=WIDE)
    small = _opened(made)
    assert (_pixel(small, 0.2, 0.5)[3], _pixel(small, 0.8, 0.5)[3]) == (0, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_scales_16_bits_by_their_full_range(tmp_path: Path, kind: str) -> None:
    grey = Image.fromarray(np.full((60, 60), 0x8000, np.uint16))
    (made,) = _made(tmp_path, grey, kind, 40)
    assert _near(_pixel(_opened(made), 0.5, 0.5), (128, 128, 128), 2)


def test_scales_floats_by_their_own_range(tmp_path: Path) -> None:
    ramp = Image.fromarray(np.tile(np.linspace(-3, 9, 64, dtype=np.float32), (64, 1)))
    (made,) = _made(tmp_path, ramp, "TIFF", 64)
    image = _opened(made)
    assert _pixel(image, 0.02, 0.5)[0] < 12
    assert _pixel(image, 0.97, 0.5)[0] > 243


def test_takes_the_first_frame_and_the_first_page(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (60, 40), RED), Image.new("RGB", (60, 40), BLUE)
    for kind in ("GIF", "TIFF"):
        (made,) = _made(tmp_path, first, kind, 40, save_all=True, append_images=[second])
        assert _near(_pixel(_opened(made), 0.5, 0.5)[:3], RED)
    path = tmp_path / "pages.pdf"
    path.write_bytes(hostile.pdf(pages=2, size=(300, 150)))
    (made,) = images.thumbnails(str(path), "application/pdf", (200,))
    assert (made.width, made.height) == (200, 100)
    assert _pixel(_opened(made), 0.5, 0.1) == (255, 255, 255)


def test_leaves_no_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Fairway"
    exif.get_ifd(0x8825)[2] = (51.0, 27.0, 14.0)  # GPSLatitude
    (made,) = _made(tmp_path, _four_corners(), "JPEG", 200, exif=exif, icc_profile=WIDE, comment=b"at home")
    assert b"Fairway" in (tmp_path / "picture").read_bytes()
    small = _opened(made)
    assert not small.getexif()
    assert not {"exif", "xmp", "icc_profile", "comment"} & set(small.info)
    assert b"EXIF" not in made.webp
    assert b"ICCP" not in made.webp


def test_refuses_what_cannot_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(hostile.picture("PNG", (320, 240))[:500])
    with pytest.raises(UnacceptableFile) as caught:
        images.thumbnails(str(path), "image/png", (100,))
    assert caught.value.code == "damaged"
