"""Samples of data sets as the model will see them, on one picture."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from janus_jax.data import images
from janus_jax.data.survey import words

SAMPLES = 5  # of each data set
SIDE = 256  # pixels at which pictures are shown, about
LETTERS = 320  # of a caption
BAR = 40  # pixels of a title


def sheet(parts: list[tuple]) -> Image.Image:
    """parts: (title, survey, source, encoder) of each data set with usable records, one band each."""
    grids = [_grid(*part[1:]) for part in parts]
    width, font = max(grid.width for grid in grids), ImageFont.load_default(size=20)
    out = Image.new("RGB", (width, sum(grid.height + BAR for grid in grids)), "white")
    draw, top = ImageDraw.Draw(out), 0
    for (title, *_), grid in zip(parts, grids):
        draw.rectangle((0, top, width, top + BAR - 4), fill=(232, 236, 242))
        draw.text((16, top + 6), title, (16, 24, 40), font)
        out.paste(grid, (0, top + BAR))
        top += BAR + grid.height
    return out


def _grid(survey, source, encoder) -> Image.Image:
    good = survey.good
    picks = [good[i] for i in np.linspace(0, len(good) - 1, min(SAMPLES, len(good))).astype(int)]
    shown = [_sample(survey.kind, source, record.index, encoder) for record in picks]
    pictures, captions = zip(*shown)
    scale = max(SIDE // max(p.shape[0] for p in pictures), 1)
    return images.contact_sheet(list(pictures), list(captions), SAMPLES, scale)


def _sample(kind: str, source, i: int, encoder) -> tuple[np.ndarray, str]:
    """A picture and what stands below it: pictures of a record side by side, text as a page."""
    record = source[i]
    example = encoder(kind, record, np.random.default_rng(i))
    text = words(record)
    if kind == "text":
        side = encoder.model.understanding_encoder.image_size
        return _page(text, side * max(SIDE // side, 1)), source.where(i)
    pixels = encoder.pixels(kind, source, i, {k: v for k, v in record.items() if k != "image_ids"}, example)
    more = f"({len(pixels)} pictures, the first) " if len(pixels) > 1 else ""
    return pixels[0], f"{more}{_cut(text, LETTERS)}"


def _page(text: str, side: int) -> np.ndarray:
    """The beginning of a text on a square page, uint8 [side, side, 3]."""
    page, font = Image.new("RGB", (side, side), (250, 249, 245)), ImageFont.load_default(size=16)
    draw, rows, line = ImageDraw.Draw(page), [], ""
    for word in _cut(text, side * 4).split():
        if font.getlength(f"{line} {word}") > side - 24 and line:
            rows, line = [*rows, line], word
        else:
            line = f"{line} {word}".strip()
    draw.multiline_text((12, 10), "\n".join([*rows, line][: side // 20 - 1]), (40, 40, 40), font)
    return np.asarray(page)


def _cut(text: str, letters: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= letters else text[:letters].rsplit(" ", 1)[0] + " ..."
