"""WISE (arXiv 2503.07265): prompts that say what to draw only to one who knows the world, judged by
a vision model.

Prompts, names and both protocols as PKU-YuanGroup/WISE has them at commit eb51174: data_verified/,
vllm_eval.py and calculate_verified.py; WISE_legacy/data/, gpt_eval.py and Calculate.py. Their scores
are not comparable: other prompts, judges, ranges of ids and weights.
"""

import pathlib
import shlex
from collections.abc import Mapping

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import trees
from janus_jax.eval.benchmark import Item

ABOUT = "WISE: 1,000 prompts of world knowledge, judged by a vision model"
HEADLINE = "overall"
PROTOCOLS = ("verified", "legacy")
PICTURES = 1
ANY_SIZE = True
# protocol -> category -> (last id, weight); the first begins at 1, each other after the one before.
_PARTS = {
    "verified": {
        "culture": (400, 0.4), "time": (520, 0.12), "space": (640, 0.12),
        "biology": (760, 0.12), "physics": (880, 0.12), "chemistry": (1000, 0.12),
    },
    "legacy": {
        "culture": (400, 0.4), "time": (567, 0.167), "space": (700, 0.133),
        "biology": (800, 0.1), "physics": (900, 0.1), "chemistry": (1000, 0.1),
    },
}  # fmt: skip
_STEMS = ("cultural_common_sense", "spatio-temporal_reasoning", "natural_science")
_NAMED = {
    "cultural knowledge": "culture", "time": "time", "space": "space", "biology": "biology",
    "physical knowledge": "physics", "chemistry": "chemistry", "ecology": "biology",
}  # fmt: skip
_FIELDS = {"Prompt": str, "prompt_id": int}
_WEIGHTS = {"consistency": 0.35, "realism": 0.1, "aesthetic_quality": 0.05}  # each mark is 0 to 2


def read(path: str, pictures: int, protocol: str) -> list[Item]:
    """The folder of the protocol's three JSON files (data_verified/ or WISE_legacy/data/), or one
    JSON file of prompts, as merge.json is."""
    what = f"the prompts of WISE ({protocol})"
    rows = []
    for file in _files(pathlib.Path(path).expanduser(), protocol):
        found = trees.read_json(file, what)
        rows += [(f"{file.name}, entry {n}", row) for n, row in enumerate(found)]
    problems = [p for where, row in rows for p in trees.missing(where, row, _FIELDS)]
    trees.refuse(path, what, problems)
    problems = trees.prompt_problems((w, row["prompt_id"], row["Prompt"]) for w, row in rows)
    for where, row in rows:
        of = category(row["prompt_id"], protocol)
        named = _NAMED.get(str(row.get("Category", "")).strip().lower())
        if not of:
            problems.append(f"{where}: prompt_id {row['prompt_id']} is not in 1 to 1000")
        elif named not in (None, of):
            problems.append(
                f"{where}: prompt_id {row['prompt_id']} is {of} in the protocol {protocol}, the file "
                f"says {row['Category']}; give the prompts of this protocol"
            )
    trees.refuse(path, what, problems)
    items = [
        Item(
            row["Prompt"],
            (f"{row['prompt_id']}.png",),
            category(row["prompt_id"], protocol),
            {"id": row["prompt_id"]},
        )
        for _, row in rows
    ]
    return trees.require(items, path, pictures, allowed=(1,))


def category(prompt_id: int, protocol: str) -> str:
    """What an id counts under; empty where it is out of range."""
    parts = _PARTS[protocol].items()
    return next((name for name, (last, _) in parts if 1 <= prompt_id <= last), "")


def compose(pictures: list) -> list:
    return pictures


def beside(items: list[Item], folder: pathlib.Path) -> dict[str, bytes]:
    return {}


def traps(folder: pathlib.Path, items: list[Item]) -> list[str]:
    """The judge passes over an id without a picture, and keeps the marks of an earlier run, even of
    other pictures."""
    found = sorted(folder.glob("Results*/**/*_results.jsonl"))
    return [
        f"{file.relative_to(folder).as_posix()}: marks of older pictures than these, which the judge "
        "would keep; move it away"
        for file in trees.stale(found, folder, items)
    ]


def command(folder: pathlib.Path, side: int, protocol: str) -> str:
    tree = shlex.quote(str(pathlib.Path(folder).resolve()))
    if protocol == "verified":
        return f"""# In PKU-YuanGroup/WISE at eb51174, beside `vllm serve` of Qwen3.5-35B-A3B on port 8000.
export VLLM_API_BASE=http://127.0.0.1:8000/v1 VLLM_API_KEY=EMPTY JUDGE_MODEL=Qwen3.5-35B-A3B
IMAGE_DIR={tree} bash eval_qwen.sh"""
    commands = [
        f"python gpt_eval.py --json_path data/{stem}.json --image_dir {tree} --api_key KEY \\\n"
        f"  --model gpt-4o-2024-05-13 --output_dir {tree}/Results/{stem} \\\n"
        f"  --result_full {tree}/Results/{stem}_full_results.json \\\n"
        f"  --result_scores {tree}/Results/{stem}_scores_results.jsonl --max_workers 96"
        for stem in _STEMS
    ]
    files = " ".join(f"{tree}/Results/{stem}_scores_results.jsonl" for stem in _STEMS)
    head = "# In WISE_legacy/ of PKU-YuanGroup/WISE at eb51174; KEY: of the judge's endpoint."
    return "\n".join([head, *commands, f"python Calculate.py {files} --category all"])


def results(path: pathlib.Path, items: list[Item], protocol: str) -> list[dict[str, float]]:
    """Of the folder of the judge's three *_results.jsonl, or one such file: "CATEGORY/sum" of
    the WiScore, 0 to 1, and "CATEGORY/of"."""
    path = pathlib.Path(path)
    files = sorted(path.glob("*_results.jsonl")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path}: no *_results.jsonl there; give what the judge wrote")
    marks = ("score",) if protocol == "verified" else tuple(_WEIGHTS)
    fields = {"prompt_id": int, **dict.fromkeys(marks, int | float)}
    found = []
    problems = []
    for file in files:
        for where, _, row in trees.read_jsonl(file, f"the judge's marks ({protocol})", fields):
            found.append((row["prompt_id"], row))
            for mark in marks:
                if why := _fault(row[mark], protocol):
                    problems.append(f"{file.name}, {where}: {mark} {why}")
    trees.refuse(path, f"the judge's marks ({protocol})", problems)
    ids = [it.facts["id"] for it in items]
    rows = trees.one_each(path, "the prompts that were judged", found, ids)
    return [
        {f"{it.category}/sum": _wiscore(row, protocol), f"{it.category}/of": 1.0}
        for it, row in zip(items, rows.values())
    ]


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """0 to 1: each category, and their weighted mean where all six are there."""
    found = trees.shares(sums, "sum", "of")
    parts = _PARTS[protocol]
    out = {name: found[name] for name in parts if name in found}
    if len(out) == len(parts):
        out["overall"] = sum(weight * out[name] for name, (_, weight) in parts.items())
    return out


def _wiscore(row: Mapping, protocol: str) -> float:
    if protocol == "verified":
        return float(row["score"])
    return sum(weight * row[mark] for mark, weight in _WEIGHTS.items())


def _fault(value, protocol: str) -> str:
    if protocol == "verified":
        return "" if value in (0, 1) else f"is {value}, not 0 or 1"
    return trees.number_fault(value, 0, 2)


def _files(path: pathlib.Path, protocol: str) -> list[pathlib.Path]:
    """The files of prompts. Raises UsageError where a folder lacks one."""
    if not path.is_dir():
        return [path]
    ending = "_verified.json" if protocol == "verified" else ".json"
    files = [path / f"{stem}{ending}" for stem in _STEMS]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise UsageError(f"{path}: no {', '.join(absent)} there; give the folder of all three")
    return files
