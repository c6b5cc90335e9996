"""GenEval 2: the list of paths that its scorer reads, and its score lists read back."""

import json
import statistics

import pytest
from PIL import Image
from support import trees as made

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import trees
from janus_jax.eval.generation import geneval2


@pytest.fixture
def tree(tmp_path):
    return made.drawn("geneval2", tmp_path)[1:]


def test_the_scorer_opens_the_picture_of_every_prompt(tree):
    items, folder = tree
    lines = (folder / "geneval2_data.jsonl").read_text().splitlines()
    data = [json.loads(line) for line in lines]  # as evaluation.py reads both
    paths = json.loads((folder / "image_paths.json").read_text())
    assert data == made.geneval2_rows()
    for row, item in zip(data, items):
        assert paths[row["prompt"]] == str(folder / item.files[0])
        with Image.open(paths[row["prompt"]]) as image:
            assert image.size == (made.SIDE, made.SIDE)


def test_a_tree_that_was_moved_is_told(tree, tmp_path):
    items, folder = tree
    folder.rename(tmp_path / "moved")
    assert trees.faults(geneval2, tmp_path / "moved", items, made.SIDE) == [
        "image_paths.json: is not what this list of prompts gives; write it again"
    ]


def test_results_give_the_scores_of_the_analysis(tree, tmp_path):
    items, _ = tree
    lists = [[0.1 * (1 + k % 3), 0.9, 0.5 if k % 4 else 0.0] for k in range(12)]
    (tmp_path / "s.json").write_text(json.dumps(lists))
    units = geneval2.results(tmp_path / "s.json", items, "soft_tifa")
    sums = {name: sum(unit.get(name, 0) for unit in units) for unit in units for name in unit}
    got = geneval2.scores(sums, "soft_tifa")
    geometric = [0 if 0 in row else statistics.geometric_mean(row) for row in lists]
    odd = [g for k, g in enumerate(geometric) if k % 2]
    even = [g for k, g in enumerate(geometric) if not k % 2]
    expected = {
        "soft_tifa_gm": sum(geometric) / 12,
        "soft_tifa_am": sum(sum(row) / 3 for row in lists) / 12,
        "object": sum(row[2] for row in lists) / 12,
        "attribute": 0.9,
        "count": 0.2,
        "atoms 3": sum(even) / 6,
        "atoms 4": sum(odd) / 6,
    }
    assert list(got) == list(expected)
    assert {name: value / 100 for name, value in got.items()} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[:-1], "11 lists for 12 prompts"),
        (lambda rows: [rows[0][:2], *rows[1:]], "list 0: not the 3 scores of 'two red benchs'"),
        (lambda rows: [[0.1, float("nan"), 1.0], *rows[1:]], "list 0, 'two red benchs': nan is no"),
        (lambda rows: [[0.1, 1.5, 1.0], *rows[1:]], "1.5 is not in 0 to 1.01"),
        (lambda rows: {"a": rows}, "holds a dict, expected a list"),
    ],
)
def test_lists_that_are_not_of_these_prompts_are_refused(tree, tmp_path, change, told):
    items, _ = tree
    (tmp_path / "s.json").write_text(json.dumps(change([[0.1, 0.2, 0.3] for _ in items])))
    with pytest.raises(UsageError) as error:
        geneval2.results(tmp_path / "s.json", items, "soft_tifa")
    assert told in str(error.value)


def test_prompts_that_would_share_a_picture_or_have_no_skill_are_refused(tmp_path):
    rows = made.geneval2_rows()
    rows[1]["prompt"] = rows[0]["prompt"]
    rows[2]["skills"] = ["count"]
    rows[3]["skills"] = ["count", "attribute", "things"]
    with pytest.raises(UsageError) as error:
        geneval2.read(str(made.lines(tmp_path / "p.jsonl", rows)), 1, "soft_tifa")
    told = str(error.value)
    assert "line 2: 'two red benchs' is also in line 1" in told
    assert "line 3: 1 skills for 3 questions" in told and "skill 'things' is unknown" in told
