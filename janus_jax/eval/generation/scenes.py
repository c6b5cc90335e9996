"""The world of scenes drawn: prompts of combinations of thing, ground and size that no training has,
and of others, read by a detector that was trained on true pictures.

Beside what is found in the drawings stands what the same detector finds in true pictures of the same
prompts ("renders"): no score can be above that but by luck.
"""

import json
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy import emoji, scenes, scenes_tests
from janus_jax.data.toy.scenes import Scene
from janus_jax.eval import toy, trees
from janus_jax.eval.benchmark import Item
from janus_jax.eval.detecting import SceneDetector
from janus_jax.eval.frechet import Moments, frechet_distance, too_few

ABOUT = "Scenes: prompts of OpenMoji scenes, half of held-out combinations, read by a detector"
HEADLINE = "overall"
PROTOCOLS = ("scenes",)
PICTURES = 1
TOGETHER = 64  # pictures that the tokenizer takes at once
RENDERS = "renders"  # true pictures, as the detector reads them


def read(path: str, pictures: int, protocol: str) -> list[Item]:
    """ "scenes:32?seed=1000&detector=DIR": 32 prompts of each kind of held-out combinations and as
    many of others, drawn by the seed, 32 and 1000 where they are left out. DIR is the weights
    directory of task detector. The first of each kind and half come first, so that some of them
    are of all kinds alike."""
    given = toy.options(path, "scenes", count=32, seed=1000, detector="")
    faults = []
    if given["count"] < 1:
        faults.append("give 1 prompt a kind or more")
    if not given["detector"]:
        faults.append(
            "no detector; train one (configs/miniature.py:detector) and give its weights, as in "
            "scenes:?detector=runs/detector/detector"
        )
    if faults:
        raise UsageError(f"{path}: {'; '.join(faults)}")
    detector = SceneDetector(given["detector"])
    groups = {}
    for split, held_out in scenes_tests.SPLITS.items():
        for n, prompt in enumerate(scenes_tests.prompts(given["count"], given["seed"], held_out)):
            files = tuple(f"{split}/{n:05}/{k:04}.png" for k in range(pictures))
            item = Item(prompt.text, files, split, {"prompt": prompt, "detector": detector})
            groups.setdefault(_kind(item), []).append(item)
    return trees.require(toy.interleaved(groups.values()), path, pictures)


def _kind(item: Item) -> tuple[str, str]:
    return item.category, item.facts["prompt"].task


def own_settings(items: list[Item]) -> dict:
    """The weights that grade, and whose drawings true pictures are made of."""
    return {"detector_sha256": items[0].facts["detector"].sha256, "attribution": emoji.ATTRIBUTION}


def compose(pictures: list) -> list:
    return pictures


def beside(items: list[Item], folder: pathlib.Path) -> dict[str, bytes]:
    return {}


def traps(folder: pathlib.Path, items: list[Item]) -> list[str]:
    return []


def command(folder: pathlib.Path, side: int, protocol: str) -> str:
    return "# Graded by this package: janus_jax.eval.generation.scenes.grade."


def true_picture(item: Item, side: int) -> np.ndarray:
    """uint8 [side, side, 3], a picture that fits the prompt."""
    return scenes.draw(item.facts["prompt"].scene, side)


def _drawn(folder: pathlib.Path, items: list[Item]) -> np.ndarray:
    """uint8 [n, S, S, 3], all pictures of a tree in its order. Raises UsageError for pictures of
    more than one size."""
    folder = pathlib.Path(folder)
    files = [file for it in items for file in it.files]
    with Image.open(folder / files[0]) as image:
        side = image.width
    faults = {file: trees.picture_problem(folder / file, side) for file in files}
    wrong = [f"{file}: {why}" for file, why in faults.items() if why]
    trees.refuse(folder, "pictures that cannot be graded", wrong, "Draw them again.")
    return np.stack([np.asarray(Image.open(folder / file).convert("RGB")) for file in files])


def grade(folder: pathlib.Path, items: list[Item]) -> bytes:
    """A JSON object a picture: its file, what the detector found in it and what of that is right,
    and what of a true picture of its prompt is. Raises UsageError for pictures of more than one
    size."""
    detector = items[0].facts["detector"]
    drawn = _drawn(folder, items)
    found = iter(detector.read(drawn))
    true = detector.read(np.stack([true_picture(it, drawn.shape[1]) for it in items]))
    lines = []
    for it, render in zip(items, true):
        prompt = it.facts["prompt"]
        for file in it.files:
            seen = next(found)
            right = prompt.fits(seen)
            row = {
                "filename": file, "prompt": it.prompt, "correct": right["overall"], "found": told(seen),
                "right": right, RENDERS: prompt.fits(render) | {"found": matched(prompt.scene, render)},
                "of": len(prompt.scene.drawings),
            }  # fmt: skip
            lines.append(f"{json.dumps(row)}\n")
    return "".join(lines).encode()


def told(found: Scene) -> str:
    """ "2 small apple, 1 large cat on blue"."""
    counts = {}
    for d in found.drawings:
        counts[d.size, d.thing] = counts.get((d.size, d.thing), 0) + 1
    groups = [f"{n} {size} {thing}" for (size, thing), n in counts.items()]
    return f"{', '.join(groups) or 'nothing'} on {found.ground}"


def matched(scene: Scene, found: Scene) -> int:
    """How many drawings of a scene are found: by their thing, the centre within half a side."""
    left = list(found.drawings)
    count = 0
    for d in scene.drawings:
        near = [
            f
            for f in left
            if f.thing == d.thing and max(abs(f.x - d.x), abs(f.y - d.y)) < d.side / 2
        ]
        if near:
            left.remove(near[0])
            count += 1
    return count


def results(path: pathlib.Path, items: list[Item], protocol: str) -> list[dict[str, float]]:
    """Of what `grade` gives: "SPLIT/ASPECT/right" and "SPLIT/ASPECT/pictures", the same of
    "renders", "overall/..." of both splits, and "renders/found/...", counted in things."""
    fields = {"filename": str, "correct": bool, "right": dict, RENDERS: dict, "of": int}
    rows = trees.read_jsonl(path, "what is in the drawings", fields)
    files = [file for it in items for file in it.files]
    found = [(row["filename"], row) for _, _, row in rows]
    by_file = trees.one_each(path, "the pictures that were graded", found, files)
    units = []
    for it in items:
        unit = {}
        for row in (by_file[file] for file in it.files):
            true = dict(row[RENDERS])
            _add(unit, f"{RENDERS}/found", true.pop("found"), row["of"])
            _add(unit, "overall", row["correct"], 1)
            for group, right in ((it.category, row["right"]), (RENDERS, true)):
                for aspect, value in right.items():
                    _add(unit, f"{group}/{aspect}", value, 1)
        units.append(unit)
    return units


def _add(unit: dict, name: str, right: float, of: float):
    unit[f"{name}/right"] = unit.get(f"{name}/right", 0.0) + right
    unit[f"{name}/pictures"] = unit.get(f"{name}/pictures", 0.0) + of


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """The share of pictures of which the things, counts, sizes, ground, relation and all are right,
    of either half; of the detector on true pictures, with the share of things that it finds; and of
    all pictures, 0 to 1."""
    found = trees.shares(sums, "right", "pictures")
    groups = (*scenes_tests.SPLITS, RENDERS)
    names = [f"{group}/{aspect}" for group in groups for aspect in scenes_tests.ASPECTS]
    names += [f"{RENDERS}/found", "overall"]
    return {name: found[name] for name in names if name in found}


def fixed_scores(folder: pathlib.Path, items: list[Item]) -> dict[str, float]:
    """The Fréchet distance of the drawings and true pictures of the same prompts, one of each for
    each drawing, in the detector's features. Says where there are too few for it."""
    features = items[0].facts["detector"].features()
    drawn = _drawn(folder, items)
    true = [true_picture(it, drawn.shape[1]) for it in items for _ in it.files]
    sides = []
    for name, pictures in (("drawings", drawn), (RENDERS, np.stack(true))):
        moments = Moments(name)
        moments.add(features.extract(pictures))
        sides.append(moments.statistics())
    if note := too_few(sides[0]):
        print(f"WARNING: {features.title}: {note}")
    return {features.title: frechet_distance(*sides)}


def chance(items: list[Item]) -> dict[str, float]:
    """How often a true picture of one prompt fits another of the same kind, of either half."""
    sums = {}
    groups = {}
    for it in items:
        groups.setdefault(_kind(it), []).append(it.facts["prompt"])
    for (split, _), prompts in groups.items():
        for k, prompt in enumerate(prompts):
            for other in prompts[k + 1 : k + 20]:
                right = prompt.fits(other.scene)
                _add(sums, "overall", right["overall"], 1)
                for aspect, value in right.items():
                    _add(sums, f"{split}/{aspect}", value, 1)
    return trees.shares(sums, "right", "pictures")


def tokenizer(model, items: list[Item]) -> float:
    """The share of true pictures that the detector still reads rightly after the tokenizer's encode
    and decode."""
    side = model.config.generation_encoder.image_size
    right = []
    for begin in range(0, len(items), TOGETHER):
        some = items[begin : begin + TOGETHER]
        true = np.stack([true_picture(it, side) for it in some])
        back = np.clip((toy.through_tokenizer(model, true) + 1) / 2 * 255, 0, 255).astype(np.uint8)
        found = items[0].facts["detector"].read(back)
        right += [it.facts["prompt"].fits(one)["overall"] for it, one in zip(some, found)]
    return trees.mean_of(right)
