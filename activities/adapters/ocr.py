"""The text of one page: a PDF's own, or read by RapidOCR, whose models come inside its wheel.

https://rapidai.github.io/RapidOCRDocs/main/install_usage/rapidocr/usage/
"""

import functools
import math
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from activities.adapters import pdf
from activities.adapters.files import PDF, PageText, Word
from activities.adapters.images import decode

DPI = 200  # a 10-point letter is then 28 pixels high; the recogniser works at 48 pixels a line
MAX_PIXELS = 10_000_000  # of the picture that is read: A3 at 200 dpi has 7.7 million
MIN_SIDE_PX = 640  # a picture whose longer side is smaller is enlarged to this
DETECTION_PIXELS = 1_200_000  # finding lines needs no more; at A4 and 200 dpi it takes 0.4 s instead of 2.4 s
MIN_CONFIDENCE = 0.5
SURE = 0.8  # the mean confidence of a page that is the right way up is above 0.9
WIDE = 3.0  # widths per height of a run that is long enough to tell the page's skew
TALL = 1.5  # heights per width from which the recogniser takes a run as turned
SAME_LINE = 0.5  # of the smaller run's height
HALF_TURN = 2
TURNS = {1: Image.Transpose.ROTATE_90, HALF_TURN: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


@dataclass(frozen=True, slots=True)
class _Run:
    """Words that the detector saw as one, in pixels; x, y is its middle, slope is of its upper edge."""

    words: tuple[Word, ...]
    confidence: float
    x: float
    y: float
    width: float
    height: float
    slope: float


def read_page(path: str, media_type: str, page: int) -> PageText:
    """The text, words and boxes of one page, counted from 1.

    Boxes are in pixels of the page as it was read: a PDF page at about 200 dpi, a picture after its EXIF orientation.
    A word's confidence is that of the run it was read in; of a text layer it is 1.

    Raises:
        UnacceptableFile: the page cannot be decoded.
    """
    if media_type == PDF:
        layer = pdf.text_layer(path, page, dpi=DPI)
        if layer is not None:
            return PageText(page, layer.width, layer.height, layer.text, layer.words, 1.0, "text_layer")
        picture = pdf.render(path, page, dpi=DPI, max_pixels=MAX_PIXELS)
    else:
        picture = _sensible_size(_on_white(decode(path, frame=page - 1)))
    lines = _read(picture)
    words = tuple(word for line in lines for word in line)
    text = "\n".join(" ".join(word.text for word in line) for line in lines)
    confidence = statistics.fmean(word.confidence for word in words) if words else 0.0
    return PageText(page, picture.width, picture.height, text, words, confidence, "ocr")


def warm() -> None:
    """Load the models and run one: about a second that the first page then does not wait for."""
    _recognise(Image.new("RGB", (MIN_SIDE_PX, MIN_SIDE_PX), "white"))


@functools.cache
def _engine() -> Any:
    os.environ["OMP_NUM_THREADS"] = "1"  # one page is one core: the pool of processes is what is parallel
    import cv2  # these two take 0.6 s and 70 MB, which the pool's parent never needs
    import rapidocr

    cv2.setNumThreads(1)
    models = Path(rapidocr.__file__).parent / "models"
    return rapidocr.RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.text_score": 0.0,  # unsure runs tell that a page lies on its side; they are dropped later
            "Global.max_side_len": MAX_PIXELS,  # no second resizing
            "Global.use_cls": False,  # it takes long lines for upside down: 8 % of a dense page's words were lost
            "Det.model_path": str(models / "PP-OCRv6_det_small.onnx"),  # a model with a path is never downloaded
            "Rec.model_path": str(models / "PP-OCRv6_rec_small.onnx"),
            "Det.limit_type": "max",
            "Rec.rec_batch_num": 1,  # 6 pads lines to the longest: slower on one core, and twice the memory
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _sensible_size(image: Image.Image) -> Image.Image:
    scale = max(1.0, MIN_SIDE_PX / max(image.size))
    scale = min(scale, math.sqrt(MAX_PIXELS / (image.width * image.height)))
    if scale == 1.0:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _read(picture: Image.Image) -> list[list[Word]]:
    """Lines in reading order. A page that lies on its side or its head is turned, and its boxes turned back."""
    runs = _recognise(picture)
    letters = sum(_letters(run) for run in runs)
    lying = sum(_letters(run) for run in runs if run.height >= TALL * run.width) > letters / 2
    best, turned = runs, 0
    if lying or (runs and _certainty(runs) < SURE * letters):
        for turn in (1, 3) if lying else (HALF_TURN,):
            other = _recognise(picture.transpose(TURNS[turn]))
            if _certainty(other) > _certainty(best):
                best, turned = other, turn
    lines = _in_reading_order([run for run in best if run.confidence >= MIN_CONFIDENCE])
    return [[_turned_back(word, turned, picture.width, picture.height) for word in line] for line in lines]


def _letters(run: _Run) -> int:
    return sum(len(word.text) for word in run.words)


def _certainty(runs: list[_Run]) -> float:
    """Confident letters; a run across the direction of reading counts for little, whatever it was taken for."""
    return sum(run.confidence * _letters(run) * (0.5 if run.height >= TALL * run.width else 1.0) for run in runs)


def _turned_back(word: Word, turn: int, width: int, height: int) -> Word:
    """Box in a picture of `width` and `height` that was turned against the clock by `turn` quarters to be read."""
    x0, y0, x1, y1 = word.x0, word.y0, word.x1, word.y1
    if turn == 1:
        x0, y0, x1, y1 = width - y1, x0, width - y0, x1
    elif turn == HALF_TURN:
        x0, y0, x1, y1 = width - x1, height - y1, width - x0, height - y0
    elif turn:
        x0, y0, x1, y1 = y0, height - x1, y1, height - x0
    return Word(word.text, x0, y0, x1, y1, word.confidence)


def _recognise(image: Image.Image) -> list[_Run]:
    engine = _engine()
    detector = engine._load_det_model()  # noqa: SLF001 - its limit is a side, ours is an area: receipts are long
    scale = min(1.0, math.sqrt(DETECTION_PIXELS / (image.width * image.height)))
    detector.limit_side_len = max(32, round(max(image.size) * scale))
    blue_first = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
    answer = engine(blue_first, return_word_box=True, return_single_char_box=True)
    if answer.txts is None or answer.boxes is None:
        return []
    runs = []
    read = zip(answer.txts, answer.scores, answer.boxes, answer.word_results, strict=True)
    for text, score, corners, characters in read:
        boxes = [box for _, _, box in characters]  # of the characters that are not white space
        words = tuple(_words(text, boxes, float(score), image.size))
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = corners.tolist()
        if words:
            runs.append(
                _Run(
                    words,
                    float(score),
                    x=(ax + bx + cx + dx) / 4,
                    y=(ay + by + cy + dy) / 4,
                    width=math.hypot(bx - ax, by - ay),
                    height=math.hypot(dx - ax, dy - ay),
                    slope=(by - ay) / max(1.0, bx - ax),
                )
            )
    return runs


def _words(text: str, boxes: list[list[list[float]]], confidence: float, size: tuple[int, int]) -> list[Word]:
    """RapidOCR's own words are split at wide letters and carry other letters' confidence; its characters are right."""
    words = []
    at = 0
    for word in text.split():
        corners = [corner for box in boxes[at : at + len(word)] for corner in box]
        at += len(word)
        if not corners:
            continue
        x0, y0 = (min(max(math.floor(min(c[axis] for c in corners)), 0), size[axis] - 1) for axis in (0, 1))
        x1, y1 = (min(max(math.ceil(max(c[axis] for c in corners)), 1), size[axis]) for axis in (0, 1))
        words.append(Word(word, x0, y0, max(x1, x0 + 1), max(y1, y0 + 1), confidence))
    return words


def _in_reading_order(runs: list[_Run]) -> list[list[Word]]:
    """Runs side by side become one line; lines go down the page, along its skew.

    The skew is the median slope of the wider runs, so that the two ends of a line on a crooked scan stay together.
    """
    wide = [run.slope for run in runs if run.width > WIDE * run.height]
    skew = statistics.median(wide) if wide else 0.0

    def level(run: _Run) -> float:
        return run.y - skew * run.x

    lines: list[list[_Run]] = []
    for run in sorted(runs, key=level):
        first = lines[-1][0] if lines else None
        if first is None or level(run) - level(first) > SAME_LINE * min(run.height, first.height):
            lines.append([])
        lines[-1].append(run)
    return [[word for run in sorted(line, key=lambda run: run.x) for word in run.words] for line in lines]
