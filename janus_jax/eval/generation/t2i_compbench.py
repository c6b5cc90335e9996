"""T2I-CompBench++ (arXiv 2307.06350): colour, shape, texture, space, number and their combinations,
each category scored by a program of its own.

Prompts, names and results as Karine-Huang/T2I-CompBench has them at commit 1b70949:
examples/dataset/*_val.txt, BLIPvqa_eval/, UniDet_eval/, CLIPScore_eval/ and 3_in_1_eval/.
"""

import pathlib
import shlex
from collections.abc import Mapping

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import trees
from janus_jax.eval.benchmark import Item

ABOUT = "T2I-CompBench++: 300 prompts in each of eight categories, three kinds of scorers"
HEADLINE = "mean"
PROTOCOLS = ("t2i_compbench++",)
PICTURES = 10
ANY_SIZE = True
_BLIP = "annotation_blip"
# category -> where its scorer leaves vqa_result.json in the category's folder
_RESULTS = {
    "color": _BLIP, "shape": _BLIP, "texture": _BLIP,
    "spatial": "labels/annotation_obj_detection_2d", "3d_spatial": "labels/annotation_obj_detection_3d",
    "numeracy": "annotation_num", "non_spatial": "annotation_clip", "complex": "annotation_3_in_1",
}  # fmt: skip


def read(path: str, pictures: int, protocol: str) -> list[Item]:
    """The folder examples/dataset with all eight *_val.txt, or one of them: a prompt a line, cut at
    a tab as inference_eval.py does. Pictures are numbered through each category from 0."""
    source = pathlib.Path(path).expanduser()
    files = [source / f"{name}_val.txt" for name in _RESULTS] if source.is_dir() else [source]
    absent = [file.name for file in files if source.is_dir() and not file.is_file()]
    if absent:
        raise UsageError(f"{path}: no {', '.join(absent)} there; give all eight, or one file")
    items = []
    problems = []
    for file in files:
        category = file.name.removesuffix("_val.txt")
        if category not in _RESULTS:
            known = ", ".join(f"{name}_val.txt" for name in _RESULTS)
            raise UsageError(f"{file}: its name tells no category; the benchmark's are {known}")
        what = f"the prompts of T2I-CompBench's {category}"
        lines = trees.read_text(file, what).splitlines()
        for n, line in enumerate(lines):
            prompt = line.partition("\t")[0]
            names = [f"{prompt}_{n * pictures + k:06}.png" for k in range(pictures)]
            why = _fault(prompt) or trees.name_problem(names[-1] if names else prompt)
            problems += [f"{file.name}, line {n + 1}: {why}"] if why else []
            paths = tuple(f"{category}/samples/{name}" for name in names)
            items.append(Item(prompt, paths, category))
    trees.refuse(path, "T2I-CompBench's prompts", problems)
    return trees.require(items, path, pictures)


def compose(pictures: list) -> list:
    return pictures


def beside(items: list[Item], folder: pathlib.Path) -> dict[str, bytes]:
    return {}


def traps(folder: pathlib.Path, items: list[Item]) -> list[str]:
    """The scorers take every file of samples/ for a picture, and 3_in_1.py takes ten a prompt."""
    expected = {file for it in items for file in it.files}
    problems = []
    for category in dict.fromkeys(it.category for it in items):
        for file in sorted((folder / category / "samples").glob("*")):
            name = f"{category}/samples/{file.name}"
            if name not in expected and not trees.is_picture(file.name):
                problems.append(f"{name}: the scorers take it for a picture; take it out")
    many = {len(it.files) for it in items if it.category == "complex"} - {10}
    if many:
        problems.append(
            f"complex: {many.pop()} pictures a prompt; 3_in_1.py takes 10 and would mix up prompts"
        )
    return problems


def command(folder: pathlib.Path, side: int, protocol: str) -> str:
    tree = shlex.quote(str(pathlib.Path(folder).resolve()))
    return f"""# In Karine-Huang/T2I-CompBench at 1b70949, installed as its Readme says; no / at a folder's end.
(cd BLIPvqa_eval && for c in color shape texture complex; do
  python BLIP_vqa.py --out_dir={tree}/$c; done)
(cd UniDet_eval && python 2D_spatial_eval.py --outpath={tree}/spatial &&
  python 2D_spatial_eval.py --outpath={tree}/complex --complex=True &&
  python numeracy_eval.py --outpath={tree}/numeracy &&
  python 3D_spatial_eval.py --outpath={tree}/3d_spatial)
python CLIPScore_eval/CLIP_similarity.py --outpath={tree}/non_spatial
python CLIPScore_eval/CLIP_similarity.py --outpath={tree}/complex --complex=True
(cd 3_in_1_eval && python 3_in_1.py --outpath={tree}/complex --data_path=../examples/dataset)"""


def results(path: pathlib.Path, items: list[Item], protocol: str) -> list[dict[str, float]]:
    """Of the tree, into which the scorers write a vqa_result.json a category: "CATEGORY/sum" and
    "CATEGORY/of" over pictures, and both also as NAME/k for the k-th picture of a prompt."""
    answers = {}
    for category in dict.fromkeys(it.category for it in items):
        file = pathlib.Path(path) / category / _RESULTS[category] / "vqa_result.json"
        what = f"T2I-CompBench's scores of {category}"
        problems = []
        found = []
        for n, row in enumerate(trees.read_json(file, what)):
            lacks = trees.missing(f"entry {n}", row, {"question_id": int, "answer": object})
            why = "" if lacks else trees.number_fault(_float(row["answer"]), -1, 1)
            problems += lacks + ([f"entry {n}: answer {why}"] if why else [])
            found += [] if lacks else [(row["question_id"], _float(row["answer"]))]
        trees.refuse(file, what, problems)
        ids = [_number(name) for it in items if it.category == category for name in it.files]
        answers[category] = trees.one_each(file, what, found, ids)
    return [_counts(it, [answers[it.category][_number(name)] for name in it.files]) for it in items]


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """The mean of each category as its scorer gives it, and, of our own, the mean of these."""
    found = trees.shares(sums, "sum", "of")
    out = {name: found[name] for name in _RESULTS if name in found}
    return out | {"mean": trees.mean_of(out.values())}


def _counts(it: Item, answers: list[float]) -> dict[str, float]:
    counts = {f"{it.category}/sum": sum(answers), f"{it.category}/of": float(len(answers))}
    for k, answer in enumerate(answers):
        counts |= {f"{it.category}/sum/{k}": answer, f"{it.category}/of/{k}": 1.0}
    return counts


def _fault(prompt: str) -> str:
    """Why the scorers would not read this prompt back from a file's name; empty where they do."""
    if not prompt.strip():
        return "the prompt is empty; take the line out"
    if "_" in prompt or "/" in prompt:
        return (
            f"{prompt!r} holds _ or /: the scorers take the prompt from the file's name, up to the "
            "first _; write it without"
        )
    return ""


def _number(file: str) -> int:
    return int(file.rsplit("_", 1)[1].removesuffix(".png"))


def _float(answer):
    """BLIP's scores are texts, the others' numbers."""
    try:
        return float(answer) if isinstance(answer, str) else answer
    except ValueError:
        return answer
