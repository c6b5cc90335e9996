"""The quick start's world asked about: six kinds of questions, every answer equally often."""

from collections.abc import Mapping

from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy import shapes
from janus_jax.eval import toy, trees
from janus_jax.eval.benchmark import Record

ABOUT = "Shapes: six kinds of questions in the quick start's world"
HEADLINE = "overall"
PROTOCOLS = ("shapes",)
MAX_NEW_TOKENS = 8


def read(path: str, images: str, say) -> list[Record]:
    """ "shapes:25?seed=1000": 25 questions of each of the 20 answers, drawn by the seed; these
    numbers are the quick start's, and what "shapes:" alone means."""
    given = toy.options(path, "shapes", count=25, seed=1000)
    if not given["count"]:
        raise UsageError(f"{path}: no question; give 1 or more an answer")
    asked = shapes.evaluation_questions(given["count"], given["seed"])
    return [
        Record(str(n), question, (Image.fromarray(picture),), answer, category=kind)
        for n, (kind, picture, question, answer) in enumerate(asked)
    ]


def ask(record: Record, protocol: str) -> list[dict]:
    """The picture and the question in one message, as training has them."""
    image = {"type": "image", "image": record.pictures[0]}
    text = {"type": "text", "text": record.question}
    return [{"role": "user", "content": [image, text]}]


def mark(record: Record, answer: str, protocol: str) -> dict:
    """Right word for word."""
    return {"read": answer, "right": float(answer == record.answer)}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    """ "KIND/right" and "KIND/questions" of each."""
    return [
        {f"{r.category}/right": m["right"], f"{r.category}/questions": 1.0}
        for r, m in zip(records, marks, strict=True)
    ]


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """The accuracy of each kind of question, and the mean over kinds, 0 to 1."""
    found = trees.shares(sums, "right", "questions")
    kinds = {kind: found[kind] for kind in shapes.QUESTIONS if kind in found}
    return kinds | {"overall": trees.mean_of(kinds.values())}


def chance(records: list[Record]) -> dict[str, float]:
    """One of each kind's answers, and the mean over kinds."""
    asked = dict.fromkeys(record.category for record in records)
    kinds = {kind: 1 / len(shapes.ANSWERS[kind]) for kind in asked}
    return kinds | {"overall": trees.mean_of(kinds.values())}
