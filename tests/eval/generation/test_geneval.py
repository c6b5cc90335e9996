"""GenEval: the tree as its scorer walks it, and its results read back."""

import json
import os
import re

import pytest
from support import trees as made

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import trees
from janus_jax.eval.generation import geneval


@pytest.fixture
def tree(tmp_path):
    return made.drawn("geneval", tmp_path)[1:]


def walked(folder) -> list[tuple[str, dict]]:
    """(path, metadata) of what the scorer takes, found as evaluate_images.py finds it."""
    found = []
    for name in os.listdir(folder):
        if not os.path.isdir(os.path.join(folder, name)) or not name.isdigit():
            continue
        with open(os.path.join(folder, name, "metadata.jsonl")) as file:
            metadata = json.load(file)
        for sample in os.listdir(os.path.join(folder, name, "samples")):
            if re.match(r"\d+\.png", sample):
                found.append((os.path.join(folder, name, "samples", sample), metadata))
    return found


def scored(folder, right) -> list[dict]:
    """The lines of results.jsonl. right: (tag, path) -> whether a picture is."""
    return [
        {
            "filename": path, "tag": meta["tag"], "prompt": meta["prompt"],
            "correct": right(meta["tag"], path), "reason": "", "metadata": json.dumps(meta),
            "details": "{}",
        }
        for path, meta in walked(folder)
    ]  # fmt: skip


def read_back(folder, items, rows):
    path = made.lines(folder / "results.jsonl", rows)
    path.write_text(path.read_text().replace("/", "\\/"))  # as pandas writes it
    return geneval.results(path, items, "geneval")


def test_the_scorer_finds_every_picture_and_the_line_of_its_prompt(tree):
    items, folder = tree
    found = dict(walked(str(folder)))
    assert set(found) == {str(folder / file) for item in items for file in item.files}
    assert len(found) == 12 * 4
    rows = made.geneval_rows()
    for item, row in zip(items, rows):
        assert [found[str(folder / file)] for file in item.files] == [row] * 4
    assert [item.prompt for item in items] == [row["prompt"] for row in rows]


def test_results_give_the_score_of_the_summary(tree):
    items, folder = tree
    right = {
        "single_object": lambda path: True,
        "two_object": lambda path: path.endswith(("0000.png", "0001.png")),
        "counting": lambda path: False,
        "colors": lambda path: "00006" in path or path.endswith("0003.png"),
        "position": lambda path: path.endswith("0002.png"),
        "color_attr": lambda path: "00011" in path,
    }
    counts = read_back(folder, items, scored(folder, lambda tag, path: right[tag](path)))
    assert len(counts) == 12
    assert counts[2]["two_object/right"] == 2 and counts[2]["two_object/pictures"] == 4
    sums = {name: sum(unit.get(name, 0) for unit in counts) for unit in counts for name in unit}
    score = {
        "single_object": 1.0, "two_object": 0.5, "counting": 0.0, "colors": 5 / 8,
        "position": 0.25, "color_attr": 0.5,
    }  # fmt: skip
    assert geneval.scores(sums, "geneval") == score | {"overall": sum(score.values()) / 6}
    third = geneval.scores(trees.of_picture(sums, 2), "geneval")
    assert third["position"] == 1.0 and third["two_object"] == 0.0 and third["colors"] == 0.5


def test_results_of_a_part_or_of_other_prompts_are_refused(tree):
    items, folder = tree
    rows = scored(folder, lambda tag, path: True)
    with pytest.raises(UsageError) as error:
        read_back(folder, items, rows[:-1] + rows[:1])
    assert "2 faults" in str(error.value) and "there twice" in str(error.value)
    assert "missing" in str(error.value) and "No score is given of a part" in str(error.value)
    rows[0]["prompt"] = "a photo of a cat"
    with pytest.raises(UsageError, match=r"scored for .* 'a photo of a cat', drawn for"):
        read_back(folder, items, rows)


def test_what_the_scorer_would_pass_over_or_count_in_silence_is_told(tree):
    items, folder = tree
    assert geneval.traps(folder, items) == []
    (folder / "00003").rename(folder / "00003_kite")
    (folder / "00099" / "samples").mkdir(parents=True)
    (folder / "00001" / "samples" / "0000.png~").write_bytes(b"")
    (folder / "00001" / "grid.png").write_bytes(b"")
    told = "\n".join(geneval.traps(folder, items))
    assert "00003_kite: a folder of samples whose name is not all digits" in told
    assert "00099: a folder of digits that is no prompt's" in told
    assert "00001/samples/0000.png~: would be scored as a picture" in told
    assert told.count("\n") == 2
    missing = trees.verify(folder, items, made.SIDE)
    assert [line for line in missing if "grid" in line] == []
    assert sum("00003/samples" in line and "missing" in line for line in missing) == 4


def test_the_command_names_the_tree_as_a_shell_reads_it(tmp_path):
    told = geneval.command(tmp_path / "my tree", 384, "geneval")
    assert f"'{tmp_path}/my tree'" in told and "af4902f" in told
