"""A small data set of pictures and captions, and what a label makes of it."""

import json
import pathlib

from PIL import Image
from support.sampling import picture

from janus_jax.common.progress import Progress
from janus_jax.config.schema import Dataset
from janus_jax.data import catalog
from janus_jax.sample import label

CAPTIONS = ["a red circle", "two blue squares", "a cross", "a yellow triangle above a red cross"]


def photos(root: pathlib.Path, count: int, **more) -> Dataset:
    """`count` pictures of noise with a caption each. more: fields of the data set's line."""
    (root / "photos").mkdir(parents=True)
    lines = []
    for i in range(count):
        picture(i).save(root / "photos" / f"{i}.png")
        record = {"image": f"{i}.png", "caption": CAPTIONS[i % 4], "number": i}
        lines.append(json.dumps(record))
    (root / "captions.jsonl").write_text("\n".join(lines))
    given = {"kind": "generation", "path": str(root / "captions.jsonl")}
    return Dataset(**given | {"images": str(root / "photos")} | more)


def opened(line: Dataset, **how):
    return catalog.open_dataset(line, 16, 0, **how)


def labelling(line: Dataset, folder: pathlib.Path, batch: int = 4, **how) -> label.Labelling:
    """Of all records of a line; a field "new"."""
    folder.mkdir(exist_ok=True)
    source = opened(line, **how)
    return label.Labelling(source, len(source), folder, "new", batch)


def run(job: label.Labelling, read, apply, shares: int = 1):
    """All shares, one after the other, and the records of them."""
    for index in range(shares):
        label.label_share(job, read, apply, (index, shares), 2, Progress("test", 0))
    label.gather(job)


def records(job: label.Labelling) -> list[dict]:
    return [json.loads(line) for line in (job.folder / label.RECORDS).read_text().splitlines()]


def bad(job: label.Labelling) -> list[dict]:
    return [json.loads(line) for line in (job.folder / label.BAD_RECORDS).read_text().splitlines()]


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pixels(source, i: int) -> bytes:
    image = source.image(i)
    return (image if isinstance(image, Image.Image) else Image.fromarray(image)).tobytes()
