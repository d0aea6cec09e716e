"""Pictures made upright, sRGB and small, by Pillow."""

import io
import warnings

from PIL import Image, ImageCms, ImageOps

from activities.adapters import pdf
from activities.adapters.files import PDF, Thumbnail, UnacceptableFile

WEBP_QUALITY = 80
PDF_THUMBNAIL_DPI = 150
MAX_RENDERED_PIXELS = 4_000_000  # a page for a 1024 px thumbnail needs no more
SRGB = ImageCms.createProfile("sRGB")
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
    picture = first_page(path, media_type, longest_side=max(sizes))
    made = {}
    for size in sorted(sizes, reverse=True):
        picture = picture.copy()
        picture.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
        body = io.BytesIO()
        picture.save(body, "WEBP", quality=WEBP_QUALITY, method=4)
        made[size] = Thumbnail(size, picture.width, picture.height, body.getvalue())
    return tuple(made[size] for size in sizes)


def first_page(path: str, media_type: str, *, longest_side: int) -> Image.Image:
    """RGB or RGBA, upright, in sRGB, at least `longest_side` large where the file is.

    Raises:
        UnacceptableFile: the file cannot be decoded.
    """
    if media_type == PDF:
        return pdf.render(path, 1, dpi=PDF_THUMBNAIL_DPI, max_pixels=MAX_RENDERED_PIXELS)
    return decode(path, frame=0, longest_side=longest_side)


def decode(path: str, *, frame: int, longest_side: int | None = None) -> Image.Image:
    """One frame of a picture as RGB or RGBA, upright, in sRGB.

    Args:
        path: of the file.
        frame: counted from 0.
        longest_side: lets a JPEG be decoded at a fraction of its size, but never below this.

    Raises:
        UnacceptableFile: damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that is dropped anyway
            with Image.open(path) as image:
                image.seek(frame)
                if longest_side:
                    image.draft(None, (longest_side, longest_side))
                profile = image.info.get("icc_profile")
                upright = ImageOps.exif_transpose(image)
                return _to_srgb(upright, profile)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnacceptableFile("damaged", f"The picture cannot be decoded ({error}); upload it again.") from error


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    transparent = image.has_transparency_data
    if image.mode == "P" or (image.mode in {"RGB", "L", "1"} and transparent):
        image = image.convert("RGBA" if transparent else "RGB")
    if profile and image.mode in {"RGB", "RGBA", "CMYK", "L"}:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode = "RGBA" if image.mode == "RGBA" else "RGB"
            converted = ImageCms.profileToProfile(image, source, SRGB, outputMode=mode)
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken or foreign profile: most viewers show such a picture without it, and so do we
    return image.convert("RGBA" if transparent else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey by their own range: Pillow's convert would clip them to white."""
    low, high = image.getextrema()
    if image.mode.startswith("I;16") or (image.mode == "I" and low >= 0 and high <= 65_535):  # noqa: PLR2004 - 16 bits
        low, high = 0, 65_535
    span = max(float(high) - float(low), 1e-9)
    return image.convert("F").point(lambda value: (value - float(low)) * 255.0 / span).convert("L")
