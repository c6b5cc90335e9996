"""A data set with one of each fault, and one without any: for the commands about data."""

import json
import os
import pathlib
import subprocess
import sys

from PIL import Image
from skimage import data as photographs

from janus_jax.config.schema import Dataset
from janus_jax.data import catalog
from janus_jax.data.tools import shards

from .paths import ROOT

# What every line of the planted file after the good ones is to be called; None where it can be
# used.
PLANTED = (
    ("truncated.jpg", "damaged"), ("zero.jpg", "empty file"), ("page.jpg", "web page"), ("gone.jpg", "missing file"),
    ("copy.jpg", None), ("smaller.jpg", None), ("cmyk.jpg", None), ("line.png", None),
)  # fmt: skip
FAULTS = {
    **{5 + k: cause for k, (_, cause) in enumerate(PLANTED) if cause},
    13: "blank caption", 14: "outside the folder", 15: "unknown role", 16: "not JSON",
}  # fmt: skip


def photos() -> dict[str, Image.Image]:
    """Name -> RGB photograph."""
    names = ("astronaut", "coffee", "chelsea", "rocket")
    return {name: Image.fromarray(getattr(photographs, name)()) for name in names}


def planted(root: pathlib.Path) -> Dataset:
    """A JSON-lines file and a folder with one of each fault."""
    pictures, photo_of = root / "pictures", photos()
    pictures.mkdir()
    for name, photo in photo_of.items():
        photo.save(pictures / f"{name}.jpg", quality=92)
    whole = (pictures / "coffee.jpg").read_bytes()
    (pictures / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "zero.jpg").write_bytes(b"")
    (pictures / "page.jpg").write_bytes(b"<!DOCTYPE html><html><body>404</body></html>")
    (pictures / "copy.jpg").write_bytes((pictures / "rocket.jpg").read_bytes())
    photo_of["astronaut"].resize((200, 200), Image.Resampling.LANCZOS).save(
        pictures / "smaller.jpg", quality=70
    )
    photo_of["chelsea"].convert("CMYK").save(pictures / "cmyk.jpg", quality=95)
    Image.new("RGB", (1, 5000), (200, 30, 30)).save(pictures / "line.png")
    records = [{"image": f"{name}.jpg", "caption": f"this is {name}"} for name in photo_of]
    records += [{"image": name, "caption": f"planted as {name}"} for name, _ in PLANTED]
    records += [
        {"image": "rocket.jpg", "caption": " \t"},
        {"image": "../../etc/passwd", "caption": "escape"},
        {"image": "rocket.jpg", "conversations": [
            {"from": "human", "value": "What?"}, {"from": "narrator", "value": "A rocket."},
        ]},
    ]  # fmt: skip
    lines = [json.dumps(record) for record in records] + ['{"image": "rocket.jpg", "caption": "bro']
    (root / "all.jsonl").write_text("\n".join(lines) + "\n")
    return Dataset("understanding", str(root / "all.jsonl"), images=str(pictures))


def plain(root: pathlib.Path) -> Dataset:
    """A hundred small records without a fault, of 20 kB together."""
    pictures, photo = root / "pictures", photos()["coffee"]
    pictures.mkdir()
    for k in range(100):
        photo.crop((4 * k, 2 * k, 4 * k + 40 + k, 2 * k + 60)).save(pictures / f"{k}.jpg")
    records = [
        {"image": f"{k}.jpg", "caption": f"crop {k}", "extra": {"number": k}} for k in range(100)
    ]
    (root / "plain.json").write_text(json.dumps(records))
    return Dataset("generation", str(root / "plain.json"), images=str(pictures))


def job(line: Dataset, out, count: int = 4, max_side: int = 0) -> shards.Job:
    source = catalog.open_dataset(line, 384, 0)
    return shards.Job(source, line.kind, pathlib.Path(out), "data", count, max_side)


def files(directory) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(pathlib.Path(directory).iterdir())}


def start(command: str, *flags: str, **more) -> subprocess.Popen:
    """`python -m janus_jax.data COMMAND`, begun."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "janus_jax.data", command, *flags], env=environment, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip
