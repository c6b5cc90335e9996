"""Prompts' files that cannot be used, and trees that are not whole, of every benchmark."""

import json
import os
import shutil

import pytest
from PIL import Image
from support import trees as made

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import benchmark, record, trees

NAMES = ("geneval", "geneval2", "dpg", "wise", "t2i_compbench", "coco30k", "mjhq30k")


@pytest.fixture(params=NAMES)
def tree(request, tmp_path):
    return made.drawn(request.param, tmp_path)


def refusal(name, path, pictures=0):
    module = benchmark.load("generation", name)
    with pytest.raises(UsageError) as error:
        module.read(str(path), pictures or module.PICTURES, module.PROTOCOLS[0])
    return str(error.value)


def test_a_whole_tree_of_twelve_prompts_has_no_fault(tree):
    module, items, folder = tree
    assert len(items) == 12
    assert trees.faults(module, folder, items, made.SIDE) == []


def test_every_fault_of_the_pictures_is_told_by_its_file(tree):
    _, items, folder = tree
    gone, cut, small, jpeg = (item.files[0] for item in items[:4])
    (folder / gone).unlink()
    whole = (folder / cut).read_bytes()
    (folder / cut).write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (4, 4)).save(folder / small)
    pixels = pixels_of(folder / jpeg)
    Image.new("RGB", (pixels, pixels)).save(folder / jpeg, "JPEG")
    beyond = f"{jpeg.rpartition('/')[0] or '.'}/9999999.png".removeprefix("./")
    shutil.copy(folder / items[5].files[0], folder / beyond)
    told = trees.verify(folder, items, made.SIDE)
    assert len(told) == 5
    assert f"{gone}: missing; go on drawing into this folder" in told
    assert any(t.startswith(f"{cut}: cannot be read (") for t in told)
    assert any(t.startswith(f"{small}: is 4x4, not {pixels}x{pixels}") for t in told)
    assert any(t.startswith(f"{jpeg}: is JPEG, not PNG") for t in told)
    assert f"{beyond}: is of no prompt of this list; take it out of the tree" in told


def pixels_of(path):
    with Image.open(path) as image:
        return image.width


def test_what_a_stopped_write_left_is_told(tree):
    _, items, folder = tree
    file = items[0].files[0]
    shutil.copy(folder / file, folder / f"{file}.partial")
    assert trees.verify(folder, items, made.SIDE) == [
        f"{file}.partial: is of no prompt of this list; take it out of the tree"
    ]


def test_a_file_beside_the_pictures_that_says_something_else_is_told(tree):
    module, items, folder = tree
    names = list(module.beside(items, folder))
    if not names:
        assert module.__name__.rsplit(".", 1)[1] in ("dpg", "wise", "t2i_compbench")
        return
    (folder / names[0]).write_text("{}")
    assert trees.faults(module, folder, items, made.SIDE) == [
        f"{names[0]}: is not what this list of prompts gives; write it again"
    ]
    (folder / names[0]).unlink()
    (told,) = trees.faults(module, folder, items, made.SIDE)
    assert told.startswith(f"{names[0]}: No such file") and "the scorer reads it" in told


def test_a_tree_that_is_not_there_is_one_fault(tree, tmp_path):
    module, items, _ = tree
    (told,) = trees.faults(module, tmp_path / "none", items, made.SIDE)
    assert told == f"{tmp_path / 'none'}: no such folder; give the tree that was drawn"


def test_the_hash_is_of_prompts_ids_and_order_and_not_of_how_many_are_drawn(tmp_path):
    module = benchmark.load("generation", "geneval")
    rows = made.geneval_rows()
    path = made.lines(tmp_path / "a.jsonl", rows)

    def found(rows, pictures=4):
        return record.asked_hash(module.read(str(made.lines(path, rows)), pictures, "geneval"))

    same = found(rows)
    assert len(same) == 64 and found(rows, pictures=1) == same
    other = [dict(rows[0], prompt="a photo of a cat"), *rows[1:]]
    assert len({same, found(rows[::-1]), found(other), found(rows[:-1])}) == 4
    meta = {"b": {"category": "art", "prompt": "x"}, "a": {"category": "art", "prompt": "y"}}
    mjhq = benchmark.load("generation", "mjhq30k")
    hashes = set()
    for names in (("b", "a"), ("c", "a")):
        (tmp_path / "m.json").write_text(json.dumps(dict(zip(names, meta.values()))))
        hashes.add(record.asked_hash(mjhq.read(str(tmp_path / "m.json"), 1, "mjhq30k")))
    assert len(hashes) == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_not_there_or_of_another_kind_is_refused(name, tmp_path):
    assert "No such file" in refusal(name, tmp_path / "complex_val.txt")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    wrong = tmp_path / "color_val.txt"
    shutil.copy(tmp_path / "bytes", wrong)
    assert f"{wrong}: byte 0 is no UTF-8" in refusal(name, wrong)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_without_prompts_is_refused(name, tmp_path):
    empty = {"wise": "[]", "mjhq30k": "{}", "coco30k": "uid,caption\n"}.get(name, "")
    path = tmp_path / "color_val.txt"
    path.write_text(empty)
    told = refusal(name, path)
    assert "holds no prompt; give the benchmark's file" in told or "no column item_id" in told


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_pictures_that_a_scorer_cannot_take_are_refused(name, tmp_path):
    told = refusal(name, made.write(name, tmp_path), pictures=-1)
    assert told.startswith("-1 pictures a prompt: the scorer takes ")


def test_all_lines_that_cannot_be_used_are_told_with_their_numbers(tmp_path):
    row = made.geneval_rows()[0]
    path = made.lines(tmp_path / "p.jsonl", [row, {**row, "prompt": " "}, [], {"tag": "counting"}])
    path.write_text(path.read_text() + '{"tag": \n' + json.dumps({**row, "tag": 3}))
    told = refusal("geneval", path)
    assert "GenEval's prompts: 5 faults" in told
    assert "line 3: a list, expected a JSON object" in told
    assert "line 4: no 'include'; it has tag" in told and "line 4: no 'prompt'" in told
    assert "line 5: no JSON" in told and "line 6: tag is 3, not str" in told
    rows = [row, {**row, "prompt": " "}, {**row, "tag": "colour"}, {**row, "prompt": "a \ud800"}]
    told = refusal("geneval", made.lines(path, rows))
    assert "line 4: the prompt holds a lone surrogate; write it as text" in told
    assert "line 2: the prompt is empty; write one, or leave the row out" in told
    assert "line 3: tag 'colour' is none of GenEval's tasks" in told


ODD = "a/b_c\nd, " + "very " * 300 + 'large "kite"'


@pytest.mark.parametrize("name", ["geneval", "geneval2", "wise", "dpg", "mjhq30k"])
def test_prompts_of_300_words_with_slashes_and_line_ends_are_drawn_and_read_back(name, tmp_path):
    path = made.write(name, tmp_path)
    if name in ("geneval", "geneval2"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        made.lines(path, [rows[0] | {"prompt": ODD}, *rows[1:]])
    elif name == "dpg":
        (path / "0.txt").write_text(ODD)
    elif name == "mjhq30k":
        meta = json.loads(path.read_text())
        meta[next(iter(meta))]["prompt"] = ODD
        path.write_text(json.dumps(meta))
    else:
        path /= "cultural_common_sense_verified.json"
        rows = json.loads(path.read_text())
        path.write_text(json.dumps([rows[0] | {"Prompt": ODD}]))
    module = benchmark.load("generation", name)
    items = module.read(str(path), module.PICTURES, module.PROTOCOLS[0])
    assert items[0].prompt == ODD
    made.draw(module, items, tmp_path / "tree")
    assert trees.faults(module, tmp_path / "tree", items, made.SIDE) == []
    beside = [content.decode() for content in module.beside(items, tmp_path / "tree").values()]
    assert all(json.dumps(ODD) in text for text in beside[:1])


def test_results_that_are_older_than_a_picture_are_known(tree):
    _, items, folder = tree
    results = folder / "results.jsonl"
    results.touch()
    later = results.stat().st_mtime + 60
    assert trees.stale([results], folder, items) == []
    os.utime(folder / items[3].files[0], (later, later))
    assert trees.stale([results], folder, items) == [results]


def test_many_faults_are_bounded(tmp_path):
    told = refusal("geneval", made.lines(tmp_path / "p.jsonl", [{}] * 100))
    assert "300 faults" in told and "... and 280 more" in told and len(told) < 3000


def test_a_score_of_a_part_is_refused(tmp_path):
    with pytest.raises(UsageError) as error:
        trees.one_each("r.jsonl", "pictures", [("a", 1), ("a", 2), ("c", 3)], ["a", "b"])
    told = str(error.value)
    assert "r.jsonl: pictures: 3 faults" in told
    for line in ("a: there twice", "c: of no prompt of this list", "b: missing", "No score is"):
        assert line in told
    assert trees.one_each("r", "p", [("b", 1), ("a", 2)], ["a", "b"]) == {"a": 2, "b": 1}


def test_the_sums_of_one_picture_a_prompt_are_those_of_one_seed():
    sums = {"counting/right": 3, "counting/right/0": 1, "counting/right/10": 2}
    assert trees.of_picture(sums, 0) == {"counting/right": 1}
