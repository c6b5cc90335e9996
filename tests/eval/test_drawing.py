"""A tree of pictures at any scale: shares, kills and full disks."""

import errno
import functools

import pytest

from janus_jax.common import files
from janus_jax.eval import drawing
from janus_jax.eval.benchmark import Item
from janus_jax.sample.generate import generate

PICTURES = 2
WORDS = ["a red circle", "two squares", "a cross", "a green cross and a blue triangle above it"]
ITEMS = [
    Item(f"{WORDS[i % 4]}", tuple(f"{i:02}/{k}.png" for k in range(PICTURES))) for i in range(12)
]


@pytest.fixture
def draw(model, processor, monkeypatch):
    monkeypatch.setattr(drawing, "AT_ONCE", 8)  # three batches of four prompts

    def draw(folder, items=ITEMS, share=(0, 1)) -> int:
        return drawing.draw_tree(
            functools.partial(generate, model, processor, cfg_scale=2.0, temperature=1.0), processor,
            items, folder, list, pictures=PICTURES, seed=3, share=share,
        )  # fmt: skip

    return draw


def tree(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.*"))}


@pytest.fixture
def whole(draw, tmp_path):
    assert draw(tmp_path / "whole") == len(ITEMS) * PICTURES
    return tree(tmp_path / "whole")


def test_the_tree_holds_what_the_items_name_and_no_picture_twice(whole):
    assert sorted(whole) == sorted(file for item in ITEMS for file in item.files)
    assert len(set(whole.values())) == len(whole)  # three lines of each text among them


def test_two_processes_draw_the_tree_of_one(draw, whole, tmp_path):
    shares = [draw(tmp_path / "shared", share=(index, 2)) for index in range(2)]
    assert shares == [16, 8]
    assert tree(tmp_path / "shared") == whole


def test_a_tree_that_was_broken_off_is_finished_to_the_same_bytes(
    draw, whole, tmp_path, monkeypatch
):
    write = files.write
    left = [11]  # files until the kill, within the second batch

    def dies(path, content):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(files, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "cut")
    assert len(tree(tmp_path / "cut")) == 11
    monkeypatch.setattr(files, "write", write)
    drawn = []
    once = drawing.draw_batches
    monkeypatch.setattr(
        drawing,
        "draw_batches",
        lambda draw, todo, keep: (drawn.append(todo), once(draw, todo, keep)),
    )
    assert draw(tmp_path / "cut") == len(whole) - 11
    assert tree(tmp_path / "cut") == whole
    assert [batch.size for batch in drawn[0]] == [8, 8]  # of three: one is redone, one is new
    assert draw(tmp_path / "cut") == 0
    assert len(drawn) == 1


def test_prompts_that_cannot_be_drawn_are_all_named_before_any_is_drawn(draw, tmp_path):
    items = [*ITEMS, Item(" ", ("blank.png",)), Item("word " * 5000, ("long.png",))]
    with pytest.raises(ValueError, match=r"blank\.png[\s\S]*long\.png"):
        draw(tmp_path / "none", items)
    assert not (tmp_path / "none").exists()


def test_a_full_disk_ends_the_drawing_and_says_at_which_file(draw, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(OSError, match=r"No space left.*/0\.png"):
        draw(tmp_path / "full")
