"""Some of a benchmark's pictures on one, to look at."""

import json
import pathlib

import numpy as np
from PIL import Image

from janus_jax.common.contact_sheet import contact_sheet
from janus_jax.eval.benchmark import Item

MOST = 36  # prompts on a sheet
COLUMNS = 6


def correct(graded: bytes) -> dict[str, bool]:
    """The end of a file's name -> whether its picture is right, of a toy's `grade`."""
    rows = [json.loads(line) for line in graded.splitlines()]
    return {row["filename"]: row["correct"] for row in rows}


def sheet(module, items: list[Item], tree: pathlib.Path, right: dict[str, bool]) -> Image.Image:
    """The first pictures of each category, with their prompts, and where the benchmark has true
    pictures each beside its own.

    module: of generation/.
    right: what `correct` says; empty where nothing is graded.
    """
    categories = {}
    for item in items:
        categories.setdefault(item.category, []).append(item)
    each = max(1, MOST // len(categories))
    pictures = []
    captions = []
    for item in (one for some in categories.values() for one in some[:each]):
        file = item.files[0]
        with Image.open(tree / file) as opened:
            drawn = opened.convert("RGB")
        said = {True: ": right", False: ": wrong", None: ""}
        told = f"{item.prompt}{said[right.get(str(tree / file), right.get(file))]}"
        if hasattr(module, "true_picture"):
            pictures.append(np.asarray(module.true_picture(item, drawn.width)))
            captions.append(f"{item.prompt} (true)")
        pictures.append(drawn)
        captions.append(told)
    side = max(np.asarray(picture).shape[1] for picture in pictures)
    return contact_sheet(pictures, captions, min(COLUMNS, len(pictures)), max(1, 96 // side))
