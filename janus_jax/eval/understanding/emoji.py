"""A data set's own records asked: is the first answer word for word the record's?

The records are those that were trained on, so this shows what a small run has memorised.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.messages import PICTURE
from janus_jax.data.sources import Source
from janus_jax.eval import toy, trees
from janus_jax.eval.benchmark import Record

ABOUT = "Emoji: questions of the training set, answers word for word"
HEADLINE = "exact"
PROTOCOLS = ("emoji",)
MAX_NEW_TOKENS = 32


def read(path: str, images: str, say) -> list[Record]:
    """ "emoji:200?count=64&seed=0&side=32": 64 records of the data set `emoji:200` of
    configs/emoji.py, whose pictures have 32 pixels; "emoji:" is all of these numbers."""
    given = toy.options(path, "emoji", emoji=200, count=64, seed=0, side=32)
    line = Dataset(kind="understanding", path=f"emoji:{given['emoji']}")
    try:
        source = open_dataset(line, given["side"], given["seed"])
    except (ImportError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None
    rng = np.random.default_rng(given["seed"] + 1000)
    rng.permutation(len(source))  # generation/emoji's choice comes first: others are asked about
    records = of_source(source, rng, given["count"])
    if not records:
        raise UsageError(f"{path}: no question; give a count of 1 or more")
    return records


def of_source(source: Source, rng, count: int) -> list[Record]:
    """At most `count` records of any data set of questions about a picture, chosen by the NumPy
    generator `rng`."""
    out = []
    for i in toy.pick(source, rng, count):
        question, answer = source[i]["messages"][:2]
        picture = source.image(i)
        if isinstance(picture, np.ndarray):
            picture = Image.fromarray(picture)
        asked = " ".join(question.texts)
        right = answer.content[0].strip()
        out.append(Record(str(i), asked, (picture,), right, facts={"content": question.content}))
    return out


def ask(record: Record, protocol: str) -> list[dict]:
    """The record's first question, its picture where the record has it."""
    image = {"type": "image", "image": record.pictures[0]}
    pieces = [piece for piece in record.facts["content"] if piece != "\n"]
    parts = [image if p is PICTURE else {"type": "text", "text": p} for p in pieces]
    return [{"role": "user", "content": parts}]


def mark(record: Record, answer: str, protocol: str) -> dict:
    """Right word for word."""
    return {"read": answer, "right": float(answer == record.answer)}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    """ "exact/right" and "exact/questions" of each."""
    return [{"exact/right": m["right"], "exact/questions": 1.0} for m in marks]


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """The share of right answers, 0 to 1."""
    return trees.shares(sums, "right", "questions")


def chance(records: list[Record]) -> dict[str, float]:
    """The share of the commonest answer."""
    ((_, most),) = Counter(record.answer for record in records).most_common(1)
    return {"exact": most / len(records)}
