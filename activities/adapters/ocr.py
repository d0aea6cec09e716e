"""The text of one page: a PDF's own, or read by RapidOCR, whose models come inside its wheel."""

import functools
import os
import statistics
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before onnxruntime and OpenCV are loaded: one page is one core

import cv2
import numpy as np
from PIL import Image
from rapidocr import RapidOCR

from activities.adapters import pdf
from activities.adapters.files import PDF, PageText, Word
from activities.adapters.images import decode

DPI = 200  # a 10-point letter is then 20 pixels high, what the recogniser was trained on
MAX_SIDE_PX = 2_340  # A4 at 200 dpi; a larger picture takes longer and reads no better
MIN_SIDE_PX = 640  # smaller pictures are enlarged to this
MAX_RENDERED_PIXELS = 20_000_000
MIN_CONFIDENCE = 0.5


@functools.cache
def _engine() -> RapidOCR:
    cv2.setNumThreads(1)
    return RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.text_score": MIN_CONFIDENCE,
            "Global.max_side_len": MAX_SIDE_PX,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


def warm() -> None:
    """Load the models, which the first page would otherwise wait a second for."""
    _engine()


def read_page(path: str, media_type: str, page: int) -> PageText:
    """The text, words and boxes of one page, counted from 1.

    Raises:
        UnacceptableFile: the page cannot be decoded.
    """
    if media_type == PDF:
        layer = pdf.text_layer(path, page, dpi=DPI)
        if layer is not None:
            text, words, width, height = layer
            return PageText(page, width, height, text, words, 1.0, "text_layer")
        picture = pdf.render(path, page, dpi=DPI, max_pixels=MAX_RENDERED_PIXELS)
    else:
        picture = _sensible_size(_on_white(decode(path, frame=page - 1)))
    lines = _in_reading_order(_recognise(picture))
    words = tuple(word for line in lines for word in line)
    text = "\n".join(" ".join(word.text for word in line) for line in lines)
    confidence = statistics.fmean(word.confidence for word in words) if words else 0.0
    return PageText(page, picture.width, picture.height, text, words, confidence, "ocr")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _sensible_size(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    wanted = min(max(longest, MIN_SIDE_PX), MAX_SIDE_PX)
    if wanted == longest:
        return image
    scale = wanted / longest
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _recognise(image: Image.Image) -> list[tuple[Word, ...]]:
    """Runs of words that the detector saw as one."""
    answer: Any = _engine()(np.asarray(image)[:, :, ::-1], return_word_box=True)
    runs = []
    for run in answer.word_results or ():
        words = []
        for text, confidence, corners in run:
            if not text.strip() or corners is None:
                continue
            xs = [min(max(round(x), 0), image.width) for x, _ in corners]
            ys = [min(max(round(y), 0), image.height) for _, y in corners]
            words.append(Word(text.strip(), min(xs), min(ys), max(xs), max(ys), float(confidence)))
        if words:
            runs.append(tuple(words))
    return runs


def _in_reading_order(runs: list[tuple[Word, ...]]) -> list[list[Word]]:
    """Runs side by side become one line; lines go down the page, along its skew.

    The skew is the median slope of the longer runs, so that the two ends of a line on a crooked scan stay together.
    """
    if not runs:
        return []
    slopes = [
        ((run[-1].y0 + run[-1].y1) - (run[0].y0 + run[0].y1)) / 2 / (run[-1].x0 - run[0].x0)
        for run in runs
        if len(run) > 1 and run[-1].x0 - run[0].x0 > 100  # noqa: PLR2004 - pixels; shorter ones say little
    ]
    slope = statistics.median(slopes) if slopes else 0.0

    def level(run: tuple[Word, ...]) -> float:
        return statistics.fmean((word.y0 + word.y1) / 2 - slope * (word.x0 + word.x1) / 2 for word in run)

    tall = statistics.median(word.y1 - word.y0 for run in runs for word in run)
    lines: list[list[tuple[Word, ...]]] = []
    last = float("-inf")
    for run in sorted(runs, key=level):
        if level(run) - last > tall * 0.6:
            lines.append([])
            last = level(run)
        lines[-1].append(run)
    return [[word for run in sorted(line, key=lambda run: run[0].x0) for word in run] for line in lines]
