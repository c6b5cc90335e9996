"""The questions of a benchmark with one set of column names, their pictures found and looked at.

Only an empty cell is absent. pandas, which both harnesses read with, also takes the words "None",
"NA", "N/A", "null" and "nan" for absent, so there an option of such a text is not shown.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import listed, near, short
from janus_jax.data.sources import RecordError, SourceError
from janus_jax.eval.question_formats import READERS, Row, parquet_rows
from janus_jax.eval.stored_pictures import cell_pictures, unreadable


@dataclasses.dataclass(frozen=True)
class Only:
    """Which rows of a file belong to a benchmark: `belongs(fields)`; `what` says it in words."""

    belongs: Callable[[Mapping], bool]
    what: str


def question_rows(
    path: str, images: str, columns: Mapping[str, tuple[str, ...]], say, *,
    names: Callable[[Mapping], list[str]] = lambda fields: [], only: Only | None = None,
    optional: tuple[str, ...] = (), index: Callable[[Mapping], str] | None = None,
) -> tuple[list[Row], list[str]]:  # fmt: skip
    """The rows of a file, or of all files of a folder, that have all that they need, and what is
    wrong with rows, for `require_sound`. Raises UsageError where the file cannot be used at all.

    Args:
        path: a .tsv, .parquet, .json or .jsonl file, or a folder of them (with one .tsv at most).
        images: the folder of the pictures that rows name, or a parquet file or folder of them that
            has the columns `id` and `image`; empty: the folder of `path`.
        columns: our name -> the names that files have for it, first come first served. Each row
            gets our names beside the file's.
        say: hears how many rows are left out.
        names: the file names of a row's pictures, where the file does not hold them.
        only: which rows belong; all where None.
        optional: of `columns`, those that a file or a row may lack.
        index: what a row is told by, where that is not its "index"; it differs from row to row.
    """
    files = _files(path)
    problems = []
    try:
        read = READERS[pathlib.Path(files[0]).suffix.lower()]
        rows = [row for file in files for row in read(file, problems)]
    except (SourceError, RecordError, ImportError, OSError) as error:
        raise UsageError(str(error)) from None  # which names the file
    _require_columns(path, rows, {k: v for k, v in columns.items() if k not in optional}, problems)
    kept = [row for row in rows if only is None or only.belongs(row.fields)]
    if not kept:
        raise UsageError(f"{path}: none of its {len(rows):,} rows is {only.what}")
    if len(kept) < len(rows):
        say(f"{path}: {len(rows) - len(kept):,} of {len(rows):,} rows left out: not {only.what}")
    kept = [_renamed(row, columns, optional, problems) for row in kept]
    required = columns.keys() - set(optional)
    whole = [row for row in kept if required <= row.fields.keys()]
    if index:
        whole = [_with(row, index=index(row.fields)) for row in whole]
    whole = _with_pictures(whole, images or os.path.dirname(files[0]), names, problems)
    problems += row_problems(whole)
    return [row for row in whole if row.pictures], problems


def row_problems(rows: list[Row]) -> list[str]:
    """Which rows have an index that another has, no picture, or one that cannot be opened."""
    return [*_twice(rows), *_picture_problems(rows)]


def require_sound(path: str, problems: list[str]):
    """Raises UsageError that lists what is wrong with rows of a file, if anything is."""
    if problems:
        remedy = "mend or remove these rows, get the file again, or name the folder of pictures"
        raise UsageError(f"{path}: {len(problems):,} problems; {remedy}:{listed(problems)}")


def _files(path: str) -> list[str]:
    """The files that `path` names, sorted. Raises UsageError."""
    kinds = ", ".join(READERS)
    if os.path.isfile(path):
        if pathlib.Path(path).suffix.lower() in READERS:
            return [path]
        raise UsageError(f"{path}: the suffix is none of {kinds}; rename the file by its content")
    if not os.path.isdir(path):
        above = pathlib.Path(path).parent
        hint = near(pathlib.Path(path).name, sorted(os.listdir(above)) if above.is_dir() else [])
        raise UsageError(
            f"{path}: there is no such file{hint if hint.startswith('; did') else '; check it'}"
        )
    for suffix in READERS:
        found = sorted(map(str, pathlib.Path(path).rglob(f"*{suffix}")))
        if suffix == ".tsv" and len(found) > 1:  # of several benchmarks, as VLMEvalKit keeps them
            names = ", ".join(map(os.path.basename, found))
            raise UsageError(f"{path}: holds {short(names)}; name one of them")
        if found:
            return found
    raise UsageError(f"{path}: a folder without {kinds} files; name the file")


def _require_columns(path: str, rows: list[Row], columns, problems: list[str]):
    if not rows:
        require_sound(path, problems)
        raise UsageError(f"{path}: holds no rows; get it again")
    there = dict.fromkeys(name for row in rows for name in row.fields)
    missing = [
        f"no column {' or '.join(names)}"
        for names in columns.values()
        if not there.keys() & set(names)
    ]
    if missing:
        raise UsageError(
            f"{path}: {'; '.join(missing)}. Its columns: {short(', '.join(there))}. Name the "
            "benchmark's own file, or add the columns"
        )


def _with(row: Row, **fields) -> Row:
    return dataclasses.replace(row, fields=row.fields | fields)


def _renamed(row: Row, columns, optional, problems: list[str]) -> Row:
    fields = {}
    for ours, names in columns.items():
        found = next((row.fields[name] for name in names if name in row.fields), None)
        if found is not None:
            fields[ours] = str(found) if ours == "index" else found
        elif ours not in optional:
            problems.append(f"{row.where}: {' or '.join(names)} is empty")
    return _with(row, **fields)


def _twice(rows: list[Row]) -> list[str]:
    first = {}
    out = []
    for row in rows:
        index = row.fields.get("index")
        if index in first:
            out.append(f"{row.where}: index {short(index, 60)} is also that of {first[index]}")
        elif index is not None:
            first[index] = row.where
    return out


def _with_pictures(rows: list[Row], images: str, names, problems: list[str]) -> list[Row]:
    """The rows, those with the pictures that they name whose file holds none."""
    stored = {}
    if images.endswith(".parquet") or (rows and not rows[0].pictures and _all_parquet(images)):
        for file in _files(images):
            stored |= {str(row.fields.get("id")): row for row in parquet_rows(file, problems)}
    out = []
    for row in rows:
        if not row.pictures:
            found = row.fields.get("image_path") or names(row.fields)
            try:
                found = cell_pictures(found) if isinstance(found, str) else found
            except ValueError as error:
                problems.append(f"{row.where}: image_path {error}")
                found = []
            pictures = [os.path.join(images, name) for name in found]
            if stored:
                ids = [pathlib.Path(name).stem for name in found]
                pictures = [p for one in ids if one in stored for p in stored[one].pictures]
            row = dataclasses.replace(row, pictures=tuple(pictures))
        out.append(row)
    return out


def _all_parquet(folder: str) -> bool:
    found = [p.suffix for p in pathlib.Path(folder).iterdir()] if os.path.isdir(folder) else []
    return set(found) == {".parquet"}


def _picture_problems(rows: list[Row]) -> list[str]:
    known = {}
    out = []
    for row in rows:
        if not row.pictures:
            out.append(f"{row.where}: has no picture")
        for picture in row.pictures:
            if picture not in known:
                known[picture] = unreadable(picture)
            name = f"picture {picture}" if isinstance(picture, str) else "image"
            out += [f"{row.where}: {name}: {known[picture]}"] if known[picture] else []
    return out
