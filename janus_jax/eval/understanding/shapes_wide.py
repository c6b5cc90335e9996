"""Shapes of small things on long canvases, every shape equally often: what only a model that sees
details can tell (see data/toy/shapes_wide.py)."""

from collections.abc import Mapping

from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy import shapes_wide
from janus_jax.eval import toy, trees
from janus_jax.eval.benchmark import Record

ABOUT = "Shapes on long canvases: what only a model that sees details can tell"
HEADLINE = "shape"
PROTOCOLS = ("shapes_wide",)
MAX_NEW_TOKENS = 8


def read(path: str, images: str, say) -> list[Record]:
    """ "shapes_wide:50?seed=1000": 50 questions of each of the 4 shapes, drawn by the seed; these
    numbers are what "shapes_wide:" alone means."""
    given = toy.options(path, "shapes_wide", count=50, seed=1000)
    if not given["count"]:
        raise UsageError(f"{path}: no question; give 1 or more an answer")
    asked = shapes_wide.questions_of_each_shape(given["count"], given["seed"])
    return [
        Record(str(n), question, (Image.fromarray(picture),), answer)
        for n, (picture, question, answer) in enumerate(asked)
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
    """ "shape/right" and "shape/questions" of each."""
    return [{"shape/right": m["right"], "shape/questions": 1.0} for m in marks]


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """The share of right answers, 0 to 1."""
    return trees.shares(sums, "right", "questions")


def chance(records: list[Record]) -> dict[str, float]:
    """One of the four shapes."""
    return {"shape": 1 / len(shapes_wide.SHAPES)}
