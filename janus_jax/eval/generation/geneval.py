"""GenEval (arXiv 2310.11513): whether the objects of a prompt are there, counted, coloured and
placed as it says.

Prompts, tree and results as djghosh13/geneval has them at commit af4902f:
prompts/evaluation_metadata.jsonl, evaluation/evaluate_images.py and evaluation/summary_scores.py.
The scorer wants CUDA, mmdet 2.x and a Mask2Former: it runs elsewhere, and its results.jsonl is read
back.
"""

import pathlib
import re
import shlex
from collections.abc import Mapping

from janus_jax.eval import trees
from janus_jax.eval.benchmark import Item

ABOUT = "GenEval: 553 prompts of six tasks, objects found by a detector"
HEADLINE = "overall"
PROTOCOLS = ("geneval",)
PICTURES = 4
ANY_SIZE = True
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
_FIELDS = {"tag": str, "include": list, "prompt": str}


def read(path: str, pictures: int, protocol: str) -> list[Item]:
    """evaluation_metadata.jsonl: a prompt a line, whose folder is its place in the file."""
    rows = trees.read_jsonl(path, "GenEval's prompts", _FIELDS)
    problems = trees.prompt_problems((where, where, row["prompt"]) for where, _, row in rows)
    problems += [
        f"{where}: tag {row['tag']!r} is none of GenEval's tasks: {', '.join(TASKS)}"
        for where, _, row in rows
        if row["tag"] not in TASKS
    ]
    trees.refuse(path, "GenEval's prompts", problems)
    items = [item(n, line, row, pictures) for n, (_, line, row) in enumerate(rows)]
    return trees.require(items, path, pictures)


def item(n: int, line: str, row: Mapping, pictures: int) -> Item:
    """The n-th prompt. line: its line of the prompts' file; row: what that says."""
    files = tuple(f"{n:05}/samples/{k:04}.png" for k in range(pictures))
    return Item(row["prompt"], files, row["tag"], {"line": line})


def compose(pictures: list) -> list:
    return pictures


def beside(items: list[Item], folder: pathlib.Path) -> dict[str, bytes]:
    """Each prompt's line as metadata.jsonl, which the scorer reads with `json.load`."""
    return {f"{_place(it)}/metadata.jsonl": f"{it.facts['line']}\n".encode() for it in items}


def traps(folder: pathlib.Path, items: list[Item]) -> list[str]:
    """The scorer takes every folder of digits, and in its samples/ every file whose name begins
    like 12.png, and passes over all others."""
    ours = {_place(it) for it in items}
    problems = []
    for entry in sorted(p for p in pathlib.Path(folder).glob("*") if p.is_dir()):
        samples = entry / "samples"
        digits = entry.name.isdigit()
        if not digits and samples.is_dir():
            problems.append(
                f"{entry.name}: a folder of samples whose name is not all digits, which the scorer "
                "passes over; name it by the prompt's number"
            )
        if digits and entry.name not in ours:
            problems.append(
                f"{entry.name}: a folder of digits that is no prompt's, which the scorer would "
                "count; take it out of the tree"
            )
        problems += [
            f"{entry.name}/samples/{file.name}: would be scored as a picture; take it out"
            for file in sorted(samples.glob("*"))
            if digits and re.match(r"\d+\.png", file.name) and not trees.is_picture(file.name)
        ]
    return problems


def command(folder: pathlib.Path, side: int, protocol: str) -> str:
    tree = shlex.quote(str(pathlib.Path(folder).resolve()))
    return f"""# In djghosh13/geneval at af4902f, installed as its README says; DETECTOR: where its
# evaluation/download_models.sh put the detector.
python evaluation/evaluate_images.py {tree} --outfile {tree}/results.jsonl --model-path DETECTOR
python evaluation/summary_scores.py {tree}/results.jsonl"""


def results(path: pathlib.Path, items: list[Item], protocol: str) -> list[dict[str, float]]:
    """Of results.jsonl, a line a picture: "TASK/right" and "TASK/pictures", and both also as NAME/k
    for the k-th picture of a prompt."""
    fields = {"filename": str, "tag": str, "prompt": str, "correct": bool}
    rows = trees.read_jsonl(path, "GenEval's results", fields)
    found = [("/".join(pathlib.PurePath(r["filename"]).parts[-3:]), r) for _, _, r in rows]
    files = {file: it for it in items for file in it.files}
    scored = trees.one_each(path, "the pictures that the scorer read", found, files)
    others = [
        f"{file}: scored for {row['tag']} {row['prompt']!r}, drawn for {it.category} {it.prompt!r}"
        for (file, it), row in zip(files.items(), scored.values())
        if (row["tag"], row["prompt"]) != (it.category, it.prompt)
    ]
    trees.refuse(path, "other prompts than these", others, "Score the tree of these prompts again.")
    return [_counts(it, [scored[file]["correct"] for file in it.files]) for it in items]


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """The share of right pictures of each task, and their mean, 0 to 1."""
    tasks = trees.shares(sums, "right", "pictures")
    ordered = {task: tasks[task] for task in TASKS if task in tasks}
    return ordered | {"overall": trees.mean_of(ordered.values())}


def _counts(it: Item, right: list[bool]) -> dict[str, float]:
    counts = {f"{it.category}/right": sum(right), f"{it.category}/pictures": len(right)}
    for k, correct in enumerate(right):
        counts |= {f"{it.category}/right/{k}": correct, f"{it.category}/pictures/{k}": 1}
    return {name: float(n) for name, n in counts.items()}


def _place(it: Item) -> str:
    """The folder of an item's files."""
    return it.files[0].partition("/")[0]
