"""T2I-CompBench++: names as its scorers take them apart, and their files read back."""

import json
import os

import pytest
from support import trees as made

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import trees
from janus_jax.eval.generation import t2i_compbench as compbench

PLACES = {
    "color": "annotation_blip", "shape": "annotation_blip", "texture": "annotation_blip",
    "spatial": "labels/annotation_obj_detection_2d",
    "3d_spatial": "labels/annotation_obj_detection_3d", "numeracy": "annotation_num",
    "non_spatial": "annotation_clip", "complex": "annotation_3_in_1",
}  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    return made.drawn("t2i_compbench", tmp_path)[1:]


def write_scores(folder, category, answers):
    place = folder / category / PLACES[category]
    place.mkdir(parents=True, exist_ok=True)
    rows = [{"question_id": n, "answer": value} for n, value in answers]
    (place / "vqa_result.json").write_text(json.dumps(rows))


def scored(folder, items):
    """Every scorer's file: the n-th picture of the k-th category has (k + n % 10) / 20. BLIP writes
    texts, UniDet in no order."""
    for k, category in enumerate(PLACES):
        n = sum(len(item.files) for item in items if item.category == category)
        answers = [(i, (k + i % 10) / 20) for i in range(n)]
        if PLACES[category] == "annotation_blip":
            answers = [(i, f"{value:.4f}") for i, value in answers]
        write_scores(folder, category, answers[::-1] if "labels" in PLACES[category] else answers)


def test_the_scorers_read_every_prompt_from_the_names_in_order(tree):
    items, folder = tree
    for category in made.T2I:
        names = os.listdir(folder / category / "samples")
        names.sort(key=lambda name: int(name.split("_")[-1].split(".")[0]))  # BLIP and CLIP
        assert names == sorted(names, key=lambda n: int(n.split("_")[1].split(".")[0]))  # UniDet
        prompts = [item.prompt for item in items if item.category == category]
        assert [name.split("_")[0] for name in names] == [p for p in prompts for _ in range(10)]
        numbers = [int(name.split(".png")[0].split("_")[1]) for name in names]
        assert numbers == list(range(len(names)))


def test_results_give_the_mean_of_each_category(tree):
    items, folder = tree
    scored(folder, items)
    units = compbench.results(folder, items, compbench.PROTOCOLS[0])
    sums = {name: sum(unit.get(name, 0) for unit in units) for unit in units for name in unit}
    got = compbench.scores(sums, compbench.PROTOCOLS[0])
    expected = {category: (k + 4.5) / 20 for k, category in enumerate(PLACES)}
    assert got == pytest.approx(expected | {"mean": (3.5 + 4.5) / 20})
    third = compbench.scores(trees.of_picture(sums, 2), compbench.PROTOCOLS[0])
    assert third["color"] == pytest.approx(2 / 20)


def test_what_the_scorers_wrote_into_the_tree_is_no_fault_of_it(tree):
    items, folder = tree
    scored(folder, items)
    (depth := folder / "3d_spatial" / "labels" / "depth").mkdir(parents=True)
    (depth / "a dog_000000.png").write_bytes(b"")  # 3D_spatial_eval.py keeps its maps there
    assert trees.faults(compbench, folder, items, made.SIDE) == []


def test_scores_of_a_part_and_odd_ones_are_refused(tree):
    items, folder = tree
    scored(folder, items)
    write_scores(folder, "numeracy", [(n, 0.5) for n in range(9)])
    with pytest.raises(UsageError, match=r"annotation_num/vqa_result.json.*\n  9: missing"):
        compbench.results(folder, items, "")
    write_scores(folder, "numeracy", [(n, "good" if n == 3 else 0.5) for n in range(10)])
    with pytest.raises(UsageError, match="entry 3: answer 'good' is no number"):
        compbench.results(folder, items, "")
    os.remove(folder / "numeracy" / "annotation_num" / "vqa_result.json")
    with pytest.raises(UsageError, match="No such file"):
        compbench.results(folder, items, "")


def test_prompts_that_the_scorers_would_read_otherwise_are_refused(tmp_path):
    path = tmp_path / "color_val.txt"
    path.write_text(f"a red_bench\na cow and/or a kite\n\n{'long ' * 60}\na bowl\tseen\n")
    with pytest.raises(UsageError) as error:
        compbench.read(str(path), 10, "")
    told = str(error.value)
    assert "4 faults" in told
    assert "line 1: 'a red_bench' holds _ or /" in told and "line 2: 'a cow and/or" in told
    assert "line 3: the prompt is empty" in told and "line 4: 311 bytes, of at most 247" in told
    path.write_text("a bowl\tseen\n")
    (item,) = compbench.read(str(path), 2, "")
    assert item.prompt == "a bowl"
    assert item.files == (
        "color/samples/a bowl_000000.png", "color/samples/a bowl_000001.png",
    )  # fmt: skip


def test_a_folder_must_have_all_eight_and_a_file_a_category(tmp_path):
    folder = made.write("t2i_compbench", tmp_path)
    (folder / "shape_val.txt").rename(folder / "forms.txt")
    with pytest.raises(UsageError, match=r"no shape_val.txt there; give all eight, or one file"):
        compbench.read(str(folder), 10, "")
    with pytest.raises(UsageError, match="its name tells no category"):
        compbench.read(str(folder / "forms.txt"), 10, "")


def test_files_and_numbers_that_a_scorer_would_mix_up_are_told(tree):
    items, folder = tree
    assert compbench.traps(folder, items) == []
    (folder / "spatial" / "samples" / "notes_1.txt").write_text("")
    path = folder.parent / "dataset" / "complex_val.txt"
    few = compbench.read(str(path), 4, "")
    told = compbench.traps(folder, items + few)
    assert "spatial/samples/notes_1.txt: the scorers take it for a picture; take it out" in told
    assert "complex: 4 pictures a prompt; 3_in_1.py takes 10 and would mix up prompts" in told
