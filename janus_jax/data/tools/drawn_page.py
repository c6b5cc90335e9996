"""What the model sees of data sets as PNG pictures: page.py's tokens and images, for where no
browser is at hand."""

import functools
import io

from PIL import Image, ImageDraw, ImageFont

from janus_jax.data.tools.page import View
from janus_jax.data.tools.view import PackedRow, Piece, Shown, visible
from janus_jax.model import batch as bt

_WIDTH = 1200  # pixels
_HEIGHT = 8000  # of one picture, about
_EDGE = 24
_LINE = 26
_SIDE = 224  # pixels at which images are shown, about
_INK, _SOFT, _CUT = (29, 33, 38), (102, 112, 120), (179, 38, 30)
_READ, _LEARN, _CONTROL = (236, 238, 241), (191, 232, 200), (107, 79, 163)
_FONT = ImageFont.load_default(size=16)
_PLAIN = str.maketrans("｜▁", "|_")  # of control strings


@functools.cache
def _has(character: str) -> bool:
    """Whether the font has a character: others are drawn as their escapes."""
    glyph, none = (_FONT.getmask(c) for c in (character, "\uffff"))
    return character == " " or (glyph.size, list(glyph)) != (none.size, list(none))


class _Canvas:
    """A white sheet that is written from left to right, line by line, and grows."""

    def __init__(self):
        self.image = Image.new("RGB", (_WIDTH, _LINE), "white")
        self.x = _EDGE
        self.y = 0

    def _grow(self, height: int):
        """Makes the sheet at least so much taller than what is written."""
        if self.y + height > self.image.height:
            size = (_WIDTH, max(self.y + height, self.image.height + 40 * _LINE))
            taller = Image.new("RGB", size, "white")
            taller.paste(self.image)
            self.image = taller

    def line(self, height: int = _LINE):
        """Goes to the next line."""
        self.x = _EDGE
        self.y += height

    def word(self, text: str, ink=_INK, back=None, edge=None):
        """A word in a box, on the next line where it has no room; parts of one that is too long."""
        text = "".join(c if _has(c) else ascii(c)[1:-1] for c in text.translate(_PLAIN))
        while text:
            room = _WIDTH - _EDGE - self.x
            part = text
            while len(part) > 1 and _FONT.getlength(part) > _WIDTH - 2 * _EDGE:
                part = part[: len(part) // 2]
            wide = _FONT.getlength(part)
            if wide > room:
                self.line()
            self._grow(_LINE)
            draw = ImageDraw.Draw(self.image)
            box = (self.x, self.y + 2, self.x + wide, self.y + _LINE - 4)
            if back or edge:
                draw.rectangle(box, fill=back, outline=edge)
            draw.text((self.x, self.y + 3), part, ink, _FONT)
            self.x += wide + 1
            text = text[len(part) :]

    def text(self, text: str, ink=_INK):
        """Words in lines of their own."""
        for line in text.split("\n"):
            for k, word in enumerate(line.split(" ")):
                self.word(f" {word}" if k else word, ink)
            self.line()

    def picture(self, pixels, told: str, back):
        """An image on lines of its own, what is said of it at its right."""
        if self.x > _EDGE:
            self.line()
        side = pixels.shape[0]
        wide = side * max(1, _SIDE // side)
        self._grow(wide + _LINE)
        image = Image.fromarray(pixels).resize((wide, wide), Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(self.image)
        draw.rectangle((_EDGE, self.y, _WIDTH - _EDGE, self.y + wide + 8), fill=back)
        self.image.paste(image, (_EDGE + 4, self.y + 4))
        draw.text((_EDGE + wide + 16, self.y + 8), told.replace("; ", "\n"), _INK, _FONT)
        self.line(wide + 12)

    def done(self) -> Image.Image:
        self._grow(_LINE)
        return self.image.crop((0, 0, _WIDTH, self.y + _LINE))


def drawn_pages(
    notes: list[str], views: list[View], rows: list[PackedRow], name: str
) -> dict[str, bytes]:
    """PNG files by name, `name` first, then with numbers from 2 on.

    notes: facts about all of it, a paragraph each.
    views: data sets, as stages see them.
    rows: the first packed row of each stage.
    name: of a file that ends with .png.
    """
    blocks = [_head(notes), *(block for view in views for block in _view(view))]
    blocks += [_packed(row) for row in rows]
    pages = [[]]
    for block in blocks:
        if pages[-1] and sum(b.height for b in pages[-1]) + block.height > _HEIGHT:
            pages.append([])
        pages[-1].append(block)
    out = {}
    for number, page in enumerate(filter(None, pages), 1):
        sheet = Image.new("RGB", (_WIDTH, sum(b.height for b in page)), "white")
        top = 0
        for block in page:
            sheet.paste(block, (0, top))
            top += block.height
        file = io.BytesIO()
        sheet.save(file, "PNG")
        out[name if number == 1 else f"{name.removesuffix('.png')}-{number}.png"] = file.getvalue()
    return out


def _head(notes: list[str]) -> Image.Image:
    """The notes, and what the colours mean."""
    canvas = _Canvas()
    for note in notes:
        canvas.text(visible(note), _SOFT)
    for word, *colours in (
        ("to predict", _INK, _LEARN),
        ("read, not learned from", _INK, _READ),
        ("control id", _CONTROL, None, _CONTROL),
    ):
        canvas.word(word, *colours)
        canvas.word("  ")
    canvas.line()
    return canvas.done()


def _view(view: View) -> list[Image.Image]:
    head = _Canvas()
    head.text(visible(f"{view.title}: {view.facts}"))
    for why in view.bad:
        head.text(visible(why), _CUT)
    return [head.done(), *map(_example, view.shown)]


def _example(example: Shown) -> Image.Image:
    canvas = _Canvas()
    canvas.text(visible(f"{example.where}: {example.told}"), _SOFT)
    waiting = list(example.pictures)
    for piece in example.pieces:
        if example.cut and piece.at <= example.cut[0] < piece.at + len(piece.ids):
            canvas.word(f" ... {example.cut[1]} tokens are left out ... ", _CUT)
        _piece(canvas, piece, waiting)
    last = example.pieces[-1]
    if example.cut and example.cut[0] >= last.at + len(last.ids):
        canvas.word(f" ... {example.cut[1]} tokens are left out", _CUT)
    canvas.line()
    return canvas.done()


def _piece(canvas: _Canvas, piece: Piece, waiting: list):
    back = _LEARN if piece.predicted else _READ
    if piece.role == bt.TEXT:
        edge = _CONTROL if piece.control else None
        first, *others = visible(piece.text).split("\n")
        canvas.word(first, _CONTROL if piece.control else _INK, back, edge)
        for text in others:
            canvas.line()
            canvas.word(text, _INK, back)
        return
    told = f"{len(piece.ids)} slots{', to predict' if piece.predicted else ''}"
    if waiting:
        pixels, how = waiting.pop(0)
        canvas.picture(pixels, f"{how}; {told}", back)
    else:
        canvas.word(f"[{told}]", _INK, back)


def _packed(row: PackedRow) -> Image.Image:
    canvas = _Canvas()
    canvas.text(f"Packed: {row.title}, {row.length} tokens, {row.padding} of padding")
    for s in row.segments:
        places = f"places {s.begin} to {s.end - 1}, positions {s.positions[0]} to {s.positions[1]}"
        told = (
            f"segment {s.number}: {places}, {s.predicted} to predict; {s.kind}, {s.name}, {s.where}"
        )
        canvas.text(visible(told), _SOFT)
        for piece in s.pieces:
            _piece(canvas, piece, [])
        canvas.line()
    return canvas.done()
