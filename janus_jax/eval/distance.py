"""The Fréchet distance of two folders of pictures, or of their statistics."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.progress import Progress
from janus_jax.common.text import differences, listed, short
from janus_jax.eval.features import Features
from janus_jax.eval.frechet import (
    Moments,
    Statistics,
    frechet_distance,
    read_statistics,
    too_few,
)
from janus_jax.eval.resizers import RESIZERS, named

SUFFIXES = {
    ".bmp",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
}  # clean-fid's
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # other readers of Pillow start programs
MOST_PROBLEMS = 20


@dataclasses.dataclass(frozen=True)
class Distance:
    """What came out, and how.

    Args:
        title: "FID", or what it is over instead.
        value: the squared distance.
        counts: pictures on both sides; 0 where statistics do not say.
        facts: the features, the entrance, both resizers, the hash of the weights.
        notes: what a reader must know before comparing the value with another.
    """

    title: str
    value: float
    counts: tuple[int, int]
    facts: Mapping
    notes: tuple[str, ...]


def distance(
    a, b, features: Features | None, resizer: str = "none", reference_resizer: str = "", out=None
) -> Distance:
    """The distance of pictures and a reference.

    Args:
        a: the pictures: a folder, or an .npz file of statistics.
        b: the reference, likewise.
        features: what the pictures are seen by; None where both sides are statistics.
        resizer: of `a`, one of `resizers.RESIZERS`.
        reference_resizer: of `b`, where it is another. (Janus's FID on COCO: bicubic-256 for the
            drawings, gigagan-256 for the photographs.)
        out: where the progress goes, by default stderr.

    Raises UsageError for a side that is neither, for pictures that cannot be read, all named, and
    for statistics that were made in another way than they are compared in.
    """
    sides = (a, resizer), (b, reference_resizer or resizer)
    found = [_side(path, features, name, out) for path, name in sides]
    notes = [note for side in found if (note := too_few(side))]
    for side in found:
        if not side.facts:
            notes.append(f"{side.name} does not say with which features and resizer it was made")
    title = _title(features, found)
    facts = dict(features.facts if features else found[0].facts)
    for own in ("resizer", "title"):
        facts.pop(own, None)
    facts["resizers"] = [side.facts.get("resizer", "unknown") for side in found]
    value = frechet_distance(*found)
    return Distance(title, value, (found[0].count, found[1].count), facts, tuple(notes))


def _title(features: Features | None, sides: list[Statistics]) -> str:
    if features is not None:
        return features.title
    told = [side.facts.get("title") for side in sides]
    known = [{k: v for k, v in s.facts.items() if k != "resizer"} for s in sides if s.facts]
    if len(known) == 2 and known[0] != known[1]:
        raise _other_facts(sides[1].name, known[1], known[0])
    return told[0] if None not in told else "Fréchet distance (features unknown)"


def _side(path, features: Features | None, resizer: str, out) -> Statistics:
    path = pathlib.Path(path)
    if path.is_dir():
        if features is None:
            raise UsageError(f"{path}: pictures need features; name Inception's weights, or others")
        return folder_statistics(path, features, resizer, out)
    found = read_statistics(path)
    due = _facts(features, resizer) if features else {}
    if features and found.facts and dict(found.facts) != due:
        raise _other_facts(str(path), found.facts, due)
    return found


def _other_facts(name: str, stored: Mapping, due: Mapping) -> UsageError:
    wrong = differences(dict(stored), dict(due))
    return UsageError(
        f"{name}: statistics that were made in another way; stored -> asked for:{listed(wrong)}\n"
        f"make them anew, or ask for what they are"
    )


def _facts(features: Features, resizer: str) -> dict:
    return {**features.facts, "title": features.title, "resizer": resizer}


def folder_statistics(folder, features: Features, resizer: str = "none", out=None) -> Statistics:
    """Of all pictures of a folder and of the folders in it, in the order of their names; memory
    does not grow with them.

    Raises UsageError that names those which cannot be read: none is left out.
    """
    change = named(RESIZERS, resizer, "--resizer")
    folder = pathlib.Path(folder)
    paths = picture_files(folder)
    moments = Moments(str(folder))
    problems = []
    with Progress(f"features of {folder.name}", len(paths), "pictures", out=out) as progress:
        for start in range(0, len(paths), features.batch):
            batch = []
            for path in paths[start : start + features.batch]:
                try:
                    batch.append(np.asarray(change(_opened(path))))
                except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                    problems.append(f"{path}: cannot be read ({short(error, 120)})")
            if not problems:  # what is left is read for its own faults alone
                moments.add(features.extract(batch))
            if len(problems) > MOST_PROBLEMS:
                break
            progress(min(features.batch, len(paths) - start))
    if problems:
        raise UsageError(
            f"{folder}: pictures that cannot be read; none may be missing, so draw or copy them "
            f"again:{listed(problems)}"
        )
    return moments.statistics(_facts(features, resizer))


def picture_files(folder) -> list[pathlib.Path]:
    """The pictures of a folder and of the folders in it, by name; other files are passed over.
    Raises UsageError where there is none, and for links to folders, which are not followed."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of pictures")
    found = []
    others = collections.Counter()
    links = []
    for place, folders, names in os.walk(folder):
        links += [f"{place}/{name}" for name in folders if os.path.islink(f"{place}/{name}")]
        for name in names:
            path = pathlib.Path(place, name)
            if path.suffix.lower() in SUFFIXES:
                found.append(path)
            else:
                others[path.suffix or name] += 1
    if links:
        raise UsageError(
            f"{folder}: links to folders, which are not followed; copy the pictures, or name the "
            f"folder itself:{listed(sorted(links))}"
        )
    if not found:
        there = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        raise UsageError(
            f"{folder}: no picture ({', '.join(sorted(SUFFIXES))}) in it; it holds {there or 'nothing'}"
        )
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _opened(path: pathlib.Path) -> Image.Image:
    """A picture as clean-fid and pytorch-fid take it: RGB, neither turned nor blended."""
    with Image.open(path, formats=FORMATS) as picture:
        return picture.convert("RGB")
