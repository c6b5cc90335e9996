"""`generate` at work: slices of pictures, written as they come, beside what is there."""

import types

import pytest
from PIL import Image
from support import tiny

from janus_jax.sample import drawing, files


class Model:
    """Draws plain pictures, noting what it is asked; `stop` is raised at this call."""

    def __init__(self, stop_at=None):
        self.asked = []
        self.stop_at = stop_at

    def generate(self, model, processor, prompts, *, images_per_prompt, first, progress, **_):
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append((len(prompts), first, images_per_prompt))
        progress(1, 1)
        return [Image.new("RGB", (8, 8), (first, 0, 0))] * (len(prompts) * images_per_prompt)


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws prompts as the command does; the slices that the model was asked for."""
    weights = tmp_path / "weights"
    weights.write_bytes(b"1")
    source = types.SimpleNamespace(paths=[weights], processor=tiny.processor)

    def run(*prompts, n=1, seed=0, stop_at=None, cfg_scale=None):
        f = types.SimpleNamespace(
            out=str(tmp_path / "out"), n=n, seed=seed, cfg_scale=cfg_scale, temperature=None,
            model="m", dtype=None, steps=0, size="",
        )  # fmt: skip
        model = Model(stop_at)
        monkeypatch.setattr(drawing, "generate", model.generate)
        drawing.Job(f, source, list(prompts)).draw(None, None)
        return model.asked

    return run


@pytest.fixture
def names(tmp_path):
    return lambda: sorted(p.name for p in (tmp_path / "out").glob("*") if "sheet" not in p.name)


def test_many_pictures_of_one_prompt_are_drawn_in_slices(draw, names):
    asked = draw("a cat", n=37)
    assert asked == [(1, 0, 16), (1, 16, 16), (1, 32, 5)]
    assert names() == sorted(f"a-cat-{k}.png" for k in range(37))
    assert draw("a", "b", "c", "d", "e", n=5) == [(3, 0, 5), (2, 0, 5)]


def test_ctrl_c_leaves_what_is_drawn_and_the_same_command_goes_on(draw, names, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        draw("a cat", n=37, stop_at=2)
    assert len(names()) == 32 and (tmp_path / "out" / "sheet.png").is_file()
    assert "32 of 37 pictures are there" in capsys.readouterr().err
    assert draw("a cat", n=37) == [(1, 32, 5)]
    assert len(names()) == 37
    assert draw("a cat", n=37) == []


def test_pictures_of_a_slice_that_was_broken_off_are_counted(draw, names, tmp_path, capsys):
    draw("a cat", n=20)
    (tmp_path / "out" / "a-cat-3.png").unlink()
    capsys.readouterr()
    assert draw("a cat", n=20) == [(1, 0, 16)]
    assert "19 of 20 pictures are there" in capsys.readouterr().out and len(names()) == 20
    (tmp_path / "out" / "a-cat-3.png").unlink()
    with pytest.raises(KeyboardInterrupt):
        draw("a cat", n=20, stop_at=0)
    assert "19 of 20 pictures are there" in capsys.readouterr().err


def test_prompts_that_begin_alike_are_looked_up_once_each(draw, names, tmp_path, monkeypatch):
    read = []
    facts_of = files.facts_of
    monkeypatch.setattr(files, "facts_of", lambda path: read.append(path) or facts_of(path))
    prompts = [f"{'the same words ' * 5} {i}" for i in range(40)]
    draw(*prompts)
    assert len(read) <= 40 and len(names()) == 40
    read.clear()
    assert draw(*prompts) == [] and len(read) == 40


def test_another_seed_guidance_or_weights_replaces_nothing(draw, names, tmp_path):
    def newest():
        return max((tmp_path / "out").glob("a-cat*"), key=lambda p: p.stat().st_mtime_ns).name

    for how, name in (
        ({}, "a-cat-0.png"),
        ({"seed": 5}, "a-cat-seed5-0.png"),
        ({"cfg_scale": 2.0}, "a-cat-2-0.png"),
    ):
        draw("a cat", **how)
        assert newest() == name
    (tmp_path / "weights").write_bytes(b"22")  # trained on
    draw("a cat")
    assert newest() == "a-cat-3-0.png" and len(names()) == 4
    draw("A cat!", "a cat")  # two prompts of one name; the other is there
    assert newest() == "a-cat-4-0.png" and len(names()) == 5


def test_a_foreign_file_of_that_name_is_left_alone(draw, names, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a-cat-0.png").write_bytes(b"mine")
    draw("a cat")
    assert (tmp_path / "out" / "a-cat-0.png").read_bytes() == b"mine"
    assert names() == ["a-cat-0.png", "a-cat-2-0.png"]


def test_a_prompt_that_cannot_be_drawn_is_told_before_the_first_is(draw, tmp_path):
    with pytest.raises(ValueError, match=r"prompts\[1\]"):
        draw("a cat", "a\udcff")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prompt", ["猫" * 300, "𝒜" * 300, "a/b\\c:d*?", "...", "Å" * 500])
def test_every_prompt_makes_a_name_that_file_systems_take(draw, names, prompt):
    draw(prompt)
    assert len(names()) == 1 and len(names()[0].encode()) < 140
