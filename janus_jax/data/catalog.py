"""Opens the data sets that a config names, and learns a tokenizer from their words when none is
given."""

import dataclasses
import functools
import os

from janus_jax.common.text import listed
from janus_jax.config.schema import FORMATS, KINDS, Dataset, Template
from janus_jax.data import image_ids, tokenizer
from janus_jax.data.detect import detect
from janus_jax.data.formats import sniff
from janus_jax.data.formats.array_record import ArrayRecords
from janus_jax.data.formats.coco import CocoCaptions, is_captions
from janus_jax.data.formats.csv_files import CsvFiles
from janus_jax.data.formats.folder import Folder
from janus_jax.data.formats.found import below, find, resolved
from janus_jax.data.formats.hub import HubDataset
from janus_jax.data.formats.image_folder import metadata
from janus_jax.data.formats.json_files import ENDINGS, JsonFiles
from janus_jax.data.formats.parquet import Parquet
from janus_jax.data.formats.tars import Tars
from janus_jax.data.formats.text_files import TextFiles
from janus_jax.data.formats.tfds import Tfds
from janus_jax.data.joined import Joined, paths_in
from janus_jax.data.records import Records
from janus_jax.data.sources import RecordError, Source, SourceError
from janus_jax.data.toy import shapes_edits, shapes_interleaved, shapes_sources

_READERS = {
    "json": lambda d: _json(d),
    "csv": lambda d: CsvFiles(d.path, d.images, d.score),
    "folder": lambda d: Folder(d.path, d.names),
    "webdataset": lambda d: Tars(d.path, d.names),
    "array_record": lambda d: ArrayRecords(d.path, d.images),
    "parquet": lambda d: Parquet(d.path, d.images),
    "text": lambda d: TextFiles(d.path),
    "text_files": lambda d: TextFiles(d.path, whole=True),
    "tfds": lambda d: Tfds(d.path.removeprefix("tfds:")),
    "hf": lambda d: HubDataset(d.path.removeprefix("hf:"), d.images),
}
_READ_BY = {  # fields of a line -> the formats that read them
    "images": ("json", "csv", "parquet", "array_record", "hf"),
    "names": ("folder", "webdataset"),
}
PRESETS = ("shapes", "emoji", "scenes", "solids")


def open_datasets(
    datasets: dict[str, Dataset], side: int, seed: int, needed=None, resized: int = 0
) -> dict[str, Source]:
    """Name -> source, for the names in `needed` (None: all). Raises SourceError with the problems
    of all of them.

    datasets: the lines of a config by name.
    side: pixels of pictures to generate.
    seed: order of the presets.
    needed: the names to open.
    resized: pixels of pictures to understand, when large JPEGs may come scaled down to what
        training needs; 0: all come whole.
    """
    sources = {}
    problems = []
    for name, dataset in datasets.items():
        if needed is None or name in needed:
            try:
                source = open_dataset(dataset, side, seed, resized)
                ids = os.path.expanduser(dataset.image_ids)
                sources[name] = image_ids.attach(source, ids) if ids else source
            except (SourceError, ImportError) as error:
                problems.append(f"data.datasets.{name}: {error}")
    if problems:
        raise SourceError("\n".join(problems))
    return sources


def open_dataset(
    dataset: Dataset, side: int, seed: int, resized: int = 0, bare: bool = False
) -> Source:
    """The source of one line of a config, without its image_ids; see open_datasets. bare: a folder's
    pictures need no captions. Raises SourceError, ImportError for an extra that is not installed.

    Where the line's `holdout` is a path, the source's `held_out` is the source of what lies there.
    """
    if isinstance(dataset.holdout, str) and dataset.holdout:
        trained = dataclasses.replace(dataset, holdout="")
        source = open_dataset(trained, side, seed, resized, bare)
        apart = dataclasses.replace(trained, path=dataset.holdout)
        try:
            source.held_out = open_dataset(apart, side, seed, resized, bare)
        except SourceError as error:
            raise SourceError(f"holdout: {error}") from None
        _require_apart(dataset)
        return source
    if dataset.kind not in KINDS:
        raise SourceError(f"kind is {dataset.kind!r}; give {', '.join(KINDS)}")
    if not dataset.path:
        raise SourceError(
            "path is empty; give a file, a pattern, a folder, or tfds:, hf:, shapes:, emoji:, "
            "scenes: and a name"
        )
    if len(paths := paths_in(dataset.path)) > 1:
        return _joined(dataset, paths, side, seed, resized, bare)
    preset, _, rest = dataset.path.partition(":")
    if preset in PRESETS and not os.path.exists(dataset.path):
        return _preset(preset, rest, dataset, side, seed)
    expanded = {name: os.path.expanduser(getattr(dataset, name)) for name in ("images", "names")}
    dataset = dataclasses.replace(dataset, **expanded)
    if dataset.images and not os.path.isdir(dataset.images):
        raise SourceError(f"images: no folder {dataset.images}; give the folder of the pictures")
    if not bare and dataset.format in ("", "folder") and (listed := metadata(dataset.path)):
        # It names its pictures below its folder.
        dataset = dataclasses.replace(dataset, path=listed, format="")
    format = dataset.format or detect(dataset.path)
    if format not in _READERS:
        raise SourceError(
            f"format is {format!r}; give {', '.join(FORMATS)}, or none to tell it from the path"
        )
    if format.startswith("text") and dataset.kind != "text":
        raise SourceError(
            f"{dataset.path}: plain text has no pictures, its kind is {dataset.kind}; use kind text, or give the "
            "folder of the pictures (format=folder where it holds folders of classes); a table or JSON in a .txt "
            "file is read with format=csv or format=json"
        )
    _require_read(dataset, format)
    is_bare = bare and format == "folder"
    reader = Folder(dataset.path, dataset.names, bare) if is_bare else _READERS[format](dataset)
    if format == "text" and not dataset.format and sniff.is_json(reader.files.paths[0]):
        raise SourceError(
            f"{dataset.path}: its lines are JSON; set format=json, or format=text if they are what is to be learned"
        )
    scaled = side if resized and dataset.kind == "generation" else resized
    return Records(reader, dataset, scaled)


def _require_read(d: Dataset, format: str):
    """Raises SourceError where a line gives what its format does not read."""
    for name, formats in _READ_BY.items():
        if getattr(d, name) and format not in formats:
            raise SourceError(
                f"{d.path}: {name} is {getattr(d, name)!r}, which format {format} does not read "
                f"({', '.join(formats)} do); leave it out (set it to nothing where a config gives it), or give this "
                f"path a line of its own"
            )


def _joined(dataset: Dataset, paths: list[str], *options) -> Joined:
    """The source of a line that names paths_in paths. Raises SourceError with the problems of all."""
    parts = {}
    problems = []
    for path in paths:
        try:
            parts[path] = open_dataset(dataclasses.replace(dataset, path=path), *options)
        except SourceError as error:
            problems.append(str(error))
    if problems:
        raise SourceError("\n".join(problems))
    return Joined(parts)


def _require_apart(dataset: Dataset):
    """Raises SourceError where a file of `holdout` is trained on."""
    held = _files_of(dataset.holdout)
    if both := sorted(held[real] for real in held.keys() & _files_of(dataset.path).keys()):
        raise SourceError(
            f"holdout is {dataset.holdout!r}, of which path {dataset.path!r} names the same: it would be "
            f"trained on and evaluated with; let path name only what to train on, or give holdout as "
            f"a share, such as 0.1:{listed(both)}"
        )


def _files_of(several: str) -> dict[str, str]:
    """What the paths of a line lead to -> as it is found: files, and names of what is no file."""
    out = {}
    for path in paths_in(several):
        folder = os.path.expanduser(path)
        if path.partition(":")[0] in ("hf", "tfds", *PRESETS):
            out[path] = path
        else:
            files = below(folder) if os.path.isdir(folder) else find(path, ())
            out |= resolved(files)
    return out


def _json(d: Dataset):
    """The reader of JSON files, or of one of COCO's. Raises SourceError."""
    found = find(d.path, ENDINGS)
    of_coco = [path for path in found if is_captions(path)]
    if of_coco and len(found) > 1:
        raise SourceError(
            f"{d.path}: {of_coco[0]} is one of COCO's files; give the paths of all with commas between them"
        )
    return CocoCaptions(d.path, d.images) if of_coco else JsonFiles(d.path, d.images)


def _preset(preset: str, rest: str, dataset: Dataset, side: int, seed: int) -> Source:
    """`shapes:`, `shapes:pictures` (what the VQ tokenizer trains on), `shapes:sizes`, `shapes:edits`
    and `shapes:interleaved` (to draw), `shapes:wide` (long canvases, to understand), `shapes:pairs`
    (a chosen and a rejected picture or answer), `emoji:`, `emoji:200` (so many of them), `scenes:`,
    `scenes:pairs` (with whole descriptions) and `scenes:all` (with what is held out, for the
    detector)."""
    kind = dataset.kind
    drawn = {
        "": shapes_sources.ShapesGeneration,
        "pictures": shapes_sources.ShapesPictures,
        "sizes": shapes_sources.ShapesSizes,
        "edits": functools.partial(shapes_edits.ShapesEdits, dataset),
        "interleaved": shapes_interleaved.ShapesInterleaved,
    }
    if preset == "shapes" and rest in drawn:
        pictures = drawn[rest]
        kinds = {
            "understanding": shapes_sources.ShapesUnderstanding,
            "text": shapes_sources.ShapesText,
            "generation": drawn[rest],
        }
        return kinds[kind](seed)
    if (preset, rest, kind) == ("shapes", "wide", "understanding"):
        from janus_jax.data.toy.shapes_wide import ShapesWide

        return ShapesWide(seed)
    if (preset, rest) == ("shapes", "pairs") and kind != "text":
        from janus_jax.data.toy import shapes_pairs

        pairs = {
            "understanding": shapes_pairs.ShapesAnswerPairs,
            "generation": shapes_pairs.ShapesPicturePairs,
        }
        return pairs[kind](seed)
    if preset == "emoji" and (not rest or rest.isdigit()):
        from janus_jax.data.toy import emoji

        count = int(rest) if rest else None
        if kind == "text":
            return emoji.EmojiText(count, seed)
        pictures = emoji.EmojiUnderstanding if kind == "understanding" else emoji.EmojiGeneration
        return pictures(side, count, seed)
    if preset == "scenes" and rest in ("", "pairs", "all"):
        from janus_jax.data.toy import scenes_sources

        generation = {
            "": scenes_sources.ScenesGeneration,
            "pairs": scenes_sources.ScenesPairs,
            "all": scenes_sources.ScenesAll,
        }
        kinds = {
            "understanding": scenes_sources.ScenesUnderstanding,
            "text": scenes_sources.ScenesText,
            "generation": generation[rest],
        }
        return kinds[kind](side, seed)
    if preset == "solids" and not rest and kind == "understanding":
        from janus_jax.data.toy import solids_sources

        return solids_sources.SolidsUnderstanding(seed)
    raise SourceError(
        f"{preset}:{rest}: unknown for kind {kind}; give shapes:, shapes:pictures, shapes:sizes, "
        "shapes:edits, shapes:interleaved, shapes:wide (to understand), shapes:pairs (no text), emoji:, "
        "emoji:<count>, scenes:, scenes:pairs, scenes:all, or for understanding solids:"
    )


def learn_tokenizer(
    sources, template: Template, vocabulary: int, records: int = 2000
) -> tokenizer.Tokenizer:
    """A byte-level BPE of at most `vocabulary` ids from the first records of every source, a list
    or {name: source}."""
    return tokenizer.train(_texts(sources, template, records), vocabulary)


def _texts(sources, template: Template, records: int):
    yield f"{template.system}\n\n{template.user}: \n\n{template.assistant}: "
    for source in sources.values() if isinstance(sources, dict) else sources:
        for i in range(min(records, len(source))):
            try:
                yield from _strings(source[i])
            except RecordError:
                continue  # training counts and lists it


def _strings(record: dict):
    if "text" in record:
        yield record["text"]
    yield from filter(None, record.get("document", ()))
    for caption in record.get("captions", ()):
        yield f" {caption}\n\n"
    for turn in record.get("messages", ()):
        for piece in turn.texts:
            yield f": {piece}\n\n"
