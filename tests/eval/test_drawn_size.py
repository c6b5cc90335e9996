"""A benchmark drawn in another size than the model's square."""

import dataclasses
import functools
import time

import pytest
from PIL import Image
from support import tiny
from support.sampling import make

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import result, trees
from janus_jax.eval.drawn_size import require_size, size_of_pictures
from janus_jax.sample.generate import generate

VQ = dataclasses.replace(tiny.CONFIG.generation_encoder, sizes=("24x16",))
MODEL = {"name": "tiny", "native_size": 16}


def task(size: str = "", name: str = "shapes") -> result.Task:
    return result.Task("generation", name, "shapes:1", cfg_scale=1.0, temperature=1.0, size=size)


def test_a_benchmark_is_drawn_scored_and_verified_in_a_size(tmp_path, one_device):
    model, processor = make(tiny.small(generation_encoder=VQ)), tiny.processor()
    wide = task("24x16")
    asked = wide.read()[:2]
    settings = wide.settings(asked, MODEL, processor)
    assert settings["size"] == "24x16" and size_of_pictures(settings) == (24, 16)
    draw = functools.partial(generate, model, processor)
    result.fill(wide, asked, tmp_path, settings, lambda: (draw, None, processor), (0, 1))
    files = [tmp_path / result.TREE / file for item in asked for file in item.files]
    assert {Image.open(file).size for file in files} == {(24, 16)}
    report = result.finish(wide, asked, tmp_path, settings, time.time(), print)
    assert report["counts"]["made"] == 2 and "overall" in report["scores"]
    Image.new("RGB", (24, 24)).save(files[0])
    (told,) = trees.verify(tmp_path / result.TREE, asked, (24, 16))
    assert "is 24x24, not 24x16; delete it and go on drawing" in told


def test_without_a_size_settings_are_what_they_were():
    square = task()
    settings = square.settings(square.read()[:1], MODEL, tiny.processor())
    assert "size" not in settings and size_of_pictures(settings) == 16


@pytest.mark.parametrize(
    "size, name, told",
    [
        ("24x17", "shapes", "--size is 24x17: this model draws 16x16, 24x16"),
        ("wide", "geneval", "--size is wide: this model draws 16x16, 24x16"),
        ("24x16", "dpg", "--size=24x16: the scorer of dpg compares or cuts squares; leave it out"),
        ("24x16", "mjhq30k", "--size=24x16: the scorer of mjhq30k compares or cuts squares"),
    ],
)
def test_sizes_that_cannot_be_drawn_or_scored_are_refused(size, name, told):
    with pytest.raises(UsageError) as refused:
        require_size(task(size, name), VQ)
    assert str(refused.value).startswith(told)


@pytest.mark.parametrize("name", ["geneval", "geneval2", "shapes", "t2i_compbench", "wise"])
def test_scorers_that_look_at_each_picture_alone_take_any_size(name):
    require_size(task("24x16", name), VQ)
