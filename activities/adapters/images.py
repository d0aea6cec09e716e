"""Pictures made upright, sRGB and small, by Pillow (https://pillow.readthedocs.io)."""

import io
import warnings

import numpy as np
from PIL import Image, ImageCms

from activities.adapters import pdf
from activities.adapters.files import DECODE_ERRORS, PDF, Thumbnail, UnacceptableFile, raise_if_ours

WEBP_QUALITY = 80
WEBP_METHOD = 4  # of 0 to 6: effort
PDF_THUMBNAIL_DPI = 150
MAX_RENDERED_PIXELS = 4_000_000  # a page for a 1024 px thumbnail needs no more
ORIENTATION = 0x0112  # the EXIF tag; its values: https://exiftool.org/TagNames/EXIF.html
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
CIELAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
PROFILED = {"RGB", "RGBA", "CMYK", "L"}  # the modes whose pixels an embedded profile can describe
Image.MAX_IMAGE_PIXELS = None  # files are inspected before; activities/adapters/inspection.py holds the limit


def thumbnails(path: str, media_type: str, sizes: tuple[int, ...]) -> tuple[Thumbnail, ...]:
    """WebP of the first page at each size: upright, sRGB, transparency kept, no metadata, never enlarged.

    Args:
        path: of the file.
        media_type: of its bytes.
        sizes: longest sides in pixels.

    Raises:
        UnacceptableFile: the file cannot be decoded.
    """
    if media_type == PDF:
        picture = pdf.render(path, 1, dpi=PDF_THUMBNAIL_DPI, max_pixels=MAX_RENDERED_PIXELS)
    else:
        picture = decode(path, frame=0, longest_side=max(sizes))
    made = {}
    for size in sorted(set(sizes), reverse=True):
        picture = _at_most(picture, size)
        body = io.BytesIO()
        picture.save(body, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
        made[size] = Thumbnail(size, picture.width, picture.height, body.getvalue())
    return tuple(made[size] for size in sizes)


def decode(path: str, *, frame: int, longest_side: int | None = None) -> Image.Image:
    """One frame of a picture as RGB or RGBA, upright, in sRGB, without metadata.

    Args:
        path: of the file.
        frame: counted from 0.
        longest_side: in pixels, what the caller can use; a larger picture is made smaller before its colours are.

    Raises:
        UnacceptableFile: damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that is dropped anyway
            with Image.open(path) as image:
                image.seek(frame)
                if longest_side:
                    image.draft(None, _fitted(image.size, longest_side))  # a JPEG at 1/2, 1/4 or 1/8, not below it
                profile = image.info.get("icc_profile")
                image.load()
                turn = TURNS.get(_orientation(image))  # after loading, which already turns a TIFF
                picture = _plain(image)
                if longest_side:
                    picture = _at_most(picture, longest_side)
                picture = _to_srgb(picture, profile)
    except DECODE_ERRORS as error:
        raise_if_ours(error)
        raise UnacceptableFile("damaged", "The picture cannot be decoded; export it again and upload that.") from error
    picture = picture.transpose(turn) if turn is not None else picture
    picture.info = {}
    return picture


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except DECODE_ERRORS:
        return 1  # broken metadata does not make a broken picture
    return value if isinstance(value, int) else 1


def _fitted(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    scale = min(1.0, longest_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _at_most(picture: Image.Image, longest_side: int) -> Image.Image:
    size = _fitted(picture.size, longest_side)
    if size == picture.size:
        return picture
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)  # quick shrinking down to 3 times the size


def _plain(image: Image.Image) -> Image.Image:
    """A mode that can be resized and whose colours a profile can describe: L, RGB, RGBA, CMYK or LAB."""
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image)
    if image.mode in {"CMYK", "LAB"}:
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in {"L", "RGB"} else image.convert("L" if image.mode == "1" else "RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    if image.mode == "LAB":
        return _converted(image, CIELAB, mode)
    if profile and image.mode in PROFILED:
        try:
            return _converted(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), mode)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # broken, or of another kind than the pixels: viewers show such a picture without it, and so do we
    return image.convert(mode)


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile, mode: str) -> Image.Image:
    converted = ImageCms.profileToProfile(image, profile, SRGB, outputMode=mode)
    if converted is None:  # only when converting in place
        raise ValueError(mode)
    return converted


def _eight_bits(image: Image.Image) -> Image.Image:
    """16 bits by their full range, 32 bits and floats by their own: Pillow's convert would clip them to white."""
    values = np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I") and low >= 0 and high <= 65_535:  # noqa: PLR2004 - 16 bits
        low, high = 0.0, 65_535.0
    return Image.fromarray(((values - low) * (255.0 / max(high - low, 1e-9))).round().astype(np.uint8))
