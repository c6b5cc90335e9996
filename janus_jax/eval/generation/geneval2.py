"""GenEval 2 (arXiv 2512.16853): questions to a vision model about each object, count, attribute and
relation of a prompt.

Prompts, the list of paths and results as facebookresearch/GenEval2 has them at commit a6e82d2:
geneval2_data.jsonl, evaluation.py and soft_tifa_analysis.py.
"""

import json
import math
import pathlib
import shlex
from collections.abc import Mapping

from janus_jax.eval import trees
from janus_jax.eval.benchmark import Item

ABOUT = "GenEval 2: 800 prompts of 3 to 10 atoms, questions answered by Qwen3-VL-8B"
HEADLINE = "soft_tifa_gm"
PROTOCOLS = ("soft_tifa",)
PICTURES = 1
ANY_SIZE = True
SKILLS = ("object", "attribute", "count", "position", "verb")
_FIELDS = {"prompt": str, "atom_count": int, "vqa_list": list, "skills": list}
# An answer's probability is summed over its spellings, in the model's own precision.
_ROUNDING = 1.01


def read(path: str, pictures: int, protocol: str) -> list[Item]:
    """geneval2_data.jsonl: a prompt a line."""
    rows = trees.read_jsonl(path, "GenEval 2's prompts", _FIELDS)
    # The scorer finds a picture by its prompt, so two equal ones would share it.
    problems = trees.prompt_problems((w, row["prompt"], row["prompt"]) for w, _, row in rows)
    for where, _, row in rows:
        if len(row["skills"]) != len(row["vqa_list"]) or not row["skills"]:
            n, m = len(row["skills"]), len(row["vqa_list"])
            problems.append(f"{where}: {n} skills for {m} questions; there is one for each")
        problems += [f"{where}: skill {s!r} is unknown" for s in row["skills"] if s not in SKILLS]
    trees.refuse(path, "GenEval 2's prompts", problems)
    items = [
        Item(row["prompt"], (f"{n:05}.png",), str(row["atom_count"]), {"line": line, **row})
        for n, (_, line, row) in enumerate(rows)
    ]
    return trees.require(items, path, pictures, allowed=(1,))


def compose(pictures: list) -> list:
    return pictures


def beside(items: list[Item], folder: pathlib.Path) -> dict[str, bytes]:
    """image_paths.json, prompt -> absolute path of its picture, and the lines of these prompts: the
    scorer goes through them in order and writes no names."""
    folder = pathlib.Path(folder).resolve()
    paths = {it.prompt: str(folder / it.files[0]) for it in items}
    lines = "".join(f"{it.facts['line']}\n" for it in items)
    listed = json.dumps(paths, indent=1, ensure_ascii=False)
    return {"image_paths.json": listed.encode(), "geneval2_data.jsonl": lines.encode()}


def traps(folder: pathlib.Path, items: list[Item]) -> list[str]:
    """None: the scorer stops at a prompt without a path and at a path without a picture. A tree that
    was moved is found by image_paths.json, which names the old place."""
    return []


def command(folder: pathlib.Path, side: int, protocol: str) -> str:
    tree = shlex.quote(str(pathlib.Path(folder).resolve()))
    return f"""# In facebookresearch/GenEval2 at a6e82d2, installed as its README says.
python evaluation.py --benchmark_data {tree}/geneval2_data.jsonl \\
  --image_filepath_data {tree}/image_paths.json --method soft_tifa_gm \\
  --output_file {tree}/score_lists.json
python soft_tifa_analysis.py --benchmark_data {tree}/geneval2_data.jsonl \\
  --score_data {tree}/score_lists.json"""


def results(path: pathlib.Path, items: list[Item], protocol: str) -> list[dict[str, float]]:
    """Of score_lists.json, a list of numbers a prompt, one a question: the geometric and arithmetic
    mean of each prompt, and the sums of each skill."""
    what = "GenEval 2's score lists"
    lists = trees.read_json(path, what)
    problems = []
    if len(lists) != len(items):
        problems.append(f"{len(lists)} lists for {len(items)} prompts: of another prompts' file")
    for n, (it, found) in enumerate(zip(items, lists)):
        asked = len(it.facts["skills"])
        if not isinstance(found, list) or len(found) != asked:
            problems.append(f"list {n}: not the {asked} scores of {it.prompt!r}")
            continue
        whys = [trees.number_fault(value, 0, _ROUNDING) for value in found]
        problems += [f"list {n}, {it.prompt!r}: {why}" for why in whys if why]
    trees.refuse(
        path, what, problems, "Run the scorer, with a soft_tifa method, over these prompts."
    )
    return [_counts(it, found) for it, found in zip(items, lists)]


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """0 to 100: soft_tifa_gm and _am over prompts, each skill over its questions (arithmetic), each
    number of atoms over its prompts (geometric)."""
    found = {name: 100 * value for name, value in trees.shares(sums, "sum", "of").items()}
    atoms = sorted((n for n in found if n.startswith("atoms ")), key=lambda n: int(n.split()[1]))
    order = ["soft_tifa_gm", "soft_tifa_am", *SKILLS, *atoms]
    return {name: found[name] for name in order if name in found}


def _counts(it: Item, found: list[float]) -> dict[str, float]:
    geometric = math.prod(found) ** (1 / len(found))
    values = [("soft_tifa_gm", geometric), ("soft_tifa_am", trees.mean_of(found))]
    values += [(f"atoms {it.category}", geometric), *zip(it.facts["skills"], found)]
    counts = {}
    for name, value in values:
        counts[f"{name}/sum"] = counts.get(f"{name}/sum", 0.0) + value
        counts[f"{name}/of"] = counts.get(f"{name}/of", 0.0) + 1
    return counts
