"""MMBench DEV_EN: multiple choice in 20 abilities (arXiv 2307.06281)

Files: MMBench_DEV_EN.tsv of VLMEvalKit (opencompass), lmms-eval's parquet ("en", dev). Both hold
each question once for each rotation of its options: a row whose index is 1,000,000 or more is a
rotation of the row with the same index modulo 1,000,000. All are asked. The test split has no
answers: it is scored by its makers' server.

Scores: "vanilla" takes the first row of each question; the paper's 69.4 is that (VLMEvalKit#541:
"without circular evaluation"). "vanilla_all" takes every row. "circular", the makers' own, takes a
question for right where all its rotations are; it is left out where rotations are missing.

Protocols: janus and lmms-eval differ in the words, and both are read by `choices.letter_in`. Both
harnesses ask a judge, GPT, about answers from which no letter is read, by default; here those are
wrong, and their share is "unread".
"""

import collections

from janus_jax.eval.asking import BY_LETTER, worded
from janus_jax.eval.benchmark import Record
from janus_jax.eval.choices import (
    authors_question,
    by_lines,
    letter_in,
    option_problem,
    options_in,
)
from janus_jax.eval.counting import count_right, of_categories
from janus_jax.eval.question_files import question_rows, require_sound

ABOUT = "MMBench DEV_EN: 1,164 multiple choices, each with every rotation of its options, in 20 abilities"
HEADLINE = "vanilla"
PROTOCOLS = ("janus", "lmms-eval")
MAX_NEW_TOKENS = 128
ROTATION = 1_000_000
_COLUMNS = {
    "index": ("index",),
    "question": ("question",),
    "answer": ("answer",),
    "category": ("category",),
    "hint": ("hint",),
}


def read(path: str, images: str, say) -> list[Record]:
    """See `Understanding.read`. facts: "hint", "group", the index of the question's first row, and
    "rotations", how many rows the file has of it."""
    rows, problems = question_rows(path, images, _COLUMNS, say, optional=("category", "hint"))
    groups = collections.Counter(_group(row.fields["index"]) for row in rows)
    first = {row.fields["index"] for row in rows}
    any_lost = bool(problems)  # rows that are not here, but in the file
    out = []
    few = set()
    for row in rows:
        fields = row.fields
        options = options_in(fields)
        group = _group(fields["index"])
        if why := option_problem(options, fields["answer"]):
            problems.append(f"{row.where}: {why}")
        if group not in first and not any_lost:
            problems.append(f"{row.where}: a rotation of row {group}, which is not there")
        if groups[group] < len(options):
            few.add(group)
        hint = fields.get("hint")
        facts = {
            "hint": None if hint == "nan" else hint, "group": group, "rotations": groups[group],
        }  # fmt: skip
        out.append(
            Record(
                fields["index"], fields["question"], row.pictures, fields["answer"], options,
                fields.get("category", ""), facts,
            )
        )  # fmt: skip
    require_sound(path, problems)
    if few:
        say(f"{path}: {len(few):,} of {len(groups):,} questions lack rotations of their options")
    return out


def ask(record: Record, protocol: str) -> list[dict]:
    if protocol == "janus":
        return worded(record, authors_question(record), protocol)
    hint = record.facts["hint"]
    options = f"There are several options:\n{by_lines(record.options)}"
    text = f"{hint} {record.question} {options}" if hint else f"{record.question} {options}"
    return worded(record, f"{text}\n\n{BY_LETTER}", protocol)


def mark(record: Record, answer: str, protocol: str) -> dict:
    """What is read is a letter, or empty."""
    read = letter_in(answer, record.options)
    return {"read": read, "right": float(read == record.answer)}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    """The unit is a question with its rotations."""
    groups = collections.defaultdict(list)
    for record, found in zip(records, marks, strict=True):
        groups[record.facts["group"]].append((record, found))
    return [_unit(group, asked) for group, asked in groups.items()]


def _unit(group: str, asked: list) -> dict[str, float]:
    whole = len(asked) == asked[0][0].facts["rotations"] > 1
    unit = collections.Counter()
    counts = {
        "questions": 1.0,
        "rows": float(len(asked)),
        "rows_right": sum(found["right"] for _, found in asked),
        "unread": float(sum(found["read"] == "" for _, found in asked)),
        "whole": float(whole),
        "whole_right": float(whole and all(found["right"] for _, found in asked)),
    }
    for record, found in asked:
        if record.index == group:
            count_right(unit, record.category, found["right"])
    return counts | unit


def scores(sums, protocol: str) -> dict[str, float]:
    """Percent: see the module; vanilla also by category."""
    out = {}
    if sums.get("all/asked"):
        out["vanilla"] = 100 * sums["all/right"] / sums["all/asked"]
    out["vanilla_all"] = 100 * sums["rows_right"] / sums["rows"]
    if sums["whole"] == sums["questions"]:
        out["circular"] = 100 * sums["whole_right"] / sums["questions"]
    out["unread"] = 100 * sums["unread"] / sums["rows"]
    return out | {f"vanilla/{name}": value for name, value in of_categories(sums).items()}


def _group(index: str) -> str:
    return str(int(index) % ROTATION) if index.isdigit() else index
