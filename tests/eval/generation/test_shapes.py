"""The whole road of the shapes: prompts, a tree of true scenes, results.jsonl, scores."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy import shapes as world
from janus_jax.eval import record, toy, trees
from janus_jax.eval.generation import geneval, shapes

COUNT = 4


@pytest.fixture(scope="module")
def items():
    return shapes.read(f"shapes:{COUNT}?seed=7", 2, "shapes")


def draw(items, folder, scene_of):
    """scene_of: (item, number of the picture) -> the scene that is drawn for it."""
    for item in items:
        for k, file in enumerate(item.files):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(world.draw(scene_of(item, k))).save(folder / file)
    for name, content in shapes.beside(items, folder).items():
        (folder / name).write_bytes(content)


def true_scene(item, k=0):
    return world.random_scene(np.random.default_rng(k), item.facts["prompt"])


def road(items, folder):
    """(what grade writes, its lines, scores)."""
    content = shapes.grade(folder, items)
    (folder / "results.jsonl").write_bytes(content)
    units = shapes.results(folder / "results.jsonl", items, "shapes")
    sums = {name: sum(unit.get(name, 0) for unit in units) for unit in units for name in unit}
    rows = [json.loads(line) for line in io.StringIO(content.decode())]
    return sums, rows, shapes.scores(sums, "shapes")


def test_true_scenes_score_one_in_every_task(items, tmp_path):
    draw(items, tmp_path, true_scene)
    assert trees.faults(shapes, tmp_path, items, world.SIDE) == []
    sums, rows, scores = road(items, tmp_path)
    assert scores == dict.fromkeys((*world.TASKS, "overall"), 1.0)
    assert len(rows) == 6 * COUNT * 2 and all(row["reason"] == "" for row in rows)
    assert sums["counting/pictures"] == COUNT * 2


def test_wrong_scenes_lower_the_score_of_their_task_and_seed_alone(items, tmp_path):
    def scene(item, k):
        wrong = item.category == "position" and k == 1
        return {} if wrong else true_scene(item)

    draw(items, tmp_path, scene)
    sums, rows, scores = road(items, tmp_path)
    assert scores["position"] == 0.5 and scores["overall"] == pytest.approx(5.5 / 6)
    assert shapes.scores(trees.of_picture(sums, 0), "shapes")["overall"] == 1.0
    assert shapes.scores(trees.of_picture(sums, 1), "shapes")["position"] == 0.0
    assert {row["reason"] for row in rows if not row["correct"]} == {"found nothing"}


def test_one_thing_too_many_and_a_blur_are_wrong_and_told(items, tmp_path):
    first = items[0]  # one object

    def scene(item, k):
        shown = true_scene(item)
        free = next(cell for cell in range(9) if cell not in shown)
        return shown | {free: ("red", "cross")} if item is first else shown

    draw(items, tmp_path, scene)
    blur = Image.new("RGB", (24, 24), (128, 128, 128))
    blur.save(tmp_path / items[1].files[0])
    _, rows, scores = road(items, tmp_path)
    assert scores["single_object"] == (COUNT * 2 - 3) / (COUNT * 2)
    told = {row["filename"]: row for row in rows}
    one = told[str(tmp_path / first.files[0])]
    assert "a red cross" in one["reason"]
    assert told[str(tmp_path / items[1].files[0])]["reason"] == "found something unclear"
    boxes = json.loads(one["details"])
    assert sum(len(of) for of in boxes.values()) == 2
    assert all(right - left == 8 for of in boxes.values() for left, _, right, _, _ in of)


def test_the_lines_are_geneval_s_own_and_read_back_as_geneval_s(items, tmp_path):
    lines = [item.facts["line"] for item in items]
    (tmp_path / "evaluation_metadata.jsonl").write_text("\n".join(lines))
    again = geneval.read(str(tmp_path / "evaluation_metadata.jsonl"), 2, "geneval")
    assert [(i.prompt, i.files, i.category) for i in again] == [
        (i.prompt, i.files, i.category) for i in items
    ]
    assert record.asked_hash(again) == record.asked_hash(items)
    by_task = {item.category: json.loads(item.facts["line"]) for item in items}
    counted = by_task["counting"]
    (included,) = counted["include"]
    assert counted["exclude"] == [included | {"count": included["count"] + 1}]
    assert world.NUMBERS[included["count"]] in counted["prompt"]
    target, placed = by_task["position"]["include"]
    relation, group = placed["position"]
    assert group == 0 and "position" not in target
    assert by_task["position"]["prompt"] == f"a {placed['class']} {relation} a {target['class']}"
    assert all("color" in thing for thing in by_task["color_attr"]["include"])
    assert not any("color" in thing for thing in by_task["two_object"]["include"])


def test_the_prompts_are_the_world_s_by_count_and_seed():
    items = shapes.read("shapes:3?seed=1000", 1, "shapes")
    assert [i.prompt for i in items] == [p.text for p in world.evaluation_prompts(3, 1000)]
    quick = shapes.read("shapes:", 1, "shapes")
    assert [i.prompt for i in quick] == [p.text for p in world.evaluation_prompts(50, 1000)]
    assert quick[7].files == ("00007/samples/0000.png",)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("shapes", "shapes: no path of the world shapes; the form is shapes:50?seed=1000"),
        ("circles:3", "no path of the world shapes"),
        ("shapes:x", "count='x': give a whole number"),
        ("shapes:3?sed=1", "'sed' is unknown; did you mean 'seed'?"),
        ("shapes:3?seed=-1", "seed='-1': give a whole number"),
        ("shapes:0", "holds no prompt"),
    ],
)
def test_paths_that_name_no_prompts_are_refused(path, told):
    with pytest.raises(UsageError) as error:
        shapes.read(path, 1, "shapes")
    assert told in str(error.value)


def test_pictures_of_another_size_are_not_graded(items, tmp_path):
    draw(items, tmp_path, true_scene)
    Image.new("RGB", (48, 48)).save(tmp_path / items[2].files[1])
    (tmp_path / items[3].files[0]).unlink()
    with pytest.raises(UsageError) as error:
        shapes.grade(tmp_path, items)
    assert f"{items[2].files[1]}: is 48x48, not 24x24" in str(error.value)
    assert f"{items[3].files[0]}: cannot be read" in str(error.value)


def test_chance_is_the_world_s_of_each_task(monkeypatch):
    asked = []
    monkeypatch.setattr(
        world, "drawing_chance", lambda task, seed: asked.append((task, seed)) or 0.25
    )
    items = shapes.read("shapes:2?seed=9", 1, "shapes")
    assert shapes.chance(items) == dict.fromkeys((*world.TASKS, "overall"), 0.25)
    assert asked == [(task, 9) for task in world.TASKS]


def test_the_tokenizer_keeps_the_share_of_pictures_that_still_read_the_same(items, monkeypatch):
    def half_lost(model, true):
        return np.where(np.arange(len(true))[:, None, None, None] % 2, true / 127.5 - 1, 0)

    monkeypatch.setattr(toy, "through_tokenizer", half_lost)
    assert shapes.tokenizer(None, items, count=8) == 0.5


def test_a_tree_of_a_toy_is_verified_like_any_other(items, tmp_path):
    draw(items, tmp_path, true_scene)
    (tmp_path / items[0].files[0]).unlink()
    assert trees.faults(shapes, tmp_path, items, world.SIDE) == [
        f"{items[0].files[0]}: missing; go on drawing into this folder"
    ]
