"""Samples of data sets as the model will see them, on one picture."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from janus_jax.data import images
from janus_jax.data.survey import words

SAMPLES = 5  # of each data set
SIDE = 256  # pixels at which pictures are shown, about
LETTERS = 320  # of a caption


def sheet(parts: list[tuple]) -> Image.Image:
    """parts: (title, survey, source, encoder) of each data set, one band each."""
    bands = [_band(*part) for part in parts if part[1].good]
    out = Image.new("RGB", (max(b.width for b in bands), sum(b.height for b in bands)), "white")
    top = 0
    for band in bands:
        out.paste(band, (0, top))
        top += band.height
    return out


def _band(title: str, survey, source, encoder) -> Image.Image:
    good = survey.good
    picks = [good[i] for i in np.linspace(0, len(good) - 1, min(SAMPLES, len(good))).astype(int)]
    shown = [_sample(survey.kind, source, record.index, encoder) for record in picks]
    pictures, captions = zip(*shown)
    scale = max(SIDE // max(p.shape[0] for p in pictures), 1)
    grid = images.contact_sheet(list(pictures), list(captions), SAMPLES, scale)
    font = ImageFont.load_default(size=20)
    out = Image.new("RGB", (grid.width, grid.height + 40), "white")
    draw = ImageDraw.Draw(out)
    draw.rectangle((0, 0, out.width, 36), fill=(232, 236, 242))
    draw.text((16, 6), title, (16, 24, 40), font)
    out.paste(grid, (0, 40))
    return out


def _sample(kind: str, source, i: int, encoder) -> tuple[np.ndarray, str]:
    """A picture and what stands below it: pictures of a record side by side, text as a page."""
    record = source[i]
    example = encoder(kind, record, np.random.default_rng(i))
    text = words(record)
    if kind == "text":
        return _page(text), source.where(i)
    pixels = encoder.pixels(kind, source, i, {k: v for k, v in record.items() if k != "image_ids"}, example)
    more = f"({len(pixels)} pictures, the first) " if len(pixels) > 1 else ""
    return pixels[0], f"{more}{_cut(text, LETTERS)}"


def _page(text: str) -> np.ndarray:
    """The beginning of a text on a square page, uint8 [SIDE, SIDE, 3]."""
    page, font = Image.new("RGB", (SIDE, SIDE), (250, 249, 245)), ImageFont.load_default(size=14)
    draw, rows, line = ImageDraw.Draw(page), [], ""
    for word in _cut(text, 1000).split():
        if font.getlength(f"{line} {word}") > SIDE - 24 and line:
            rows, line = [*rows, line], word
        else:
            line = f"{line} {word}".strip()
    draw.multiline_text((12, 10), "\n".join([*rows, line][:13]), (40, 40, 40), font)
    return np.asarray(page)


def _cut(text: str, letters: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= letters else text[:letters].rsplit(" ", 1)[0] + " ..."
