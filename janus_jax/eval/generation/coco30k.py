"""COCO-30K: 30,000 captions of MS-COCO val2014, one picture each, and the Fréchet distance to the
data set's own pictures.

There is no list that all use, so the list belongs to the score. The tree is that of
mingukkang/GigaGAN's evaluation/evaluation.py (commit 9fba242), which FoundationVision/LlamaGen has
too: images/*.png and captions.txt, line by line.
"""

import csv
import io
import pathlib
import shlex
from collections.abc import Mapping

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import short
from janus_jax.eval import trees
from janus_jax.eval.benchmark import Item

ABOUT = "COCO-30K: 30,000 captions of val2014, the Fréchet distance to its pictures at 256 pixels"
HEADLINE = "frechet_distance"
PROTOCOLS = ("coco30k",)
PICTURES = 1
_IDS = ("uid", "image_id", "id")
_CAPTIONS = ("caption", "text", "Prompt", "prompt")


def read(path: str, pictures: int, protocol: str) -> list[Item]:
    """A CSV with a header: a column uid, image_id or id, or none, and one caption, text or Prompt.
    Such are the lists of boomb0om/text2image-benchmark (image_id, text) and of LlamaGen, whose one
    column Prompt holds bare commas. Columns may stand between tabs too."""
    what = "a list of captions"
    text = trees.read_text(path, what)
    # Of one column there is nothing to part at commas; LlamaGen reads its list with tabs as well.
    delimiter = "," if "," in text.partition("\n")[0] else "\t"
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    names = reader.fieldnames or []
    identity = next((name for name in _IDS if name in names), None)
    caption = next((name for name in _CAPTIONS if name in names), None)
    if not caption:
        header = short(", ".join(map(str, names)), 80)
        raise UsageError(f"{path}: columns {header}; one of {', '.join(_CAPTIONS)} is needed")
    rows = []
    problems = []
    for n, row in enumerate(reader):
        where = f"row {n + 1}"
        if None in row:
            told = short(delimiter.join(row[None]), 80)
            problems.append(f"{where}: more columns than the header, {told!r}; quote the caption")
        uid = row[identity] if identity else str(n)
        rows.append((where, uid, row[caption] or ""))
    problems += trees.prompt_problems((where, where, prompt) for where, _, prompt in rows)
    problems += [f"{where}: no {identity}; give one" for where, uid, _ in rows if not uid]
    trees.refuse(path, what, problems)
    items = [
        Item(prompt, (f"images/{n:05}.png",), facts={"uid": uid})
        for n, (_, uid, prompt) in enumerate(rows)
    ]
    return trees.require(items, path, pictures, allowed=(1,))


def compose(pictures: list) -> list:
    return pictures


def beside(items: list[Item], folder: pathlib.Path) -> dict[str, bytes]:
    """prompts.csv, uid and caption in the order of the pictures, to be published with the score;
    and captions.txt, a line each, white space made one blank."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([("uid", "caption"), *((it.facts["uid"], it.prompt) for it in items)])
    lines = "".join(f"{' '.join(it.prompt.split())}\n" for it in items)
    return {"prompts.csv": table.getvalue().encode(), "captions.txt": lines.encode()}


def traps(folder: pathlib.Path, items: list[Item]) -> list[str]:
    """None of its own: the distance is over whatever pictures lie there, so a missing and a surplus
    one change it without a word, and captions are paired with pictures by their order."""
    return []


def command(folder: pathlib.Path, side: int, protocol: str) -> str:
    return f"""# In evaluation/ of mingukkang/GigaGAN at 9fba242, installed as its README says; COCO: a folder
# with val2014/ and annotations/. It crops and resizes to 256 by Lanczos; Janus's authors, by bicubic
# from 384 (deepseek-ai/Janus#22).
python evaluation.py --how_many 30000 --ref_data coco2014 --ref_dir COCO --ref_type val2014 \\
  --fake_dir {shlex.quote(str(pathlib.Path(folder).resolve()))} --eval_res 256 --batch_size 64
# Or here, by a file of Inception's weights:
janus-jax eval distance {shlex.quote(str(pathlib.Path(folder).resolve().parent))} COCO/val2014 --inception=FILE \\
  --resizer=bicubic-256 --reference_resizer=gigagan-256"""


def results(path: pathlib.Path, items: list[Item], protocol: str) -> list[dict[str, float]]:
    raise UsageError(
        f"{path}: a Fréchet distance is over all pictures together and has no score a prompt; it is "
        "measured from the tree and the reference pictures"
    )


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """Nothing: see results."""
    return {}
