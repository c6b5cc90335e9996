"""MJHQ-30K: 3,000 prompts in each of ten categories, and the Fréchet distance to chosen pictures of
Midjourney.

meta_data.json and the folders are those of the hub's data set playgroundai/MJHQ-30K; how others
measure: metauto-ai/Pollux, apps/t2i_evaluation/MJHQ-30k/README.md.
"""

import json
import pathlib
import shlex

from janus_jax.eval import trees
from janus_jax.eval.benchmark import Item
from janus_jax.eval.generation import coco30k

ABOUT = "MJHQ-30K: 30,000 prompts in ten categories, the Fréchet distance to Midjourney's pictures"
HEADLINE = "frechet_distance"
PROTOCOLS = ("mjhq30k",)
PICTURES = 1
CATEGORIES = (
    "animals", "art", "fashion", "food", "indoor", "landscape", "logo", "people", "plants",
    "vehicles",
)  # fmt: skip
results = coco30k.results  # a distance alone
scores = coco30k.scores


def read(path: str, pictures: int, protocol: str) -> list[Item]:
    """meta_data.json: {id: {"category", "prompt"}}, in its order."""
    what = "MJHQ-30K's prompts"
    rows = trees.read_json(path, what, dict)
    fields = {"category": str, "prompt": str}
    problems = [p for name, row in rows.items() for p in trees.missing(f"id {name}", row, fields)]
    trees.refuse(path, what, problems)
    problems = trees.prompt_problems((f"id {n}", n, row["prompt"]) for n, row in rows.items())
    for name, row in rows.items():
        if why := trees.name_problem(f"{name}.png"):
            problems.append(f"id {name!r}: {why}")
        if row["category"] not in CATEGORIES:
            problems.append(f"id {name}: category {row['category']!r} is none of the ten folders")
    trees.refuse(path, what, problems)
    items = [
        Item(row["prompt"], (f"{row['category']}/{name}.png",), row["category"], {"id": name})
        for name, row in rows.items()
    ]
    return trees.require(items, path, pictures, allowed=(1,))


def compose(pictures: list) -> list:
    return pictures


def beside(items: list[Item], folder: pathlib.Path) -> dict[str, bytes]:
    """meta_data.json of these prompts."""
    meta = {it.facts["id"]: {"category": it.category, "prompt": it.prompt} for it in items}
    return {"meta_data.json": json.dumps(meta, indent=1, ensure_ascii=False).encode()}


def traps(folder: pathlib.Path, items: list[Item]) -> list[str]:
    """The distance is over whatever pictures lie there, in any folder of the tree."""
    places = {it.category for it in items}
    return [
        f"{file}: clean-fid would count it; take it out of the tree"
        for file in sorted(trees.pictures_in(folder))
        if file.rpartition("/")[0] not in places
    ]


def command(folder: pathlib.Path, side: int, protocol: str) -> str:
    tree = shlex.quote(str(pathlib.Path(folder).resolve()))
    return f"""# clean-fid 0.1.35 looks into folders of folders; MJHQ: the unpacked mjhq30k_imgs. pytorch-fid
# does not: copy each side into one folder first, names are unique. The benchmark is of 1024 pixels:
# say with the score which side was resized from {side}, and how.
FID="import sys; from cleanfid import fid; print(fid.compute_fid(*sys.argv[1:]))"
python -c "$FID" MJHQ {tree}
for c in {" ".join(CATEGORIES)}; do echo $c; python -c "$FID" MJHQ/$c {tree}/$c; done
# Or here, by a file of Inception's weights:
janus-jax eval distance {shlex.quote(str(pathlib.Path(folder).resolve().parent))} MJHQ --inception=FILE"""
