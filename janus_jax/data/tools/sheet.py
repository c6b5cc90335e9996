"""Samples of data sets as the model will see them, on one picture."""

import dataclasses
import io
import itertools

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from janus_jax.common.contact_sheet import contact_sheet
from janus_jax.data.tools.survey import words

SAMPLES = 5  # of each data set
SIDE = 256  # pixels at which pictures are shown, about
LETTERS = 320  # of a caption
BAR = 40  # pixels of a title
ROWS = 4  # of samples below one title
PAGE = 8000  # pixels of height


@dataclasses.dataclass
class Band:
    """Samples of one data set.

    title: what stands above them.
    kind: of the data set.
    source: its records.
    encoder: what makes examples of them.
    records: the numbers of those to show, all of them usable.
    """

    title: str
    kind: str
    source: object
    encoder: object
    records: list[int]

    @classmethod
    def spread(cls, name: str, line, source, encoders: dict, good: list) -> "Band":
        """Of SAMPLES usable records (survey.Record), evenly over all."""
        picks = np.linspace(0, len(good) - 1, min(SAMPLES, len(good))).astype(int)
        records = [good[i].index for i in picks]
        encoder = next(iter(encoders.values()))
        return cls(title(name, line), line.kind, source, encoder, records)


def title(name: str, line) -> str:
    return f"{name}: {line.kind}, {line.path}"


def sheets(bands: list[Band], name: str) -> dict[str, bytes]:
    """Data sets one below the other, on as many pictures as keep each of them to about `PAGE`
    pixels of height: their PNG files by name, `name` first, then with numbers from 2 on."""
    pages = [[]]
    for title, grid in itertools.chain.from_iterable(map(_grids, bands)):
        height = sum(other.height + BAR for _, other in pages[-1])
        if pages[-1] and height + grid.height > PAGE:
            pages.append([])
        pages[-1].append((title, grid))
    out = {}
    for number, page in enumerate(pages if bands else [], 1):
        file = io.BytesIO()
        _sheet(page).save(file, "PNG")
        out[name if number == 1 else f"{name.removesuffix('.png')}-{number}.png"] = file.getvalue()
    return out


def _sheet(titled: list[tuple]) -> Image.Image:
    titles, grids = zip(*titled)
    width = max(grid.width for grid in grids)
    font = ImageFont.load_default(size=20)
    out = Image.new("RGB", (width, sum(grid.height + BAR for grid in grids)), "white")
    draw = ImageDraw.Draw(out)
    top = 0
    for title, grid in zip(titles, grids):
        draw.rectangle((0, top, width, top + BAR - 4), fill=(232, 236, 242))
        draw.text((16, top + 6), title, (16, 24, 40), font)
        out.paste(grid, (0, top + BAR))
        top += BAR + grid.height
    return out


def _grids(band: Band):
    """(title, picture) for each few rows of a data set's samples."""
    for begin in range(0, len(band.records), ROWS * SAMPLES):
        part = band.records[begin : begin + ROWS * SAMPLES]
        shown = [_sample(band.kind, band.source, i, band.encoder) for i in part]
        pictures, captions = zip(*shown)
        scale = max(SIDE // max(p.shape[0] for p in pictures), 1)
        yield band.title, contact_sheet(list(pictures), list(captions), SAMPLES, scale)


PICTURES = ("understanding_images", "generation_images")


def _sample(kind: str, source, i: int, encoder) -> tuple[np.ndarray, str]:
    """A picture and what stands below it: pictures of a record side by side, text as a page."""
    record = encoder.read(source, i)
    example = encoder(kind, record, np.random.default_rng(i))
    text = words(record)
    drawn = {k: v for k, v in record.items() if k != "image_ids"}
    found = encoder.pixels(kind, source, i, drawn, example) if kind != "text" else {}
    pixels = [x for name in PICTURES for x in found.get(name, ())]
    if not pixels:  # nor where all pictures stood in questions that a row has no room for
        side = encoder.model.understanding_encoder.image_size
        return _page(text, side * max(SIDE // side, 1)), source.where(i)
    more = f"({len(pixels)} pictures, the first) " if len(pixels) > 1 else ""
    return pixels[0], f"{more}{_cut(text, LETTERS)}"


def _page(text: str, side: int) -> np.ndarray:
    """The beginning of a text on a square page, uint8 [side, side, 3]."""
    page = Image.new("RGB", (side, side), (250, 249, 245))
    font = ImageFont.load_default(size=16)
    draw = ImageDraw.Draw(page)
    rows = []
    line = ""
    for word in _cut(text, side * 4).split():
        if font.getlength(f"{line} {word}") > side - 24 and line:
            rows = [*rows, line]
            line = word
        else:
            line = f"{line} {word}".strip()
    draw.multiline_text((12, 10), "\n".join([*rows, line][: side // 20 - 1]), (40, 40, 40), font)
    return np.asarray(page)


def _cut(text: str, letters: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= letters else text[:letters].rsplit(" ", 1)[0] + " ..."
