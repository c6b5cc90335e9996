"""Pictures to understand as tiles: which grid, which pixels, and slots that are counted before a
picture is decoded. Oracles: transformers' InternVL (GotOcr2) and LLaVA-NeXT."""

import dataclasses
import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from support import tiny
from support.paths import CONFIGS
from transformers.image_processing_utils import select_best_resolution
from transformers.models.got_ocr2 import image_processing_pil_got_ocr2 as got_ocr2

from janus_jax.config import read
from janus_jax.config.schema import Dataset, Rows
from janus_jax.data import catalog, tiles
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.holdout import Part
from janus_jax.data.image_files import read_image
from janus_jax.data.image_pixels import ImageError
from janus_jax.data.images import understanding_image
from janus_jax.data.processor import Processor
from janus_jax.model import batch as bt
from janus_jax.model.config import UnderstandingEncoderConfig
from janus_jax.training import preflight_data

SIDE = 48
SIZES = np.random.default_rng(0).integers(20, 2000, (200, 2)).tolist()


def tower(most: int, rule: str = "internvl", side: int = SIDE) -> UnderstandingEncoderConfig:
    return UnderstandingEncoderConfig(image_size=side, tiles=most, tiling=rule)


def noise(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def published(width: int, height: int, side: int, most: int) -> tuple[int, int]:
    """InternVL's rule as its paper and model card tell it: the ratio of the smallest difference; of
    equal ones a later, larger grid takes over while the picture has more than half its pixels."""
    ratios = sorted(
        ((i, j) for i in range(1, most + 1) for j in range(1, most + 1) if i * j <= most),
        key=lambda ratio: ratio[0] * ratio[1],
    )
    gaps = [abs(width / height - i / j) for i, j in ratios]
    chosen = ratios[gaps.index(min(gaps))]
    for gap, (i, j) in zip(gaps, ratios):
        if gap == min(gaps) and 2 * width * height > side**2 * i * j:
            chosen = i, j
    return chosen


@pytest.mark.parametrize("most", [2, 6, 12])
def test_internvls_grid_is_the_published_one_and_transformers(most):
    sizes = [*SIZES, (96, 96), (480, 480), (100, 50), (1000, 500), (1, 3000), (3000, 1)]
    found = [tiles.grid_of(size, tower(most)) for size in sizes]
    assert found == [published(*size, SIDE, most) for size in sizes]
    theirs = lambda w, h: got_ocr2.get_optimal_tiled_canvas((h, w), (SIDE, SIDE), 1, most)
    assert found == [theirs(*size) for size in sizes]
    assert len(set(found)) > most  # of nearly all shapes, and none of one alone


@pytest.mark.parametrize("most", [2, 6, 12])
def test_llavas_grid_is_transformers(most):
    def theirs(width: int, height: int) -> tuple[int, int]:
        canvases = [(rows * SIDE, columns * SIDE) for columns, rows in tiles.grids(most)]
        best = select_best_resolution((height, width), canvases)
        return best[1] // SIDE, best[0] // SIDE

    small = np.random.default_rng(1).integers(5, 200, (100, 2)).tolist()
    sizes = [*SIZES[:100], *small]
    found = [tiles.grid_of(size, tower(most, "llava_hd")) for size in sizes]
    assert found == [theirs(*size) for size in sizes]
    assert len(set(found)) > most


@pytest.mark.parametrize("size", [(100, 50), (300, 301), (40, 200), (30, 30)])
def test_internvls_tiles_are_transformers_pixel_by_pixel(size):
    picture = noise(*size)
    theirs = got_ocr2.GotOcr2ImageProcessorPil().crop_image_to_patches(
        picture, 1, 6, True, got_ocr2.SizeDict(height=SIDE, width=SIDE), Image.Resampling.BICUBIC
    )
    np.testing.assert_array_equal(tiles.cut(picture, tower(6)), np.stack(theirs))


def test_llavas_tiles_are_the_picture_in_its_aspect_after_the_overview():
    picture = noise(100, 70)
    found = tiles.cut(picture, tower(4, "llava_hd"), background=(1, 2, 3))
    assert found.shape == (5, SIDE, SIDE, 3)  # 2 x 2, in which it has 96 x 67 pixels
    np.testing.assert_array_equal(found[0], understanding_image(picture, SIDE, (1, 2, 3)))
    whole = np.block([[[found[1]], [found[2]]], [[found[3]], [found[4]]]])
    resized = Image.fromarray(picture).resize((96, 67), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(whole[14:81], np.asarray(resized))
    assert (whole[:14] == (1, 2, 3)).all() and (whole[81:] == (1, 2, 3)).all()


def test_a_small_picture_of_llavas_is_what_it_is_without_tiles():
    picture = noise(40, 31)
    found = tiles.cut(picture, tower(9, "llava_hd"))
    np.testing.assert_array_equal(found, understanding_image(picture, SIDE)[None])


@pytest.mark.parametrize("rule", sorted(tiles.RULES))
def test_no_picture_has_more_pieces_than_the_encoder_says(rule):
    box = tower(5, rule)
    counts = {tiles.count_tiles(size, box) for size in SIZES}
    assert max(counts) == box.pieces == 6 and min(counts) >= 1 and 2 not in counts
    assert tower(1, rule).pieces == 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("turn", [1, 6])
def test_a_header_tells_the_size_that_a_picture_has_upright(tmp_path, format, turn):
    marks = Image.Exif()
    marks[0x112] = turn
    path = str(tmp_path / "picture")
    Image.fromarray(noise(90, 30)).save(path, format, **({"exif": marks} if turn > 1 else {}))
    upright = read_image(path)
    data = pathlib.Path(path).read_bytes()
    stream = io.BytesIO(data)
    assert tiles.size_of(path) == tiles.size_of(data) == tiles.size_of(stream) == upright.size
    assert stream.tell() == 0
    assert (
        tiles.size_of(Image.open(path)) == upright.size and tiles.size_of(upright) == upright.size
    )


# In rows: tiles of 16 pixels, whose 16 patches are read as 4 tokens.
MODEL = tiny.small(
    understanding_encoder=dataclasses.replace(
        tiny.CONFIG.understanding_encoder, tiles=4, pixel_shuffle=2
    )
)
N = MODEL.understanding_encoder.tokens
ROWS = Rows(count=1, length=160, understanding_images=10, generation_images=0)


def processor() -> Processor:
    base = tiny.processor()
    return Processor(base.tokenizer, base.template, N, base.generation_tokens)


@pytest.fixture
def source(tmp_path):
    """Records of two pictures each, of 1 tile and of 5, and the files' pixels."""
    pictures = [noise(20, 15), noise(64, 64), noise(70, 16)]
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    said = [{"from": "human", "value": "<image><image>same?"}, {"from": "gpt", "value": "no"}]
    records = [
        {"image": ["0.png", "1.png"], "conversations": said},
        {"image": ["2.png", "0.png"], "conversations": said},
    ]
    lines = "\n".join(map(json.dumps, records))
    (tmp_path / "records.jsonl").write_text(lines)
    line = Dataset("understanding", str(tmp_path / "records.jsonl"), images=str(tmp_path))
    return catalog.open_dataset(line, 16, 0), pictures


def encoder(rows: Rows = ROWS, model=MODEL) -> ExampleEncoder:
    return ExampleEncoder(processor(), model, rows, "answers")


def test_slots_are_counted_from_headers_and_filled_by_tiles_in_order(source, monkeypatch):
    opened, pictures = source
    encode = encoder()
    decode = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded too early"))
    record = encode.read(opened, 0)
    example = encode("understanding", record, np.random.default_rng(0))
    monkeypatch.setattr(Image.Image, "load", decode)
    assert list(record["tiles"]) == [1, 5]
    assert example["understanding_images"].tolist() == [0, 1, 1, 1, 1, 1]
    slots = example["role"] == bt.UNDERSTANDING_SLOT
    runs = np.flatnonzero(np.diff(slots, prepend=False, append=False)).reshape(-1, 2)
    assert np.diff(runs).ravel().tolist() == [N, 5 * N]
    around = example["tokens"][np.stack([runs[:, 0] - 1, runs[:, 1]], 1)]
    t = processor().tokenizer
    assert (around == (t.begin_of_image, t.end_of_image)).all()
    found = encode.pixels("understanding", opened, 0, record, example)["understanding_images"]
    want = [tiles.cut(p, MODEL.understanding_encoder, fast=True) for p in pictures[:2]]
    np.testing.assert_array_equal(np.stack(found), np.concatenate(want))


def test_rows_are_packed_by_tiles_and_hold_out_reads_the_same(source):
    opened, _ = source
    ratio = {"understanding": 1, "text": 0, "generation": 0}
    rows = dataclasses.replace(ROWS, understanding_images=11, length=200)
    batches = tiny.batches({"understanding": opened}, processor(), MODEL, rows, ratio)
    for batch, examples in (next(batches) for _ in range(3)):
        shown = int(batch["understanding_slots"].max())
        held = sorted(examples[:, bt.EXAMPLE_COLUMNS.index("record")].tolist())
        assert shown == N * sum((6, 6)[i] for i in held) and len(held) == 1  # 12 would not fit 11
        used = batch["understanding_images"][0].reshape(11, -1).any(1)
        assert used.tolist() == [True] * 6 + [False] * 5
    part = Part(opened, key=3, first=0, count=2)
    here = [list(encoder().read(part, i)["tiles"]) for i in range(2)]
    assert here == [list(encoder().read(opened, part.index(i))["tiles"]) for i in range(2)]


def test_a_row_that_cannot_hold_a_records_tiles_passes_it_over_with_the_remedy(source):
    opened, _ = source
    few = encoder(dataclasses.replace(ROWS, understanding_images=5))
    record = few.read(opened, 0)
    with pytest.raises(ValueError, match=r"6 pictures, tiles counted, a row takes 5; raise"):
        few("understanding", record, np.random.default_rng(0))
    short = encoder(dataclasses.replace(ROWS, length=25))
    with pytest.raises(ValueError, match=r"does not fit rows of 25.*raise"):
        short("understanding", record, np.random.default_rng(0))


def test_a_document_ends_before_the_picture_whose_tiles_do_not_fit(source):
    opened, _ = source
    record = {"document": ["a", None, "b", None, "c"]}
    record["tiles"] = tiles.Tiles.of(opened, 0, record, MODEL.understanding_encoder)
    whole, cut = (
        encoder(dataclasses.replace(ROWS, understanding_images=n))(
            "understanding", record, np.random.default_rng(0)
        )
        for n in (6, 5)
    )
    assert whole["understanding_images"].tolist() == [0, 1, 1, 1, 1, 1]
    assert cut["understanding_images"].tolist() == [0] and cut["example"][0] >= bt.TRUNCATED
    shown = (cut["role"] == bt.UNDERSTANDING_SLOT).sum()
    assert shown == N and len(cut["tokens"]) < len(whole["tokens"]) - 5 * N


def test_a_header_that_is_wrong_is_told_where_the_picture_is_opened(source):
    opened, _ = source
    record = encoder().read(opened, 0)
    record["tiles"].counts[1] = 3
    example = encoder()("understanding", record, np.random.default_rng(0))
    with pytest.raises(
        ImageError, match=r"records\.jsonl:1.*5 tiles of its pixels, 3 by its header"
    ):
        encoder().pixels("understanding", opened, 0, record, example)


def test_without_tiles_examples_and_pixels_are_as_before(source):
    opened, pictures = source
    base = encoder(model=tiny.CONFIG)
    base = dataclasses.replace(base, processor=tiny.processor())
    record = base.read(opened, 0)
    assert record.keys() == {"messages"}
    example = base("understanding", record, np.random.default_rng(0))
    assert example["understanding_images"].tolist() == [0, 1]
    found = base.pixels("understanding", opened, 0, record, example)
    assert found.keys() == {"understanding_images", "generation_images"}
    want = [understanding_image(p, 16, fast=True) for p in pictures[:2]]
    np.testing.assert_array_equal(np.stack(found["understanding_images"]), np.stack(want))


@pytest.mark.parametrize("target, size", [("", (960, 480)), (":whole", (120, 60))])
def test_large_jpegs_are_decoded_whole_where_they_are_cut(tmp_path, target, size):
    Image.fromarray(noise(960, 480)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jsonl").write_text('{"image": "a.jpg", "caption": "noise"}')
    path = {"data.datasets.canvases.path": str(tmp_path / "a.jsonl")}
    experiment, _ = read.read(f"{CONFIGS / 'tiles.py'}{target}", path)
    sources, _ = preflight_data.open_sources(experiment, [])
    assert sources["canvases"].image(0).size == size
