"""Originals and their reconstructions, written part by part into a folder, and what was measured on
each.

A part is done when its file in parts/ is there, which is written last: a kill costs the parts in
work, two at most, and several processes share them.
"""

import collections
import dataclasses
import functools
import json
import pathlib
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from PIL import Image

from janus_jax.common import files
from janus_jax.common.contact_sheet import contact_sheet
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.progress import Progress
from janus_jax.common.text import listed
from janus_jax.data.image_pixels import ImageError, as_rgb
from janus_jax.data.images import generation_image
from janus_jax.data.tools.read_ahead import read_ahead
from janus_jax.distributed import shares

ORIGINALS, RECONSTRUCTIONS, PARTS = "originals", "reconstructions", "parts"
MOST_FAULTS = 20  # pictures that cannot be used, after which no more are looked for
PART = 64  # pictures
PAIRS = 18  # on the sheet


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The first `count` pictures of a source, as squares of `side` pixels.

    folder: where all of it goes.
    """

    source: object
    count: int
    side: int
    folder: pathlib.Path

    @property
    def parts(self) -> dict[str, range]:
        """The file of each part, below PARTS -> its records."""
        begins = range(0, self.count, PART)
        return {f"{i:06}.npz": range(i, min(i + PART, self.count)) for i in begins}

    def path(self, kind: str, i: int) -> pathlib.Path:
        """The file of picture `i`. kind: ORIGINALS or RECONSTRUCTIONS."""
        return self.folder / kind / f"{i:06}.png"

    def picture(self, i: int) -> np.ndarray:
        """uint8 [side, side, 3]. Raises RecordError, ImageError."""
        image = as_rgb(self.source.image(i))
        if min(image.size) < self.side:
            raise ImageError(
                f"{self.source.where(i)}: {image.width} x {image.height} pixels, and enlarged it would "
                f"be no original of {self.side}",
                cause="too small",
            )
        return generation_image(image, self.side)


def fill_pairs(pairs: Pairs, reconstructor, threads: int) -> bool:
    """Writes what of this process's share is not there yet, and waits for the others'. Returns
    whether anything of it was lacking.

    Args:
        pairs: what, and where.
        reconstructor: gives a `Reconstructor`; called only if anything is to be done.
        threads: that read and write pictures.

    Raises UsageError that names the pictures that cannot be used: none is left out. HostsError
    where another process has left word that it ends.
    """
    names = list(pairs.parts)[jax.process_index() :: jax.process_count()]
    todo = [name for name in names if not (pairs.folder / PARTS / name).is_file()]
    for kind in (ORIGINALS, RECONSTRUCTIONS, PARTS):
        (pairs.folder / kind).mkdir(parents=True, exist_ok=True)
    parts = [(name, pairs.parts[name]) for name in todo]
    faults = []
    computing = collections.deque()
    progress = Progress("reconstructed", sum(len(pairs.parts[name]) for name in names), "pictures")
    progress.skip(progress.total - sum(len(part) for _, part in parts))
    with progress, ThreadPoolExecutor(threads) as pool, shares.word_left(pairs.folder / PARTS):

        def keep():
            name, part, squares, found = computing.popleft()
            save(pairs, name, part, squares, found, pool)
            progress(len(part))

        for name, part, read in read_ahead(pairs.picture, parts, threads):
            faults += [str(x) for x in read if isinstance(x, Exception)]
            if len(faults) > MOST_FAULTS:
                break
            if not faults:  # the others are read for their own faults alone
                squares = np.stack(read)
                computing.append((name, part, squares, reconstructor()(squares)))
            if len(computing) > 1:
                keep()
        while computing:
            keep()
        if faults:
            raise UsageError(
                f"pictures that cannot be used, and none may be missing; mend them or take them out, "
                f"or give another --size:{listed(faults)}"
            )
    shares.wait(pairs.folder / PARTS, list(pairs.parts))
    return bool(todo)


def save(pairs: Pairs, name: str, part: range, squares, batches: list[dict], pool):
    """Writes a part's pictures, then its file."""
    found = {key: np.concatenate([b[key] for b in batches])[: len(part)] for key in batches[0]}

    def write(kind: str, i: int, square):
        files.write(pairs.path(kind, i), lambda out: Image.fromarray(square).save(out, "PNG"))

    for kind, some in ((ORIGINALS, squares), (RECONSTRUCTIONS, found.pop("pictures"))):
        list(pool.map(functools.partial(write, kind), part, some))
    files.write(pairs.folder / PARTS / name, lambda out: np.savez(out, **found))


def gather_pairs(pairs: Pairs, codes: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What was measured, name -> float32 [count], and how often each code occurs, [codes]. Writes
    pictures.jsonl."""
    measured = collections.defaultdict(list)
    counts = np.zeros(codes, np.int64)
    for name in pairs.parts:
        with np.load(pairs.folder / PARTS / name) as part:
            counts += np.bincount(part["ids"].ravel(), minlength=codes)
            for key in part.files:
                if key != "ids":
                    measured[key].append(part[key])
    measured = {key: np.concatenate(some) for key, some in measured.items()}
    lines = [
        {"index": i, "picture": pairs.source.where(i)}
        | {k: float(x[i]) for k, x in measured.items()}
        for i in range(pairs.count)
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    files.write(pairs.folder / "pictures.jsonl", text)
    return measured, counts


def pairs_sheet(pairs: Pairs, measured: dict[str, np.ndarray]) -> Image.Image:
    """Originals beside their reconstructions, from the worst PSNR to the best in even steps."""
    order = np.argsort(measured["psnr"])
    places = np.linspace(0, len(order) - 1, min(PAIRS, len(order))).round().astype(int)
    shown = []
    captions = []
    for i in order[places]:
        for kind in (ORIGINALS, RECONSTRUCTIONS):
            with Image.open(pairs.path(kind, i)) as picture:
                shown.append(picture.convert("RGB"))
        told = (("PSNR", "psnr", ".1f"), ("SSIM", "ssim", ".2f"), ("LPIPS", "lpips", ".3f"))
        told = [f"{title} {measured[k][i]:{form}}" for title, k, form in told if k in measured]
        captions += [f"original {i:06}", ", ".join(told)]
    columns = 6 if pairs.side <= 128 else 4
    return contact_sheet(shown, captions, columns, max(1, 128 // pairs.side))
