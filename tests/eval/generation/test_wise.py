"""WISE: both protocols, from prompts to the weighted score."""

import json
import os

import pytest
from support import trees as made

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval.generation import wise

STEMS = ("cultural_common_sense", "natural_science", "spatio-temporal_reasoning")


def judged(folder, items, marks) -> None:
    """The judge's three files. marks: k -> what it says of the k-th prompt."""
    ids = [item.facts["id"] for item in items]
    ranges = {STEMS[0]: range(1, 401), STEMS[2]: range(401, 641), STEMS[1]: range(641, 1001)}
    for stem, part in ranges.items():
        rows = [
            {"prompt_id": i, "Subcategory": "Life", **marks(k)}
            for k, i in enumerate(ids)
            if i in part
        ]
        made.lines(folder / f"{stem}_scores_results.jsonl", rows)


def total(units):
    return {name: sum(unit.get(name, 0) for unit in units) for unit in units for name in unit}


@pytest.mark.parametrize("protocol", wise.PROTOCOLS)
def test_the_judge_finds_a_picture_of_every_id(tmp_path, protocol):
    items = wise.read(str(made.write("wise", tmp_path, protocol)), 1, protocol)
    made.draw(wise, items, tmp_path / "tree")
    ids = made.WISE_IDS if protocol == "verified" else made.LEGACY_IDS
    for item, i, category in zip(items, ids, made.WISE_CATEGORIES, strict=True):
        assert os.path.exists(os.path.join(tmp_path, "tree", f"{i}.png"))  # as vllm_eval.py asks
        assert item.category == category and item.prompt == f"What is seen at {i}/{i}_of\nthe clock"


def test_verified_marks_are_weighted_by_category(tmp_path):
    items = wise.read(str(made.write("wise", tmp_path)), 1, "verified")
    judged(tmp_path, items, lambda k: {"score": float(k % 2)})
    units = wise.results(tmp_path, items, "verified")
    got = wise.scores(total(units), "verified")
    expected = {
        "culture": 1 / 3, "time": 0.5, "space": 0.5, "biology": 0.5, "physics": 1.0,
        "chemistry": 0.5,
    }  # fmt: skip
    overall = 0.4 / 3 + 0.12 * (0.5 * 4 + 1)
    assert got == pytest.approx(expected | {"overall": overall})


def test_legacy_marks_are_wiscores_of_three(tmp_path):
    items = wise.read(str(made.write("wise", tmp_path, "legacy")), 1, "legacy")
    mark = {"consistency": 2, "realism": 1, "aesthetic_quality": 0}
    judged(tmp_path, items, lambda k: mark if k != 3 else dict.fromkeys(mark, 2))
    got = wise.scores(total(wise.results(tmp_path, items, "legacy")), "legacy")
    one = (0.7 * 2 + 0.2 * 1) / 2
    time = (one + 1) / 2
    assert got["culture"] == pytest.approx(one) and got["time"] == pytest.approx(time)
    assert got["overall"] == pytest.approx(one * (1 - 0.167) + time * 0.167)


def test_a_resample_without_a_category_has_no_overall_score():
    assert wise.scores({"culture/sum": 1.0, "culture/of": 2.0}, "verified") == {"culture": 0.5}


def test_marks_that_are_missing_odd_or_of_the_other_protocol_are_refused(tmp_path):
    items = wise.read(str(made.write("wise", tmp_path)), 1, "verified")
    judged(tmp_path, items[1:], lambda k: {"score": 1.0})
    with pytest.raises(UsageError, match="1: missing"):
        wise.results(tmp_path, items, "verified")
    judged(tmp_path, items, lambda k: {"score": 0.5 if k == 4 else 1.0})
    with pytest.raises(UsageError, match=r"score is 0\.5, not 0 or 1"):
        wise.results(tmp_path, items, "verified")
    with pytest.raises(UsageError, match="no 'consistency'"):
        wise.results(tmp_path, items, "legacy")
    with pytest.raises(UsageError, match=r"no \*_results.jsonl there"):
        wise.results(tmp_path / "data_verified", items, "verified")


def test_prompts_of_the_other_protocol_or_out_of_range_are_refused(tmp_path):
    folder = made.write("wise", tmp_path)
    with pytest.raises(UsageError, match=r"no cultural_common_sense.json, spatio-temporal"):
        wise.read(str(folder), 1, "legacy")
    science = folder / "natural_science_verified.json"
    with pytest.raises(UsageError) as error:
        wise.read(str(science), 1, "legacy")
    told = str(error.value)
    assert "prompt_id 641 is space in the protocol legacy, the file says Biology" in told
    rows = json.loads(science.read_text())
    rows[0]["prompt_id"] = 1001
    rows[1]["prompt_id"] = rows[2]["prompt_id"]
    science.write_text(json.dumps(rows))
    with pytest.raises(UsageError) as error:
        wise.read(str(folder), 1, "verified")
    told = str(error.value)
    assert "entry 0: prompt_id 1001 is not in 1 to 1000" in told
    assert "entry 2: '761' is also in natural_science_verified.json, entry 1" in told


def test_marks_of_older_pictures_are_told(tmp_path):
    _, items, folder = made.drawn("wise", tmp_path)
    (folder / "Results-qwen35").mkdir()
    judged(folder / "Results-qwen35", items, lambda k: {"score": 1.0})
    assert wise.traps(folder, items) == []
    later = (folder / "1.png").stat().st_mtime + 60
    os.utime(folder / "1.png", (later, later))
    told = wise.traps(folder, items)
    assert len(told) == 3
    assert told[0].startswith("Results-qwen35/cultural_common_sense_scores_results.jsonl: marks of")


@pytest.mark.parametrize("protocol", wise.PROTOCOLS)
def test_the_command_names_the_tree_by_its_whole_path(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    told = wise.command("tree", 384, protocol)
    assert f"{tmp_path}/tree" in told and "eb51174" in told
