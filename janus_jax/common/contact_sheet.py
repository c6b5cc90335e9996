"""Many pictures on one: enlarged in a grid, what they are below each."""

import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_TINY = 128  # pixels: below this a contact sheet shows pixels as they are, above it interpolates
_CAPTION_LINES = 6
_PAGE = 16_000_000  # pixels of a sheet, about: what every viewer opens


def per_page(size: tuple[int, int], columns: int, scale: float) -> int:
    """How many pictures of `size` (width, height) stand on one sheet: whole rows, at least one.

    columns, scale: as in `contact_sheet`, which draws what it is given on one sheet.
    """
    width = max(96, size[0] * scale) * 1.07
    height = size[1] * scale * 1.07 + 100  # a caption below
    return columns * max(1, int(_PAGE / (width * height)) // columns)


def contact_sheet(pictures, captions, columns, scale):
    """Pictures (PIL, or uint8 [H, W, 3]) enlarged `scale` times in a grid, captions below -> an RGB
    picture.

    Tiny pictures keep hard pixels. Captions wrap, and are cut after six lines. Raises ValueError.
    """
    if not pictures or len(pictures) != len(captions) or columns < 1 or scale <= 0:
        given = (
            f"{len(pictures)} pictures, {len(captions)} captions, columns={columns}, scale={scale}"
        )
        raise ValueError(
            f"contact sheet: {given}; needs pictures, a caption for each, columns >= 1, scale > 0"
        )
    pictures = [_enlarge(_rgb(picture), scale) for picture in pictures]
    width = max(96, *(p.width for p in pictures))
    height = max(p.height for p in pictures)
    font = ImageFont.load_default(size=min(max(width // 16, 12), 40))
    texts = [_wrap(caption, font, width) for caption in captions]
    gap = max(12, width // 16)
    line = sum(font.getmetrics()) + 4
    rows = [range(i, min(i + columns, len(pictures))) for i in range(0, len(pictures), columns)]
    depths = [height + line * max(1 + texts[i].count("\n") for i in row) + 2 * gap for row in rows]
    sheet = Image.new("RGB", (gap + len(rows[0]) * (width + gap), gap + sum(depths)), "white")
    draw = ImageDraw.Draw(sheet)
    for r, row in enumerate(rows):
        for column, i in enumerate(row):
            picture = pictures[i]
            x = gap + column * (width + gap)
            y = gap + sum(depths[:r])
            left = x + (width - picture.width) // 2
            top = y + (height - picture.height) // 2
            sheet.paste(picture, (left, top))
            frame = (left - 1, top - 1, left + picture.width, top + picture.height)
            draw.rectangle(frame, outline=(208, 208, 208))
            below = (x + width / 2, y + height + gap / 2)
            draw.multiline_text(below, texts[i], (32, 32, 32), font, anchor="ma", align="center")
    return sheet


def _rgb(picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
        raise ValueError(
            f"contact sheet: {picture.dtype} {picture.shape}, a picture is uint8 [height, width, 3]"
        )
    return Image.fromarray(picture)


def _enlarge(image, scale):
    size = tuple(max(1, round(side * scale)) for side in image.size)
    tiny = scale >= 1 and max(image.size) < _TINY
    return image.resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.LANCZOS)


def _wrap(text, font, width):
    """`text` in lines of about at most `width` pixels, judged by its mean character."""
    text = " ".join(text.split())
    characters = int(0.95 * width * len(text) / max(font.getlength(text), 1))
    return "\n".join(
        textwrap.wrap(text, max(characters, 4), max_lines=_CAPTION_LINES, placeholder=" …")
    )
