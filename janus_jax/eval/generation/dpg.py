"""DPG-Bench (arXiv 2403.05135): long prompts, and questions to a vision model about all they name.

Prompts, the grid and results as TencentQQGYLab/ELLA has them at commit 3c228f1: dpg_bench/prompts/,
dpg_bench.csv, compute_dpg_bench.py and dist_eval.sh.
"""

import csv
import io
import pathlib
import re
import shlex
from collections.abc import Mapping

from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import short
from janus_jax.eval import trees
from janus_jax.eval.benchmark import Item

ABOUT = "DPG-Bench: 1,065 long prompts, questions answered by mPLUG-large"
HEADLINE = "dpg"
PROTOCOLS = ("dpg",)
PICTURES = 4
# The scorer passes over the csv's first question, on which this prompt's others depend, so it fails
# there and leaves the prompt out (TencentQQGYLab/ELLA#61).
UNSCORED = "partiprompts97"
_CSV = "dpg_bench.csv"
_COLUMNS = ("item_id", "text", "proposition_id", "tuple")
_LEFT_OUT = "prompts that the scorer left out"
_DETAIL = re.compile(r"(.*), \((\d+), (\d+), \d+, \d+\), .*, ([^,]*)")


def read(path: str, pictures: int, protocol: str) -> list[Item]:
    """The folder dpg_bench/prompts, a text file a prompt, by name; or dpg_bench.csv, in its order.
    Categories are known where the csv is given or lies beside the folder."""
    what = "DPG-Bench's prompts"
    source = pathlib.Path(path).expanduser()
    table = source.parent / _CSV if source.is_dir() else source
    questions = _questions(table) if table.is_file() or not source.is_dir() else {}
    if source.is_dir():
        files = sorted(source.glob("*.txt"))
        rows = [(f.name, f.name.removesuffix(".txt"), trees.read_text(f, what)) for f in files]
    else:
        rows = [(f"item {name}", name, text) for name, (text, _) in questions.items()]
    problems = trees.prompt_problems(rows)
    for where, name, _ in rows:
        if why := trees.name_problem(name) or ("." in name and "the scorer cuts names at a dot"):
            problems.append(f"{where}: {why}")
        if questions and name not in questions:
            problems.append(f"{where}: no question about it in {table}; the scorer would drop it")
    trees.refuse(path, what, problems)
    items = [
        Item(
            text.strip(),
            (f"{name}.png",),
            facts={
                "pictures": pictures,
                "grid": 2 if pictures == 4 else 1,
                "categories": questions.get(name, ("", []))[1],
            },
        )
        for _, name, text in rows
    ]
    return trees.require(items, path, pictures, allowed=(1, 4))


def compose(pictures: list) -> list:
    """Four on one, 2x2: top left, top right, bottom left, bottom right. One stays itself."""
    if len(pictures) == 1:
        return pictures
    side = pictures[0].width
    grid = Image.new("RGB", (2 * side, 2 * side))
    for k, picture in enumerate(pictures):
        grid.paste(picture, (k % 2 * side, k // 2 * side))
    return [grid]


def beside(items: list[Item], folder: pathlib.Path) -> dict[str, bytes]:
    return {}


def traps(folder: pathlib.Path, items: list[Item]) -> list[str]:
    """The scorer drops what it cannot score and takes the mean of the rest: pictures of a name that
    its csv lacks, and every other file; two files of one name up to the dot count twice."""
    known = {it.files[0].partition(".")[0] for it in items}
    expected = {it.files[0] for it in items}
    return [
        f"{entry.name}: would count for {entry.name.partition('.')[0]} again; take it out of the tree"
        for entry in sorted(folder.glob("*"))
        if entry.name not in expected
        and entry.name.partition(".")[0] in known
        and not trees.is_picture(entry.name)
    ]


def command(folder: pathlib.Path, side: int, protocol: str) -> str:
    tree = pathlib.Path(folder).resolve()
    out = shlex.quote(str(tree.with_name(f"{tree.name}-dpg-bench_results.txt")))
    return f"""# In TencentQQGYLab/ELLA at 3c228f1, installed with requirements-for-dpg_bench.txt. Not by
# dist_eval.sh: its results would lie among the pictures. More processes are faster and mix up only
# the scores by category that it prints, as each has its own order of them. --pic-num 1 where a
# prompt has one picture.
accelerate launch --num_machines 1 --num_processes 1 --mixed_precision fp16 \\
  dpg_bench/compute_dpg_bench.py --csv dpg_bench/dpg_bench.csv --vqa-model mplug \\
  --image-root-path {shlex.quote(str(tree))} --resolution {side} --pic-num 4 \\
  --res-path {out}"""


def results(path: pathlib.Path, items: list[Item], protocol: str) -> list[dict[str, float]]:
    """Of the scorer's results file, a line a prompt: "dpg/sum", the mean of its pictures, and the
    k-th picture's as "dpg/sum/k". Where the csv was read, of the file *_detail.txt beside it:
    "CATEGORY/yes" and "CATEGORY/of", of the last picture, parents that are "no" not looked at, as
    the scorer's own scores by category are."""
    path = pathlib.Path(path)
    pictures = items[0].facts["pictures"]
    lines = trees.read_text(path, "DPG-Bench's results").splitlines()
    found = []
    problems = []
    for number, line in enumerate(lines, 1):
        if line.startswith("Model: "):
            break
        name, *values = line.rsplit(", ", pictures + 1)
        try:
            marks = [float(value) for value in values]
        except ValueError:
            marks = []
        if len(marks) != pictures + 1 or any(trees.number_fault(mark, 0, 1) for mark in marks):
            problems.append(
                f"line {number}: not {pictures} scores and their mean: {short(line, 80)}"
            )
        found.append((pathlib.PurePath(name).name, marks[:-1]))
    what = "the pictures that the scorer read"
    trees.refuse(path, what, problems)
    files = [it.files[0] for it in items]
    unscored = f"{UNSCORED}.png" in files and f"{UNSCORED}.png" not in dict(found)
    wanted = [file for file in files if not unscored or file != f"{UNSCORED}.png"]
    scored = trees.one_each(path, what, found, wanted)
    counts = [_counts(scored.get(file)) for file in files]
    if any(it.facts["categories"] for it in items):
        detail = path.with_name(path.name.replace(".txt", "_detail.txt"))
        for it, own, yes in zip(items, counts, _yes(detail, items, scored)):
            own |= _by_category(it.facts["categories"], yes)
    return counts


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """0 to 100: "dpg" over prompts; each category over its questions; and, where it left some out,
    how many prompts the scorer left out."""
    out = {"dpg": 100 * sums["dpg/sum"] / sums["dpg/of"]} if sums.get("dpg/of") else {}
    out |= {name: 100 * share for name, share in sorted(trees.shares(sums, "yes", "of").items())}
    left_out = sums.get(_LEFT_OUT, 0.0)
    return out | ({_LEFT_OUT: left_out} if left_out else {})


def _counts(marks: list[float] | None) -> dict[str, float]:
    if marks is None:
        return {_LEFT_OUT: 1.0}
    counts = {"dpg/sum": trees.mean_of(marks), "dpg/of": 1.0}
    for k, mark in enumerate(marks):
        counts |= {f"dpg/sum/{k}": mark, f"dpg/of/{k}": 1.0}
    return counts


def _by_category(categories: list[str], yes: list[bool]) -> dict[str, float]:
    counts = {}
    for name, said in zip(categories, yes):
        counts[f"{name}/yes"] = counts.get(f"{name}/yes", 0.0) + said
        counts[f"{name}/of"] = counts.get(f"{name}/of", 0.0) + 1
    return counts


def _yes(detail: pathlib.Path, items: list[Item], scored: Mapping) -> list[list[bool]]:
    """Whether each question about an item's last picture was answered "yes"; nothing for an item
    that was not scored. Raises UsageError where a question lacks its answer."""
    answers = {}
    for line in trees.read_text(detail, "DPG-Bench's single answers").splitlines():
        if match := _DETAIL.fullmatch(line):
            file = pathlib.PurePath(match[1]).name
            crops = answers.setdefault(file, {})
            crops.setdefault((match[2], match[3]), []).append(match[4] == "yes")
    out = []
    problems = []
    for it in items:
        crops = list(answers.get(it.files[0], {}).values()) if it.files[0] in scored else []
        asked = [len(it.facts["categories"])] * it.facts["pictures"]
        if it.files[0] in scored and [len(crop) for crop in crops] != asked:
            found = " + ".join(str(len(crop)) for crop in crops) or "no"
            problems.append(
                f"{it.files[0]}: {found} answers, expected {' + '.join(map(str, asked))}"
            )
        out.append(crops[-1] if crops else [])
    trees.refuse(detail, "answers", problems, "Give the scorer a new --res-path for each run.")
    return out


def _questions(table: pathlib.Path) -> dict[str, tuple[str, list[str]]]:
    """Item id -> (prompt, the broad category of each of its questions), in the csv's order."""
    rows = list(csv.DictReader(io.StringIO(trees.read_text(table, "DPG-Bench's questions"))))
    lacks = [name for name in _COLUMNS if not rows or name not in rows[0]]
    if lacks:
        raise UsageError(f"{table}: no column {', '.join(lacks)}; give ELLA's {_CSV}")
    out = {}
    for row in rows:
        _, categories = out.setdefault(row["item_id"], (row["text"], []))
        categories.append((row["tuple"] or "").partition("(")[0].partition("-")[0].strip())
    return out
