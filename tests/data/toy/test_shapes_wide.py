"""Shapes on long canvases: what is drawn is what is asked, and a picture of the quick start's size
does not show it."""

import collections

import numpy as np
import pytest
from PIL import Image
from support.paths import CONFIGS

from janus_jax.common.exit_codes import UsageError
from janus_jax.config import read
from janus_jax.config.schema import Dataset
from janus_jax.data import catalog, tiles
from janus_jax.data.images import understanding_image
from janus_jax.data.toy import shapes, shapes_wide
from janus_jax.eval.understanding import shapes_wide as benchmark
from janus_jax.training import check_config

CONFIG = CONFIGS / "tiles.py"


@pytest.fixture(scope="module")
def source():
    return catalog.open_dataset(Dataset("understanding", "shapes:wide"), 24, 0)


def test_each_thing_is_asked_about_and_drawn_where_its_tile_is(source):
    experiment, _ = read.read(str(CONFIG))
    tower = experiment.model.understanding_encoder
    sizes = collections.Counter()
    for i in range(40):
        (columns, rows), scene = shapes_wide.wide_scene(source.rng(i))
        picture = source.image(i)
        assert picture.shape == (8 * rows, 8 * columns, 3)
        sizes[columns, rows] += 1
        asked = [turn.texts[-1] for turn in source[i]["messages"]]
        told = [x for c, s in scene.values() for x in (f"what shape is {c}?", s)]
        assert asked == told and len({c for c, _ in scene.values()}) == len(scene) == 3
        cut = tiles.cut(picture, tower)
        assert len(cut) == columns * rows // 9 + 1
        things = [thing for tile in cut[:-1] for thing in shapes.read(tile).values()]
        assert sorted(things) == sorted(scene.values())
    assert set(sizes) == set(shapes_wide.CANVASES)


def test_in_one_small_picture_a_circle_and_a_square_are_nearly_the_same():
    small = [
        understanding_image(shapes_wide.draw_wide((12, 6), {0: ("red", shape)}), 24)
        for shape in ("circle", "square")
    ]
    large = [shapes_wide.draw_wide((12, 6), {0: ("red", s)}) for s in ("circle", "square")]
    apart = [np.abs(a.astype(int) - b).sum() for a, b in (small, large)]
    assert 0 < apart[0] < apart[1] / 16


def test_the_benchmark_asks_each_shape_as_often():
    records = benchmark.read("shapes_wide:3", "", print)
    assert collections.Counter(r.answer for r in records) == dict.fromkeys(shapes.SHAPES, 3)
    assert benchmark.chance(records) == {"shape": 0.25}
    marks = [benchmark.mark(r, "circle", "") for r in records]
    sums = {
        n: sum(u[n] for u in benchmark.tally(records, marks, ""))
        for n in ("shape/right", "shape/questions")
    }
    assert benchmark.scores(sums, "") == benchmark.chance(records)
    assert all(isinstance(r.pictures[0], Image.Image) for r in records)
    with pytest.raises(UsageError, match="no question"):
        benchmark.read("shapes_wide:0", "", print)


def test_both_targets_of_the_config_are_possible_and_differ_in_the_encoder_alone():
    (tiled, _), (whole, _) = (read.read(f"{CONFIG}{target}") for target in ("", ":whole"))
    for experiment in (tiled, whole):
        check_config.check(experiment, 1)
    towers = [e.model.understanding_encoder for e in (tiled, whole)]
    assert towers[0].pieces * towers[0].tokens == towers[1].tokens == 9
