"""COCO-30K and MJHQ-30K, whose score is a distance over all pictures."""

import csv
import glob
import json
import os
import re

import pytest
from support import trees as made

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import trees
from janus_jax.eval.generation import coco30k, mjhq30k


def test_the_scorer_pairs_every_picture_with_its_caption(tmp_path):
    _, items, folder = made.drawn("coco30k", tmp_path)

    def natural(path):  # as GigaGAN's evaluation.py sorts
        return [int(t) if t.isdigit() else t.lower() for t in re.split("([0-9]+)", path)]

    paths = sorted(glob.glob(os.path.join(folder, "images", "*.png")), key=natural)
    captions = (folder / "captions.txt").read_text().splitlines()
    pairs = list(zip(paths, captions, strict=True))
    assert pairs == [(str(folder / item.files[0]), " ".join(item.prompt.split())) for item in items]


def test_the_list_of_a_score_reads_back_to_the_same_prompts(tmp_path):
    _, items, folder = made.drawn("coco30k", tmp_path)
    again = coco30k.read(str(folder / "prompts.csv"), 1, "coco30k")
    assert [(i.prompt, i.facts) for i in again] == [(i.prompt, i.facts) for i in items]
    assert items[0].prompt == 'A "cow", 0 and/or a_kite\nby the sea ' and len(items) == 12


def test_lists_of_both_forms_are_read(tmp_path):
    (tmp_path / "l.csv").write_text("Prompt\na cow, \n b\n")
    assert [(i.prompt, i.facts["uid"]) for i in coco30k.read(str(tmp_path / "l.csv"), 1, "")] == [
        ("a cow, ", "0"), (" b", "1"),
    ]  # fmt: skip
    (tmp_path / "l.csv").write_text("image_id,sentence\n1,a cow\n")
    with pytest.raises(UsageError, match="columns image_id, sentence; one of caption, text"):
        coco30k.read(str(tmp_path / "l.csv"), 1, "")
    (tmp_path / "l.csv").write_text("uid,caption\n1,a cow, red\n")
    with pytest.raises(UsageError, match="row 1: more columns than the header, ' red'; quote"):
        coco30k.read(str(tmp_path / "l.csv"), 1, "")
    (tmp_path / "l.csv").write_text("uid,caption\n1,a cow\n2, \n,a kite\n3\n")
    with pytest.raises(UsageError) as error:
        coco30k.read(str(tmp_path / "l.csv"), 1, "")
    told = str(error.value)
    assert "row 2: the prompt is empty" in told and "row 4: the prompt is empty" in told
    assert "row 3: no uid; give one" in told


def test_mjhq_lies_as_its_reference_does_and_flattens_without_loss(tmp_path):
    _, items, folder = made.drawn("mjhq30k", tmp_path)
    meta = json.loads((folder / "meta_data.json").read_text())
    assert meta == json.loads((tmp_path / "meta_data.json").read_text())
    for name, row in meta.items():
        assert (folder / row["category"] / f"{name}.png").is_file()
    deep = glob.glob(os.path.join(folder, "**/*.png"), recursive=True)  # clean-fid
    assert len({os.path.basename(path) for path in deep}) == len(items) == 12
    assert glob.glob(os.path.join(folder, "*.png")) == []  # pytorch-fid: flatten first


def test_a_picture_in_another_folder_counts_in_the_distance_and_is_told(tmp_path):
    _, items, folder = made.drawn("mjhq30k", tmp_path)
    (folder / "cats").mkdir()
    for name in ("sheet.png", "cats/a.jpg", "notes.txt"):
        (folder / name).write_bytes(b"")
    assert trees.faults(mjhq30k, folder, items, made.SIDE) == [
        f"{name}: clean-fid would count it; take it out of the tree"
        for name in ("cats/a.jpg", "sheet.png")
    ]


def test_mjhq_prompts_that_cannot_be_files_are_refused(tmp_path):
    path = tmp_path / "m.json"
    good = {"category": "art", "prompt": "a/b_c\nd"}
    rows = {"a/b": good, "x": {**good, "category": "sea"}, "y": {**good, "prompt": ""}}
    path.write_text(json.dumps(rows))
    with pytest.raises(UsageError) as error:
        mjhq30k.read(str(path), 1, "")
    told = str(error.value)
    assert "id 'a/b': a file's name cannot" in told and "id y: the prompt is empty" in told
    assert "id x: category 'sea' is none of the ten folders" in told
    path.write_text('{"a": {"category": "art", "prompt": "x"}, "a": {}}')
    with pytest.raises(UsageError, match="the key 'a' twice in one object"):
        mjhq30k.read(str(path), 1, "")
    path.write_text('{"a": {"category": "art"}}')
    with pytest.raises(UsageError, match="id a: no 'prompt'; it has category"):
        mjhq30k.read(str(path), 1, "")


@pytest.mark.parametrize("module", [coco30k, mjhq30k])
def test_a_distance_has_no_score_a_prompt(module, tmp_path):
    with pytest.raises(UsageError, match="a Fréchet distance is over all pictures together"):
        module.results(tmp_path, [], module.PROTOCOLS[0])


def test_the_list_beside_a_tree_is_written_as_csv(tmp_path):
    _, items, folder = made.drawn("coco30k", tmp_path)
    with open(folder / "prompts.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["uid", "caption"] and rows[1] == ["1000", items[0].prompt]
