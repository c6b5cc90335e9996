"""The quick start's world drawn: GenEval's six tasks, tree and results, with a scorer of its own.

Drawings are read back exactly (data/toy/shapes.py), so the whole road from prompts to score runs
without a detector.
"""

import json
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from janus_jax.data.toy import shapes, shapes_sources
from janus_jax.eval import toy, trees
from janus_jax.eval.benchmark import Item
from janus_jax.eval.generation import geneval

ABOUT = "Shapes: GenEval's six tasks in the quick start's world, drawings read back exactly"
HEADLINE = geneval.HEADLINE
PROTOCOLS = ("shapes",)
PICTURES = 1
ANY_SIZE = True
compose = geneval.compose
beside = geneval.beside
traps = geneval.traps
results = geneval.results
scores = geneval.scores


def read(path: str, pictures: int, protocol: str) -> list[Item]:
    """ "shapes:50?seed=1000": 50 prompts of each task, drawn from the world's grammar by the seed;
    these numbers are the quick start's, and what "shapes:" alone means."""
    given = toy.options(path, "shapes", count=50, seed=1000)
    items = []
    for n, prompt in enumerate(shapes.evaluation_prompts(given["count"], given["seed"])):
        row = metadata(prompt)
        item = geneval.item(n, json.dumps(row), row, pictures)
        item.facts.update(prompt=prompt, seed=given["seed"])
        items.append(item)
    return trees.require(items, path, pictures)


def metadata(prompt: shapes.Prompt) -> dict:
    """A prompt in the form of GenEval's evaluation_metadata.jsonl. Colours are named only where the
    prompt names them."""
    include = [
        {"class": shape, "count": 1} | ({"color": colour} if colour else {})
        for colour, shape in prompt.objects
    ]
    row = {"tag": prompt.task, "include": include, "prompt": prompt.text}
    if prompt.task == "counting":
        n = len(prompt.objects)
        include[:] = [include[0] | {"count": n}]
        row["exclude"] = [include[0] | {"count": n + 1}]
    if prompt.relation:  # the second is there first, and the first lies somewhere to it
        include.reverse()
        include[1]["position"] = [prompt.relation, 0]
    return row


def command(folder: pathlib.Path, side: int, protocol: str) -> str:
    return "# Graded by this package: janus_jax.eval.generation.shapes.grade."


def grade(folder: pathlib.Path, items: list[Item]) -> bytes:
    """results.jsonl of the tree, in GenEval's form. A picture is right that shows what the prompt
    says and nothing else. Raises UsageError where pictures are not of one of this world's sizes."""
    folder = pathlib.Path(folder)
    files = [(it, file) for it in items for file in it.files]
    with Image.open(folder / files[0][1]) as image:
        size = image.size if {*image.size} <= {*shapes.SIDES} else shapes.SIDE
    faults = {file: trees.picture_problem(folder / file, size) for _, file in files}
    wrong = [f"{file}: {why}" for file, why in faults.items() if why]
    trees.refuse(folder, "pictures that cannot be graded", wrong, "Draw them again.")
    lines = []
    for it, file in files:
        with Image.open(folder / file) as image:
            scene = shapes.read(np.asarray(image.convert("RGB")))
        right = it.facts["prompt"].fits(scene)
        seen = "something unclear" if scene is None else shapes.describe(scene) or "nothing"
        row = {
            "filename": str(folder / file), "tag": it.category, "prompt": it.prompt,
            "correct": right, "reason": "" if right else f"found {seen}",
            "metadata": it.facts["line"], "details": json.dumps(_boxes(scene or {})),
        }  # fmt: skip
        lines.append(f"{json.dumps(row)}\n")
    return "".join(lines).encode()


def chance(items: list[Item]) -> dict[str, float]:
    """Of each task, how often a picture drawn for one prompt fits another, and the mean of these."""
    seed = items[0].facts["seed"]
    tasks = dict.fromkeys(it.category for it in items)
    found = {task: shapes.drawing_chance(task, seed) for task in tasks}
    return found | {"overall": trees.mean_of(found.values())}


def tokenizer(model, items: list[Item], count: int = 256) -> float:
    """Share of true pictures that read the same after the tokenizer's encode and decode."""
    source = shapes_sources.ShapesGeneration(seed=items[0].facts["seed"] + 7)
    true = np.stack([source.image(i) for i in range(count)])
    back = np.clip((toy.through_tokenizer(model, true) + 1) / 2 * 255, 0, 255).astype(np.uint8)
    return trees.mean_of(shapes.read(a) == shapes.read(b) for a, b in zip(true, back))


def _boxes(scene: Mapping) -> dict[str, list]:
    """Class -> boxes as GenEval's detector gives them: left, top, right, bottom, confidence."""
    out = {}
    for cell, (_, shape) in sorted(scene.items()):
        top, left = (shapes.CELL * place for place in divmod(cell, shapes.GRID))
        box = [left, top, left + shapes.CELL, top + shapes.CELL, 1.0]
        out.setdefault(shape, []).append(box)
    return out
