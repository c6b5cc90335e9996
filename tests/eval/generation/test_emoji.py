"""Drawings held against a data set's own pictures."""

import itertools
import json
import types

import numpy as np
import pytest
from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.sources import RecordError
from janus_jax.eval import toy, trees
from janus_jax.eval.generation import emoji

SIDE = 24


class Pictures:
    """Ten pictures of noise; the third record is unreadable."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        if i == 3:
            raise RecordError("blank caption", "record 3: blank")
        return {"captions": [f"picture {i}", "another way to say it"]}

    def image(self, i, k=0):
        return np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@pytest.fixture
def items():
    return emoji.of_source(Pictures(), np.random.default_rng(1000), 8, 2)


def draw(items, folder, of=lambda n, k: n):
    """of: (prompt, picture of it) -> the prompt whose true picture is drawn."""
    rng = np.random.default_rng(5)
    for n, item in enumerate(items):
        for k, file in enumerate(item.files):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            true = emoji.true_picture(items[of(n, k)], SIDE).astype(int)
            noisy = np.clip(true + rng.integers(-20, 21, true.shape), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(folder / file)


def scores(items, folder):
    (folder / "results.jsonl").write_bytes(emoji.grade(folder, items))
    units = emoji.results(folder / "results.jsonl", items, "emoji")
    sums = {name: sum(unit[name] for unit in units) for name in units[0]}
    return emoji.scores(sums, "emoji")


def test_a_drawing_counts_where_its_own_picture_is_the_nearest(items, tmp_path):
    draw(items, tmp_path)
    assert trees.faults(emoji, tmp_path, items, SIDE) == []
    assert scores(items, tmp_path) == {"nearest": 1.0}
    draw(items, tmp_path, lambda n, k: (n + 1) % 8 if n < 2 and k == 1 else n)
    assert scores(items, tmp_path) == {"nearest": 14 / 16}
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    wrong = [(row["prompt"], row["nearest"]) for row in rows if not row["correct"]]
    prompts = [item.prompt for item in items]
    assert wrong == list(itertools.pairwise(prompts[:3]))
    assert emoji.chance(items) == {"nearest": 1 / 8}


def test_records_are_chosen_by_the_generator_without_unreadable_ones(items):
    order = [i for i in np.random.default_rng(1000).permutation(10) if i != 3][:8]
    assert [item.prompt for item in items] == [f"picture {i}" for i in order]
    assert [item.files[0] for item in items] == [f"{n:05}/0000.png" for n in range(8)]


def test_pictures_of_two_sizes_are_not_graded(items, tmp_path):
    draw(items, tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / items[2].files[0])
    with pytest.raises(UsageError, match=r"00002/0000.png: is 4x4, not 24x24"):
        emoji.grade(tmp_path, items)


def test_the_emoji_of_a_config_are_read_by_their_number(monkeypatch):
    pytest.importorskip("emoji")
    items = emoji.read("emoji:9?count=4&seed=2&side=16", 1, "emoji")
    assert len({item.prompt for item in items}) == 4
    assert emoji.true_picture(items[0], 16).shape == (16, 16, 3)
    with pytest.raises(UsageError, match="emoji:0: count: 0 emoji asked for"):
        emoji.read("emoji:0", 1, "emoji")
    with pytest.raises(UsageError, match="'steps' is unknown"):
        emoji.read("emoji:9?steps=3", 1, "emoji")


def test_the_tokenizer_s_difference_is_in_levels_of_a_pixel(items, monkeypatch):
    lighter = lambda model, true: np.clip(true / 127.5 - 1 + 0.1, -1, 1)
    monkeypatch.setattr(toy, "through_tokenizer", lighter)
    sizes = types.SimpleNamespace(image_size=SIDE)
    model = types.SimpleNamespace(config=types.SimpleNamespace(generation_encoder=sizes))
    true = [emoji.true_picture(item, SIDE).astype(float) for item in items]
    apart = np.mean([np.minimum(picture + 12.75, 255) - picture for picture in true])
    assert emoji.tokenizer(model, items) == pytest.approx(apart, abs=1)  # whole levels
