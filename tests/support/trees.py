"""Twelve prompts in each benchmark's own form, and trees of small pictures of them."""

import csv
import json
import pathlib

import numpy as np
from PIL import Image

from janus_jax.eval import benchmark

SIDE = 8
NUMBERS = ("two", "three")
THINGS = ("bench", "cow", "kite", "clock", "zebra", "bowl")


def geneval_rows() -> list[dict]:
    """Two prompts of each of the six tasks."""
    rows = []
    for k in range(2):
        a, b = THINGS[k], THINGS[k + 2]
        one = {"class": a, "count": 1}
        many = {"class": a, "count": k + 2}
        placed = {"class": b, "count": 1, "position": ["left of", 0]}
        rows += [
            {"tag": "single_object", "include": [one], "prompt": f"a photo of a {a}"},
            {
                "tag": "two_object",
                "include": [one, {"class": b, "count": 1}],
                "prompt": f"a photo of a {a} and a {b}",
            },
            {
                "tag": "counting",
                "include": [many],
                "exclude": [{"class": a, "count": k + 3}],
                "prompt": f"a photo of {NUMBERS[k]} {a}s",
            },
            {
                "tag": "colors",
                "include": [one | {"color": "red"}],
                "prompt": f"a photo of a red {a}",
            },
            {
                "tag": "position",
                "include": [one, placed],
                "prompt": f"a photo of a {b} left of a {a}",
            },
            {
                "tag": "color_attr",
                "include": [one | {"color": "red"}, {"class": b, "count": 1, "color": "blue"}],
                "prompt": f"a photo of a red {a} and a blue {b}",
            },
        ]
    return sorted(rows, key=lambda row: list(ORDER).index(row["tag"]))


ORDER = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


def geneval2_rows() -> list[dict]:
    rows = []
    for k in range(12):
        a = THINGS[k % 6]
        number = NUMBERS[k // 6]
        asked = [[f"How many {a}s are in the image?", number], [f"Are the {a}s red?", "Yes"]]
        asked += [[f"Are there any {a}s in the image?", "Yes"]]
        skills = ["count", "attribute", "object"]
        rows.append({
            "prompt": f"{number} red {a}s", "atom_count": 3 + k % 2, "vqa_list": asked,
            "skills": skills,
        })  # fmt: skip
    return rows


DPG_COLUMNS = (
    "item_id", "text", "keywords", "proposition_id", "dependency", "category_broad",
    "category_detailed", "tuple", "question_natural_language",
)  # fmt: skip
T2I = ("color", "shape", "texture", "spatial", "3d_spatial", "numeracy", "non_spatial", "complex")
DPG_QUESTIONS = (
    ("1", "0", "entity - whole (bench)", "Is there a bench?"),
    ("2", "1", "attribute - color (bench, red)", "Is the bench red?"),
    ("3", "1, 2", "entity - part (bench's back)", "Does the bench have a back?"),
)
DPG_IDS = ("partiprompts97", "0", "171", *(f"COCOval2014000000{k:06}" for k in range(9)))


def write(name: str, root: pathlib.Path, *protocol: str) -> pathlib.Path:
    """The prompts' file or folder of a benchmark, twelve prompts in its own form."""
    return globals()[f"_{name}"](root, *protocol)


def lines(path: pathlib.Path, rows) -> pathlib.Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _geneval(root):
    return lines(root / "evaluation_metadata.jsonl", geneval_rows())


def _geneval2(root):
    return lines(root / "geneval2_data.jsonl", geneval2_rows())


def _dpg(root):
    (folder := root / "dpg_bench" / "prompts").mkdir(parents=True)
    with open(root / "dpg_bench" / "dpg_bench.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(DPG_COLUMNS)
        for name in DPG_IDS:
            text = f'A red bench, number {name}, with a "back"; ' + "calm, " * 300
            (folder / f"{name}.txt").write_text(text + "\n" * (name == "0"))
            for number, parents, asked, question in DPG_QUESTIONS:
                out.writerow([name, text, "", number, parents, "", "", asked, question])
    return folder


WISE_IDS = (1, 2, 3, 401, 402, 530, 531, 641, 642, 761, 881, 882)
LEGACY_IDS = (1, 2, 3, 401, 402, 568, 569, 701, 702, 801, 901, 902)
WISE_NAMES = {
    "culture": "Cultural knowledge", "time": "time", "space": "Space", "biology": "Biology",
    "physics": "Physical Knowledge", "chemistry": "Chemistry",
}  # fmt: skip
_CATEGORIES = ("culture",) * 3 + ("time",) * 2 + ("space",) * 2 + ("biology",) * 2
WISE_CATEGORIES = (*_CATEGORIES, "physics", "chemistry", "chemistry")


def _wise(root, protocol="verified"):
    (folder := root / "data_verified").mkdir()
    ids = WISE_IDS if protocol == "verified" else LEGACY_IDS
    ending = "_verified.json" if protocol == "verified" else ".json"
    stems = ("cultural_common_sense", "spatio-temporal_reasoning", "natural_science")
    for stem, part in zip(stems, (slice(0, 3), slice(3, 7), slice(7, 12))):
        rows = [
            {
                "Prompt": f"What is seen at {i}/{i}_of\nthe clock",
                "Explanation": "a clock",
                "Category": WISE_NAMES[category],
                "Subcategory": "Life",
                "prompt_id": i,
            }
            for i, category in zip(ids[part], WISE_CATEGORIES[part])
        ]
        (folder / f"{stem}{ending}").write_text(json.dumps(rows, indent=2))
    return folder


def _t2i_compbench(root):
    (folder := root / "dataset").mkdir()
    for k, name in enumerate(T2I):
        count = 2 if k < 4 else 1
        text = "\r\n".join(f"a {name.replace('_', ' ')} bench, {n}." for n in range(count))
        (folder / f"{name}_val.txt").write_text(text, newline="")
    return folder


def _coco30k(root):
    path = root / "captions.csv"
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["image_id", "text"])
        for k in range(12):
            out.writerow([1000 + k % 11, f'A "cow", {k // 2} and/or a_kite\nby the sea '])
    return path


def _mjhq30k(root):
    folders = ("animals", "art", "people")
    rows = {f"{k:040x}": {"category": folders[k % 3], "prompt": f"a cow, {k}"} for k in range(12)}
    (root / "meta_data.json").write_text(json.dumps(rows))
    return root / "meta_data.json"


def draw(module, items, folder: pathlib.Path, side: int = SIDE):
    """The whole tree: pictures of noise, a seed each, and what lies beside them."""
    for seed, item in enumerate(items):
        count = item.facts.get("pictures", len(item.files))
        rng = np.random.default_rng(seed)
        noise = rng.integers(0, 256, (count, side, side, 3), np.uint8)
        for file, picture in zip(item.files, module.compose([Image.fromarray(p) for p in noise])):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / file)
    for name, content in module.beside(items, folder).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def drawn(name: str, root: pathlib.Path, pictures: int = 0, protocol: str = ""):
    """(module, items, folder) of a benchmark's twelve prompts with their tree."""
    module = benchmark.load("generation", name)
    protocol = protocol or module.PROTOCOLS[0]
    items = module.read(str(write(name, root)), pictures or module.PICTURES, protocol)
    draw(module, items, root / "tree")
    return module, items, root / "tree"
