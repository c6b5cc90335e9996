"""SEED-Bench, the part on pictures: multiple choice in nine abilities (arXiv 2307.16125)

Files: SEEDBench_IMG.tsv of VLMEvalKit; lmms-eval's parquet or the authors' SEED-Bench.json with the
folder SEED-Bench-image, of which the questions on videos are left out. There a category is the
number of the question's type.

Protocols:
    janus: read by `choices.letter_in`; answers from which no letter is read are wrong, where
        VLMEvalKit asks a judge by default.
    lmms-eval: no blank line before the request, and the answer's first character is the letter.
"""

from janus_jax.eval.asking import BY_LETTER, worded
from janus_jax.eval.benchmark import Record
from janus_jax.eval.choices import (
    authors_question,
    by_lines,
    letter_in,
    option_problem,
    options_in,
)
from janus_jax.eval.counting import by_picture, percents
from janus_jax.eval.question_files import Only, question_rows, require_sound
from janus_jax.eval.stored_pictures import same_picture

ABOUT = "SEED-Bench, image: 14,232 multiple choices on pictures in nine abilities"
HEADLINE = "accuracy"
PROTOCOLS = ("janus", "lmms-eval")
MAX_NEW_TOKENS = 128
_COLUMNS = {
    "index": ("index", "question_id"),
    "question": ("question",),
    "answer": ("answer",),
    "category": ("category", "question_type_id"),
}
_PICTURES = Only(lambda fields: fields.get("data_type", "image") == "image", "on a picture")


def read(path: str, images: str, say) -> list[Record]:
    """See `Understanding.read`. facts["picture"]: what the questions of a picture share."""
    rows, problems = question_rows(
        path, images, _COLUMNS, say, only=_PICTURES, optional=("category",),
        names=lambda fields: [fields["data_id"]] if "data_id" in fields else [],
    )  # fmt: skip
    out = []
    for row in rows:
        fields = row.fields
        options = options_in(fields)
        if why := option_problem(options, fields["answer"]):
            problems.append(f"{row.where}: {why}")
        category = str(fields.get("category", ""))
        category = f"type {category}" if category.isdigit() else category
        facts = {"picture": str(fields.get("data_id") or same_picture(row.pictures[0]))}
        out.append(
            Record(
                fields["index"], fields["question"], row.pictures, fields["answer"], options,
                category, facts,
            )
        )  # fmt: skip
    require_sound(path, problems)
    return out


def ask(record: Record, protocol: str) -> list[dict]:
    if protocol == "janus":
        return worded(record, authors_question(record), protocol)
    return worded(record, f"{record.question}\n{by_lines(record.options)}\n{BY_LETTER}", protocol)


def mark(record: Record, answer: str, protocol: str) -> dict:
    """What is read is a letter, or empty."""
    if protocol == "janus":
        read = letter_in(answer, record.options)
    else:
        read = answer.strip()[:1].upper()
        read = read if read in record.options else ""
    return {"read": read, "right": float(read == record.answer)}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    return by_picture(records, marks)


def scores(sums, protocol: str) -> dict[str, float]:
    """Percent: accuracy, also by category, and the answers from which no letter was read."""
    return percents(sums)
