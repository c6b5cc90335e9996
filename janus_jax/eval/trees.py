"""The tree of pictures that a scorer reads: its prompts, whether all of it is there, and what the
scorer wrote.

The modules of generation/ say which files a benchmark has; what they share is here.
"""

import collections
import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping

from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import listed, short
from janus_jax.eval.benchmark import Item

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
LONGEST_NAME = 255 - len(".partial")  # bytes; a file bears the longer name while it is written


def read_text(path, what: str) -> str:
    """A text file as UTF-8. what: what it holds, for messages. Raises UsageError."""
    path = pathlib.Path(path).expanduser()
    try:
        return path.read_bytes().decode("utf-8-sig")
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder; give the file of {what}") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: byte {error.start} is no UTF-8; get {what} again, or convert the file"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: {why}; give the file of {what}") from None


def read_json(path, what: str, kind: type = list):
    """The JSON of a file, a `kind`. A key that an object has twice is refused, as the second would
    replace the first. Raises UsageError."""

    def no_key_twice(pairs):
        twice = [key for key, n in collections.Counter(k for k, _ in pairs).items() if n > 1]
        if twice:
            raise ValueError(f"the key {short(twice[0])!r} twice in one object")
        return dict(pairs)

    text = read_text(path, what)
    try:
        values = json.loads(text, object_pairs_hook=no_key_twice)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no JSON ({error}); give the file of {what}") from None
    if not isinstance(values, kind):
        raise UsageError(
            f"{path}: holds a {type(values).__name__}, expected a {kind.__name__}: {what}"
        )
    return values


def read_jsonl(path, what: str, fields: Mapping[str, type]) -> list[tuple[str, str, dict]]:
    """("line N", the line as it stands, its object) of a file with a JSON object a line; blank
    lines are left out. fields: what each object must have. Raises UsageError that lists all lines
    without it."""
    rows = []
    problems = []
    for number, line in enumerate(read_text(path, what).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"line {number}: no JSON ({error}): {short(line, 80)}")
            continue
        found = missing(f"line {number}", row, fields)
        problems += found
        rows += [] if found else [(f"line {number}", line.strip(), row)]
    refuse(path, what, problems)
    return rows


def missing(where: str, row, fields: Mapping[str, type]) -> list[str]:
    """What a row lacks of `fields`, name -> type; a line of a message each."""
    if not isinstance(row, dict):
        return [f"{where}: a {type(row).__name__}, expected a JSON object"]
    problems = []
    for name, kind in fields.items():
        value = row.get(name)
        if name not in row:
            problems.append(f"{where}: no {name!r}; it has {short(', '.join(map(str, row)), 80)}")
        elif not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            wanted = getattr(kind, "__name__", str(kind))
            problems.append(f"{where}: {name} is {short(repr(value), 80)}, not {wanted}")
    return problems


def prompt_problems(rows: Iterable[tuple[str, object, str]]) -> list[str]:
    """What is wrong with prompts: blank ones, what no text can hold, and ids that two have.
    rows: (where, id, prompt)."""
    problems = []
    first = {}
    for where, identity, prompt in rows:
        if not prompt.strip():
            problems.append(f"{where}: the prompt is empty; write one, or leave the row out")
        if prompt != prompt.encode("utf-8", "replace").decode():
            problems.append(f"{where}: the prompt holds a lone surrogate; write it as text")
        if identity in first:
            problems.append(
                f"{where}: {short(identity, 80)!r} is also in {first[identity]}; the second "
                "picture would replace the first: give each its own"
            )
        first.setdefault(identity, where)
    return problems


def name_problem(name: str) -> str:
    """Why a file cannot have this name, or what its scorer would make of it; empty where it can."""
    if not name or name.startswith(".") or any(c in name for c in "/\\\0\n\r"):
        return "a file's name cannot be empty, begin with a dot or hold / \\ NUL or a line's end"
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > LONGEST_NAME:
        return f"{size} bytes, of at most {LONGEST_NAME} that a file's name can have"
    return ""


def refuse(path, what: str, problems: list[str], remedy: str = ""):
    """Raises UsageError where there are problems, with the first of them."""
    if problems:
        ending = f"\n{remedy}" if remedy else ""
        n = len(problems)
        raise UsageError(
            f"{path}: {what}: {n} fault{'s' if n > 1 else ''}{listed(problems)}{ending}"
        )


def require(items: list[Item], path, pictures: int, allowed: tuple[int, ...] = ()) -> list[Item]:
    """The items; UsageError where there is none, or where so many pictures of each are not possible.
    allowed: how many the scorer can take; empty for any number."""
    if pictures < 1 or (allowed and pictures not in allowed):
        numbers = " or ".join(map(str, allowed)) or "1 or more"
        raise UsageError(f"{pictures} pictures a prompt: the scorer takes {numbers}; give that")
    if not items:
        raise UsageError(f"{path}: holds no prompt; give the benchmark's file")
    return items


def faults(benchmark, folder, items: list[Item], size: int | tuple[int, int]) -> list[str]:
    """All that is wrong with a tree before its scorer runs, a line each; empty where it is whole.

    Args:
        benchmark: a module of generation/.
        folder: the tree.
        items: the prompts it was drawn for.
        size: pixels of one drawn picture: the side of a square, or (width, height).
    """
    folder = pathlib.Path(folder)
    problems = verify(folder, items, size)
    if not folder.is_dir():
        return problems
    for name, content in benchmark.beside(items, folder).items():
        try:
            if (folder / name).read_bytes() != content:
                problems.append(f"{name}: is not what this list of prompts gives; write it again")
        except OSError as error:
            problems.append(f"{name}: {error.strerror}; the scorer reads it: write it again")
    return problems + benchmark.traps(folder, items)


def verify(folder, items: list[Item], size: int | tuple[int, int]) -> list[str]:
    """What is wrong with the pictures of a tree, a line each: missing, surplus, unreadable, cut or
    of the wrong size. Surplus is looked for where pictures should lie: scorers write others beside.

    Args:
        folder: the tree.
        items: the prompts it was drawn for. An item's fact "grid" says how many pictures a file has
            across; 1 without it.
        size: pixels of one drawn picture, as of `faults`.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        return [f"{folder}: no such folder; give the tree that was drawn"]
    sides = (size, size) if isinstance(size, int) else size
    expected = {
        file: tuple(side * item.facts.get("grid", 1) for side in sides)
        for item in items
        for file in item.files
    }
    places = {_place(file) for file in expected}
    found = {file for file in pictures_in(folder) if _place(file) in places}
    problems = []
    for file, pixels in expected.items():
        if file not in found:
            problems.append(f"{file}: missing; go on drawing into this folder")
        elif why := picture_problem(folder / file, pixels):
            problems.append(f"{file}: {why}; delete it and go on drawing into this folder")
    for file in sorted(found - expected.keys()):
        problems.append(f"{file}: is of no prompt of this list; take it out of the tree")
    return problems


def pictures_in(folder: pathlib.Path) -> Iterable[str]:
    """The pictures of a tree and what a stopped write left of one, relative names with `/`."""
    for where, _, names in os.walk(folder):
        relative = pathlib.Path(where).relative_to(folder).as_posix()
        for name in filter(is_picture, names):
            yield name if relative == "." else f"{relative}/{name}"


def is_picture(name: str) -> bool:
    """Whether `verify` looks at files of this name."""
    return name.lower().removesuffix(".partial").endswith(SUFFIXES)


def picture_problem(path: pathlib.Path, size: int | tuple[int, int]) -> str:
    """Why a file is no PNG of a size, as of `faults`; empty where it is one."""
    try:
        with Image.open(path) as image:
            image.load()
            found = image.size
            kind = image.format
    except Exception as error:  # damaged headers raise many kinds
        return f"cannot be read ({short(error)})"
    if kind != "PNG":
        return f"is {kind}, not PNG"
    wanted = (size, size) if isinstance(size, int) else size
    return "" if found == wanted else "is {}x{}, not {}x{}".format(*found, *wanted)


def stale(files: Iterable[pathlib.Path], folder, items: list[Item]) -> list[pathlib.Path]:
    """Those of a scorer's files that were written before the newest picture of the tree: they are
    of other pictures."""
    pictures = [pathlib.Path(folder) / file for it in items for file in it.files]
    newest = max((path.stat().st_mtime for path in pictures if path.is_file()), default=0)
    return [file for file in files if file.stat().st_mtime < newest]


def one_each(path, what: str, found: Iterable[tuple[object, object]], expected: Iterable) -> dict:
    """Key -> value of what a scorer wrote, in the order of `expected`. Raises UsageError that lists
    the keys it lacks, has twice, or that are of no prompt: a score of a part is no score.

    Args:
        path: of the scorer's file.
        what: what it should hold of each key, for messages.
        found: (key, value) as the file has them.
        expected: the keys that it should have.
    """
    expected = list(expected)
    known = set(expected)
    values = {}
    problems = []
    for key, value in found:
        if key not in known:
            problems.append(f"{key}: of no prompt of this list")
        elif key in values:
            problems.append(f"{key}: there twice")
        values[key] = value
    problems += [f"{key}: missing" for key in expected if key not in values]
    refuse(
        path, what, problems, "No score is given of a part: run the scorer over the tree and prompts"
        " that were drawn, and see that it read every picture."
    )  # fmt: skip
    return {key: values[key] for key in expected}


def number_fault(value, low: float, high: float) -> str:
    """Why a score is none; empty where it is a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"{short(repr(value), 80)} is no number"
    return "" if low <= value <= high else f"{value} is not in {low:g} to {high:g}"


def of_picture(sums: Mapping[str, float], k: int) -> dict[str, float]:
    """The sums of the k-th picture of every prompt alone, of a benchmark that counts them also as
    NAME/k: its `scores` of these are those of one seed."""
    return {name.removesuffix(f"/{k}"): v for name, v in sums.items() if name.endswith(f"/{k}")}


def shares(sums: Mapping[str, float], over: str, of: str) -> dict[str, float]:
    """GROUP -> sums["GROUP/over"] / sums["GROUP/of"] of every group that has some."""
    groups = [name.removesuffix(f"/{over}") for name in sums if name.endswith(f"/{over}")]
    return {g: sums[f"{g}/{over}"] / sums[f"{g}/{of}"] for g in groups if sums[f"{g}/{of}"]}


def mean_of(values: Iterable[float]) -> float:
    """NaN of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def _place(file: str) -> str:
    """The folder of a relative name with `/`."""
    return file.rpartition("/")[0]
