"""A data set's own records drawn: is the picture that a drawing is nearest to its own?

For pictures without an exact scorer. The records are those that were trained on, so this shows what
a small run has memorised.
"""

import json
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.images import generation_image
from janus_jax.data.sources import Source
from janus_jax.eval import toy, trees
from janus_jax.eval.benchmark import Item
from janus_jax.sample.generate import to_pil

ABOUT = "Emoji: names of the training set, drawings held against its pictures"
HEADLINE = "nearest"
PROTOCOLS = ("emoji",)
PICTURES = 1


def read(path: str, pictures: int, protocol: str) -> list[Item]:
    """ "emoji:200?count=64&seed=0&side=32": 64 records of the data set `emoji:200` of
    configs/emoji.py, whose pictures have 32 pixels; "emoji:" is all of these numbers."""
    given = toy.options(path, "emoji", emoji=200, count=64, seed=0, side=32)
    line = Dataset(kind="generation", path=f"emoji:{given['emoji']}")
    try:
        source = open_dataset(line, given["side"], given["seed"])
    except (ImportError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None
    rng = np.random.default_rng(given["seed"] + 1000)
    return trees.require(of_source(source, rng, given["count"], pictures), path, pictures)


def of_source(source: Source, rng, count: int, pictures: int) -> list[Item]:
    """At most `count` records of any data set of pictures to generate, each by its first caption.
    rng: a NumPy generator, which chooses them."""
    return [
        Item(
            source[i]["captions"][0],
            tuple(f"{n:05}/{k:04}.png" for k in range(pictures)),
            facts={"source": source, "record": i},
        )
        for n, i in enumerate(toy.pick(source, rng, count))
    ]


def compose(pictures: list) -> list:
    return pictures


def beside(items: list[Item], folder: pathlib.Path) -> dict[str, bytes]:
    return {}


def traps(folder: pathlib.Path, items: list[Item]) -> list[str]:
    return []


def command(folder: pathlib.Path, side: int, protocol: str) -> str:
    return "# Graded by this package: janus_jax.eval.generation.emoji.grade."


def true_picture(item: Item, side: int) -> np.ndarray:
    """uint8 [side, side, 3] of an item's record, as training has it."""
    return generation_image(item.facts["source"].image(item.facts["record"]), side)


def grade(folder: pathlib.Path, items: list[Item]) -> bytes:
    """A JSON object a picture: its file, and which prompt's true picture is nearest to it by mean
    absolute difference of pixels. Raises UsageError for pictures of more than one size."""
    folder = pathlib.Path(folder)
    with Image.open(folder / items[0].files[0]) as image:
        side = image.width
    files = [file for it in items for file in it.files]
    faults = {file: trees.picture_problem(folder / file, side) for file in files}
    wrong = [f"{file}: {why}" for file, why in faults.items() if why]
    trees.refuse(folder, "pictures that cannot be graded", wrong, "Draw them again.")
    true = np.stack([true_picture(it, side) for it in items]).astype(np.int16)
    lines = []
    for n, it in enumerate(items):
        for file in it.files:
            with Image.open(folder / file) as image:
                drawn = np.asarray(image.convert("RGB")).astype(np.int16)
            found = int(np.abs(true - drawn).mean((1, 2, 3)).argmin())
            row = {"filename": file, "prompt": it.prompt, "nearest": items[found].prompt}
            lines.append(f"{json.dumps(row | {'correct': found == n})}\n")
    return "".join(lines).encode()


def results(path: pathlib.Path, items: list[Item], protocol: str) -> list[dict[str, float]]:
    """Of what `grade` gives: "nearest/right" and "nearest/pictures"."""
    fields = {"filename": str, "correct": bool}
    rows = trees.read_jsonl(path, "what the drawings are nearest to", fields)
    files = [file for it in items for file in it.files]
    found = [(row["filename"], row["correct"]) for _, _, row in rows]
    right = trees.one_each(path, "the pictures that were graded", found, files)
    return [
        {
            "nearest/right": float(sum(right[file] for file in it.files)),
            "nearest/pictures": float(len(it.files)),
        }
        for it in items
    ]


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """The share of drawings that are nearest to their own picture."""
    return trees.shares(sums, "right", "pictures")


def chance(items: list[Item]) -> dict[str, float]:
    return {"nearest": 1 / len(items)}


def tokenizer(model, items: list[Item]) -> float:
    """Mean absolute difference, in 0 to 255, of the true pictures and what the tokenizer's encode
    and decode make of them."""
    side = model.config.generation_encoder.image_size
    true = np.stack([true_picture(it, side) for it in items])
    back = to_pil(toy.through_tokenizer(model, true))
    kept = np.stack([np.asarray(picture, int) for picture in back])
    return trees.mean_of(float(np.abs(a - b).mean()) for a, b in zip(kept, true))
