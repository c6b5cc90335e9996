"""The Fréchet distance of two folders of pictures, or of their statistics."""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from janus_jax.common import cli, provenance
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.progress import Progress
from janus_jax.common.text import differences, listed, short
from janus_jax.eval import record
from janus_jax.eval.features import (
    Features,
    inception_features,
    pixel_features,
    understanding_features,
)
from janus_jax.eval.frechet import (
    Moments,
    Statistics,
    frechet_distance,
    read_statistics,
    save_statistics,
    too_few,
)
from janus_jax.eval.resizers import ENTRANCES, RESIZERS, named

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


def distance_command(f, _):
    """The command."""
    cli.log_to_stderr("warning")
    folder = pathlib.Path(f.pictures)
    of_result = (folder / provenance.SETTINGS).is_file()
    report = record.read_report(folder) if of_result else None
    made = "reconstructions" if (folder / "reconstructions").is_dir() else "pictures"
    tree = folder / made if of_result else folder
    stored = all(str(path).endswith(".npz") for path in (tree, f.reference))
    features = None if stored else _features(f)
    reference = f.reference
    if f.save:
        if features is None or not pathlib.Path(reference).is_dir():
            raise UsageError(f"--save={f.save}: is for a --reference of pictures; leave it out")
        made = folder_statistics(reference, features, f.reference_resizer or f.resizer)
        save_statistics(f.save, made)
        reference = f.save
    found = distance(tree, reference, features, f.resizer, f.reference_resizer)
    print(
        f"{found.title}: {found.value:.6g} ({found.counts[0]:,} pictures, {found.counts[1]:,} of the reference)"
    )
    for note in found.notes:
        print(f"WARNING: {note}")
    if report is None:
        return
    score = {"value": found.value, "interval": None, "chance": None, "of": found.counts[0]}
    report |= {
        "headline": found.title,
        "scores": report["scores"] | {found.title: score},
        "scorer": {
            "name": "janus_jax", **found.facts, "reference": pathlib.Path(f.reference).name,
            "reference_pictures": found.counts[1], "notes": list(found.notes),
        },
    }  # fmt: skip
    record.write(folder, report)
    print(f"{folder}: report.md, report.json")


def _features(f) -> Features:
    if f.features == "pixels":
        return pixel_features()
    if f.features == "inception":
        if not f.inception:
            raise UsageError(
                "--inception: missing; name the file of FID's weights (pt_inception-2015-12-05-*.pth "
                "of pytorch-fid, weights-inception-2015-12-05-*.pth of torch-fidelity, or "
                "inception-2015-12-05.pt of clean-fid), or give --features=pixels"
            )
        return inception_features(f.inception, f.entrance)
    if not f.model:
        raise UsageError("--model: missing; its understanding encoder is what sees the pictures")
    from janus_jax.sample import understand
    from janus_jax.weights.load import load
    from janus_jax.weights.source import open_source

    model, processor = load(f.model)
    side = model.config.understanding_encoder.image_size
    mark = provenance.weights_hash(*open_source(f.model).paths)
    see = functools.partial(understand.features, model)
    return understanding_features(see, side, processor, weights_sha256=mark)


def define_flags(into):
    """The command's flags, in absl's `into`."""
    define = cli.Definer(into)
    about = "The folder of a result, or any folder of pictures, or statistics (.npz)."
    define.path("pictures", None, about, required=True)
    define.path("reference", None, "A folder of pictures, or statistics (.npz).", required=True)
    about = "What sees them; only Inception's is called FID."
    define.choice("features", "inception", ("inception", "pixels", "understanding"), about)
    define.path("inception", None, "The file of Inception's weights; it is not downloaded.")
    define.choice("entrance", "clean-fid", sorted(ENTRANCES), "Whose 299 x 299 Inception is given.")
    about = "What is done to the pictures before."
    define.choice("resizer", "none", sorted(RESIZERS), about)
    define.choice(
        "reference_resizer", "", ["", *sorted(RESIZERS)], "To the reference; else the same."
    )
    define.output("save", None, "Keeps the reference's statistics in this file, to be given later.")
    define.path("model", None, "With --features=understanding: whose encoder.")


COMMAND = cli.Command(
    "python -m janus_jax.eval distance",
    "The Fréchet distance of two folders of pictures; of a result it goes into the report.",
    "python -m janus_jax.eval distance --pictures=scores/coco --reference=val2014 "
    "--inception=inception-2015-12-05.pt --resizer=bicubic-256 --reference_resizer=gigagan-256",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words after `distance`: two folders, then flags; or flags alone."""
    if len(argv) > 1 and not any(word.startswith("-") for word in argv[:2]):
        argv = [f"--pictures={argv[0]}", f"--reference={argv[1]}", *argv[2:]]
    return cli.run(COMMAND, distance_command, argv)
