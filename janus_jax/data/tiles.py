"""A picture to understand as several: tiles at a higher resolution, and an overview (paper section
3.5, dynamic high resolution).

How many tiles lie side by side and one below the other goes by the picture's size, by a named rule:

    internvl  the grid whose aspect is nearest to the picture's; of grids of one aspect a larger one
              where the picture has more than half of its pixels. The picture is stretched over the
              grid. (InternVL 1.5, arXiv 2404.16821, section 3.2, and its `dynamic_preprocess`.)
    llava_hd  the grid in which most of the picture's pixels are kept, and then the fewest are margin.
              The picture keeps its aspect, with margins of the background. (LLaVA-NeXT's
              `select_best_resolution`, over the grids of LLaVA-1.5-HD, arXiv 2310.03744.)

Order: tiles row by row. The overview, the whole picture put into one tile by the same rule, comes
first with `llava_hd` and last with `internvl`, as theirs do. A picture whose grid is one tile is that
tile alone. Each tile, the overview too, is an entry of the batch's understanding_images, and its
slots follow those of the one before.

Letters: S side of a tile, K tiles of a picture, the overview too.
"""

import contextlib

import numpy as np
from PIL import ExifTags, Image

from janus_jax.data.holdout import Part
from janus_jax.data.image_files import header, read_image
from janus_jax.data.image_pixels import ImageError, as_rgb
from janus_jax.data.images import LEAST_SIDE, understanding_image
from janus_jax.data.resize import bicubic


def grids(most: int) -> list[tuple[int, int]]:
    """(columns, rows) of at most so many tiles, small grids first."""
    counts = range(1, most + 1)
    found = [(c, r) for c in counts for r in counts if c * r <= most]
    return sorted(found, key=lambda grid: grid[0] * grid[1])


def nearest_aspect(width: int, height: int, side: int, most: int) -> tuple[int, int]:
    """The grid of `internvl`."""
    best = None
    least = float("inf")
    for columns, rows in grids(most):
        gap = abs(width / height - columns / rows)
        large = width * height > 0.5 * side * side * columns * rows
        if gap < least or (gap == least and large):
            best = columns, rows
            least = gap
    return best


def best_kept(width: int, height: int, side: int, most: int) -> tuple[int, int]:
    """The grid of `llava_hd`."""

    def score(grid):
        scale = min(grid[0] * side / width, grid[1] * side / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - grid[0] * grid[1] * side * side

    return max(grids(most), key=score)  # the first of equals


RULES = {"internvl": nearest_aspect, "llava_hd": best_kept}


def grid_of(size: tuple[int, int], tower) -> tuple[int, int]:
    """(columns, rows) of the tiles of a picture.

    size: its width and height in pixels, upright.
    tower: the UnderstandingEncoderConfig.
    """
    return RULES[tower.tiling](*size, tower.image_size, tower.tiles)


def count_tiles(size: tuple[int, int], tower) -> int:
    """K of a picture of this size, from 1 to `tower.pieces`."""
    columns, rows = grid_of(size, tower)
    return columns * rows + (columns * rows > 1)


def cut(image, tower, background=127, fast: bool = False) -> np.ndarray:
    """A picture (PIL, or uint8 [H, W, 3]) -> its tiles, uint8 [K, S, S, 3].

    tower: the UnderstandingEncoderConfig.
    background: the colour of margins. fast: see `resize.bicubic`. Raises ImageError.
    """
    image = as_rgb(image)
    side = tower.image_size
    columns, rows = grid_of(image.size, tower)
    stretched = tower.tiling == "internvl"

    def placed(columns: int, rows: int) -> np.ndarray:
        if stretched:
            size = columns * side, rows * side
            return np.asarray(bicubic(image, size, (0, 0, *image.size), fast))
        return within(image, side, columns, rows, background, fast)

    overview = placed(1, 1)[None]
    if columns * rows == 1:
        return overview
    whole = placed(columns, rows).reshape(rows, side, columns, side, 3)
    tiles = whole.swapaxes(1, 2).reshape(-1, side, side, 3)
    return np.concatenate([tiles, overview] if stretched else [overview, tiles])


def within(image, side: int, columns: int, rows: int, background, fast: bool) -> np.ndarray:
    """A picture in the middle of a grid of tiles, uint8 [rows * side, columns * side, 3]; in a single
    one exactly as `understanding_image` has it."""
    if columns * rows == 1:
        return understanding_image(image, side, background, fast)
    canvas = np.full((rows * side, columns * side, 3), background, np.uint8)
    over = min(
        (columns * side, image.width), (rows * side, image.height), key=lambda x: x[0] / x[1]
    )
    width, height = (max(x * over[0] // over[1], min(LEAST_SIDE, side)) for x in image.size)
    top = (rows * side - height) // 2
    left = (columns * side - width) // 2
    resized = bicubic(image, (width, height), (0, 0, *image.size), fast)
    canvas[top : top + height, left : left + width] = np.asarray(resized)
    return canvas


def size_of(source) -> tuple[int, int]:
    """(width, height) of a picture, upright, from its header alone where it is a file.

    source: as `read_image` takes it, or a file's bytes. Raises ImageError.
    """
    if isinstance(source, np.ndarray):
        return read_image(source).size
    if isinstance(source, Image.Image):
        return upright_size(source)
    if hasattr(source, "read"):
        source.seek(0)
        data = source.read()
        source.seek(0)
        return size_of(data)
    return header(source, upright_size)[0]


def upright_size(image) -> tuple[int, int]:
    """(width, height) of an opened `PIL.Image` once it is upright, without its pixels."""
    told = image.format not in (None, "TIFF")  # Pillow gives a TIFF's size upright
    if not told or (image.format == "PNG" and "exif" not in image.info):  # it would be decoded
        return image.size
    mark = 1
    with contextlib.suppress(Exception):  # the EXIF block is damaged, as `as_rgb` takes it
        mark = image.getexif().get(ExifTags.Base.Orientation, 1)
    return image.size[::-1] if mark in range(5, 9) else image.size


class Tiles:
    """How many tiles each picture of a record has, in order; and their pixels."""

    def __init__(self, source, index: int, pictures: int, tower):
        """pictures: how many the record has. Their sizes are read, of files from the headers. Raises
        RecordError, ImageError for one that cannot be read."""
        self.source = source
        self.index = index
        self.tower = tower
        self.counts = [count_tiles(picture_size(source, index, k), tower) for k in range(pictures)]

    @classmethod
    def of(cls, source, index: int, record: dict, tower) -> "Tiles":
        """Of a record of any kind."""
        if "captions" in record:
            return cls(source, index, 1, tower)
        if "document" in record:
            return cls(source, index, record["document"].count(None), tower)
        said = record.get("messages", ())
        return cls(source, index, sum(turn.count_pictures for turn in said), tower)

    def __iter__(self):
        return iter(self.counts)

    def pixels(self, example: dict) -> dict[str, list[np.ndarray]]:
        """As `example_encoder.ExampleEncoder.pixels`: what fills an example's slots. Raises ImageError,
        RecordError."""
        shown = np.unique(example["understanding_images"])  # whole, and in order
        return {"understanding_images": [x for k in shown for x in self.cut(int(k), fast=True)]}

    def cut(self, k: int, background=127, fast: bool = False) -> np.ndarray:
        """The tiles of picture `k`, as the function `cut` gives them."""
        tiles = cut(self.source.image(self.index, k), self.tower, background, fast)
        require_count(len(tiles), self.counts[k], self.source.where(self.index))
        return tiles


def record_of(source, index: int, model) -> dict:
    """A record of a source, with its `Tiles` as "tiles" where it shows pictures to understand; those
    to draw are not cut. Raises RecordError, ImageError.

    source: a sources.Source.
    model: the JanusConfig.
    """
    record = source[index]
    said = record.get("messages", ())
    draws = any(turn.role == "assistant" and turn.count_pictures for turn in said)
    tower = model.understanding_encoder
    tiles = () if "captions" in record or draws else Tiles.of(source, index, record, tower)
    return record | {"tiles": tiles} if list(tiles) else record


def picture_size(source, index: int, k: int) -> tuple[int, int]:
    """Of picture `k` of a record."""
    if isinstance(source, Part):
        return picture_size(source.source, source.index(index), k)
    if hasattr(source, "picture_file"):
        file = source.picture_file(index, k)
        # Damaged headers make Pillow raise nearly anything; opening the picture says what is wrong.
        with contextlib.suppress(Exception):
            return size_of(file)
    return size_of(source.image(index, k))


def require_count(found: int, told: int, name: str):
    """Raises ImageError where a picture is not of the size that its header says."""
    if found != told:
        raise ImageError(
            f"{name}: {found} tiles of its pixels, {told} by its header: its size or EXIF orientation "
            f"there is wrong; save it again, as with `magick FILE -auto-orient new.png`"
        )
