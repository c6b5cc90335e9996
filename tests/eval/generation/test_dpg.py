"""DPG-Bench: the grid as its scorer cuts it, and its two files read back."""

import collections
import csv
import os
import zlib

import numpy as np
import pytest
from PIL import Image
from support import trees as made

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import trees
from janus_jax.eval.generation import dpg


@pytest.fixture
def tree(tmp_path):
    return made.drawn("dpg", tmp_path)[1:]


def questions(path) -> dict:
    """item -> {number: (category, parents, question)}, as compute_dpg_bench.py reads the csv: it
    passes over the first row of data."""
    out = collections.defaultdict(dict)
    with open(path, newline="") as file:
        for row in list(csv.DictReader(file))[1:]:
            parents = [int(n) for n in row["dependency"].split(",")]
            category = row["tuple"].split("(")[0].strip()
            asked = (category, parents, row["question_natural_language"])
            out[row["item_id"]][int(row["proposition_id"])] = asked
    return out


def answer(crop: Image.Image, question: str) -> str:
    return "yes" if zlib.crc32(crop.tobytes() + question.encode()) % 3 else "no"


def score(folder, table, out, side: int):
    """(mean, category -> mean) of what the scorer would print; writes its two files at `out`."""
    asked = questions(table)
    means = []
    by_category = collections.defaultdict(list)
    lines = []
    detail = []
    boxes = [(0, 0), (side, 0), (0, side), (side, side)]
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            marks = []
            own = asked[name.split(".")[0]]
            for left, top in boxes:
                box = (left, top, left + side, top + side)
                crop = Image.open(path).crop(box)
                said = {}
                for n, (_, _, question) in own.items():
                    word = answer(crop, question)
                    said[n] = float(word == "yes")
                    detail.append(f"{path}, {box}, {question}, {word}\n")
                plain = dict(said)
                for n, (_, parents, _) in own.items():
                    if any(said[p] == 0 for p in parents if p):
                        said[n] = 0
                marks.append(sum(said.values()) / len(said))
            means.append(sum(marks) / len(marks))
            lines.append(", ".join([path, *map(str, marks), str(means[-1])]) + "\n")
            for n, (category, _, _) in own.items():
                by_category[category.split("-")[0].strip()].append(plain[n])
        except KeyError:
            continue
    summary = f"Model: x\nL1 category scores:\n\tentity: 1.0\nDPG-Bench score: {np.mean(means)}\n"
    out.write_text("".join(lines) + summary)
    out.with_name("r_detail.txt").write_text("".join(detail))
    return np.mean(means), {name: np.mean(values) for name, values in by_category.items()}


def total(units):
    return {name: sum(unit.get(name, 0) for unit in units) for unit in units for name in unit}


def test_a_grid_holds_its_four_pictures_where_the_scorer_cuts():
    four = [Image.new("RGB", (8, 8), (k, 0, 0)) for k in range(4)]
    (grid,) = dpg.compose(four)
    cuts = [(0, 0, 8, 8), (8, 0, 16, 8), (0, 8, 8, 16), (8, 8, 16, 16)]
    assert grid.size == (16, 16)
    assert [grid.crop(box).tobytes() for box in cuts] == [p.tobytes() for p in four]
    assert dpg.compose(four[:1]) == four[:1]


def test_results_give_the_mean_and_the_categories_that_the_scorer_prints(tree, tmp_path):
    items, folder = tree
    out = tmp_path / "r.txt"
    mean, categories = score(folder, tmp_path / "dpg_bench" / "dpg_bench.csv", out, made.SIDE)
    units = dpg.results(out, items, "dpg")
    assert len(units) == 12
    got = dpg.scores(total(units), "dpg")
    assert got["dpg"] == pytest.approx(100 * mean, abs=1e-9)
    assert {n: got[n] / 100 for n in categories} == pytest.approx(categories, abs=1e-12)
    assert set(categories) == {"entity", "attribute"} and 0.3 < mean < 0.9
    # Its first question is passed over, so the two that hang on it fail.
    assert got["prompts that the scorer left out"] == 1
    seeds = [dpg.scores(trees.of_picture(total(units), k), "dpg")["dpg"] for k in range(4)]
    assert np.mean(seeds) == pytest.approx(got["dpg"]) and np.std(seeds) > 0


def test_a_missing_picture_is_no_score_of_the_rest(tree, tmp_path):
    items, folder = tree
    out = tmp_path / "r.txt"
    (folder / "171.png").unlink()
    score(folder, tmp_path / "dpg_bench" / "dpg_bench.csv", out, made.SIDE)
    with pytest.raises(UsageError, match=r"171\.png: missing"):
        dpg.results(out, items, "dpg")


def test_files_of_two_runs_or_of_other_pictures_are_refused(tree, tmp_path):
    items, folder = tree
    out = tmp_path / "r.txt"
    score(folder, tmp_path / "dpg_bench" / "dpg_bench.csv", out, made.SIDE)
    detail = tmp_path / "r_detail.txt"
    detail.write_text(detail.read_text() * 2)
    with pytest.raises(UsageError, match=r"0\.png: 6 \+ 6 \+ 6 \+ 6 answers, expected 3 \+ 3"):
        dpg.results(out, items, "dpg")
    out.write_text(f"{folder}/0.png, 0.5, 0.5\n")
    with pytest.raises(UsageError, match="line 1: not 4 scores and their mean"):
        dpg.results(out, items, "dpg")


def test_the_prompts_are_those_of_the_folder_or_the_csv(tree, tmp_path):
    items, _ = tree
    table = dpg.read(str(tmp_path / "dpg_bench" / "dpg_bench.csv"), 4, "dpg")
    by_name = {item.files: item for item in table}
    assert sorted(by_name) == [item.files for item in items]
    for item in items:
        assert by_name[item.files].prompt == item.prompt and item.prompt[-1] != "\n"
        assert len(item.prompt.split()) > 300
    assert [item.files[0] for item in items] == sorted(f"{name}.png" for name in made.DPG_IDS)


def test_names_that_the_scorer_would_drop_are_refused(tmp_path):
    folder = made.write("dpg", tmp_path)
    (folder / "a.b.txt").write_text("a bowl")
    (folder / "new.txt").write_text("a bowl")
    (folder / "0.txt").write_text(" \n")
    with pytest.raises(UsageError) as error:
        dpg.read(str(folder), 4, "dpg")
    told = str(error.value)
    assert "a.b.txt: the scorer cuts names at a dot" in told
    assert "new.txt: no question about it in" in told and "0.txt: the prompt is empty" in told


def test_a_second_file_of_one_name_is_told(tree):
    items, folder = tree
    assert dpg.traps(folder, items) == []
    (folder / "0.old").write_bytes((folder / "0.png").read_bytes())
    assert dpg.traps(folder, items) == ["0.old: would count for 0 again; take it out of the tree"]


def test_the_command_keeps_the_results_out_of_the_pictures(tmp_path):
    told = dpg.command(tmp_path / "tree", 384, "dpg")
    assert f"--res-path {tmp_path}/tree-dpg-bench_results.txt" in told
    assert "--resolution 384" in told and "--num_processes 1" in told
