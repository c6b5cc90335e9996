"""The files that a path names: a file, a folder, a pattern or a range; and whether they are of two splits.

Files and folders that are named train, test or validation are splits of a data set: no classes, and no data set to
train on holds two of them."""

import fnmatch
import glob
import logging
import os
import re

from janus_jax.data.sources import SourceError, shown

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")  # shards as WebDataset's users write them: {0000..0575}

# Words by which Hugging Face's `datasets` tells them too (data_files.py, SPLIT_KEYWORDS).
_WORDS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
# What macOS, Windows and disks of Synology put into folders beside their owner's files.
_OF_SYSTEMS = ("__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "@eaDir")
_BEGIN = re.compile(rf"({'|'.join(_WORDS)})[-_. \d]", re.I)
_UP_TO_WORD = re.compile(rf".*?({'|'.join(sorted(_WORDS, key=len, reverse=True))})", re.I)
_WHOLE = re.compile(rf"({'|'.join(_WORDS)})[-_. \d]*", re.I)


def find(path: str, suffixes: tuple[str, ...]) -> list[str]:
    """The absolute paths of the files that `path` names, sorted; see files.Files. Raises SourceError
    where there is none, or where a folder or a pattern finds files of two splits."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        found = [p for p in below(path) if p.lower().endswith(suffixes)]
        if not found:
            raise SourceError(
                f"{path}: no {' or '.join(suffixes)} files in this folder; give their path"
            )
    elif os.path.lexists(path):
        return [os.path.abspath(path)]
    elif wide := _RANGE.search(path):
        first, last = wide.groups()
        if int(first) > int(last):
            raise SourceError(
                f"{path}: nothing is from {first} to {last}; give the smaller number first"
            )
        numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
        return [
            p
            for n in numbers
            for p in find(path[: wide.start()] + n + path[wide.end() :], suffixes)
        ]
    else:
        found = [p for p in glob.glob(path, recursive=True) if os.path.isfile(p)]
        if not found:
            raise SourceError(
                f"{path}: no such file, and as a pattern it matches none; check the path"
            )
    found = sorted(map(os.path.abspath, found))
    refuse_two(path, found)
    return found


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of its owner's: nothing reads it."""
    return name.startswith(".") or name in _OF_SYSTEMS


def below(folder: str):
    """The files of a folder and its folders, hidden ones left out. Links to folders are followed,
    each folder once. Raises SourceError for one that cannot be read."""

    def refuse(error):
        raise SourceError(f"{error.filename}: {error.strerror}; make the folder readable")

    seen = {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        inner = []
        for name in sorted(f for f in folders if not is_hidden(f)):
            real = os.path.realpath(os.path.join(place, name))
            if real not in seen:  # a link may lead back
                seen.add(real)
                inner.append(name)
        folders[:] = inner
        yield from (os.path.join(place, f) for f in files if not is_hidden(f))


def once(found: list[str]) -> list[str]:
    """Without the paths that lead to a file already there."""
    kept = []
    seen = {}
    for path in found:
        real = os.path.realpath(path)
        if real in seen:
            logging.warning("%s is the same file as %s: it is read once", path, seen[real])
        else:
            seen[real] = path
            kept.append(path)
    return kept


def resolved(files) -> dict[str, str]:
    """What each path leads to -> the path. Looks at folders, and at no file that is no link: there
    may be a million."""
    out = {}
    folders = {}
    for path in files:
        folder, name = os.path.split(path)
        if folder not in folders:
            with os.scandir(folder) as entries:
                links = {entry.name for entry in entries if entry.is_symlink()}
            folders[folder] = os.path.realpath(folder), links
        real, links = folders[folder]
        out[os.path.realpath(path) if name in links else os.path.join(real, name)] = path
    return out


def split_of(name: str) -> str:
    """The split whose word stands in a name ("chats_test-1.jsonl"): train, validation, test, or
    none."""
    return next((_WORDS[word] for word in _words(name) if word in _WORDS), "")


def _words(name: str) -> list[str]:
    return re.findall("[a-z]+", name.lower())


def _alike(names: list[str]) -> bool:
    """Whether two names of different splits differ in that word alone, numbers aside."""
    splits = {}
    for name in filter(split_of, names):
        rest = [w for w in _words(name.split(".")[0]) if w not in _WORDS and w != "of"]
        splits.setdefault(" ".join(rest), set()).add(split_of(name))
    return any(len(of) > 1 for of in splits.values())


def is_split(name: str) -> bool:
    """Whether a folder's name says a split and nothing else: "train", "val2017"."""
    return bool(_WHOLE.fullmatch(name))


def refuse_two(path: str, found: list[str]):
    """Raises SourceError where the files that `path`, a folder or a pattern, has found are of two
    splits: where every name says one, or two names differ in that word alone, numbers aside."""
    base = os.path.commonpath([os.path.dirname(file) for file in found])
    parts = {}
    speaking = []  # of each file the name that says its split
    for file in found:
        names = os.path.relpath(file, base).split(os.sep)
        name = next(filter(split_of, names), "")
        parts.setdefault(split_of(name), []).append(file)
        speaking.append(name)
    splits = sorted(part for part in parts if part)
    if len(splits) < 2 or not ("" not in parts or _alike(speaking)):
        return
    told = ", ".join(f"{split}: {_shown(parts[split], base)}" for split in splits)
    first = "train" if "train" in splits else splits[0]
    raise SourceError(
        f"{path}: holds the splits {' and '.join(splits)} ({told}); what is tested on must not be trained on: "
        f"give one of them, path={_pattern(parts[first], found)}, or all that you mean with commas between them"
    )


def refuse_as_classes(path: str, folders: list[str], known):
    """Raises SourceError where the folders of pictures in `path` are splits, not classes.

    path: the folder above.
    folders: their names.
    known: names of classes that a file of names has: those are what they are called.
    """
    splits = [folder for folder in folders if is_split(folder) and folder not in known]
    spoken = [folder for folder in folders if split_of(folder) and folder not in known]
    every = len(spoken) == len(folders) and _alike(folders)
    if len(splits) < 2 and not (splits == folders and splits) and not every:
        return
    of = spoken if every else splits
    first = next((f for f in of if split_of(f) == "train"), of[0])
    raise SourceError(
        f"{path}: its folders {shown(', '.join(of))} are splits, not classes; give path={os.path.join(path, first)}, "
        "and others a line of their own (or name them in a file of names, if these are classes)"
    )


def refuse_pictures(path: str, names: list[str]):
    """Raises SourceError where the names of a folder's pictures all begin with a split's word, of two splits."""
    begins = {split_of(name) if _BEGIN.match(name) else "" for name in names}
    if "" not in begins and len(begins) > 1:
        raise SourceError(
            f"{path}: its pictures are of the splits {', '.join(sorted(begins))} by their names ({shown(names[0])}, "
            f"...), and what is tested on must not be trained on; move each split into a folder of its own"
        )


def _shown(files: list[str], base: str) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return shown(os.path.relpath(files[0], base)) + more


def _pattern(files: list[str], found: list[str]) -> str:
    """A path or pattern that finds `files`, and no others of `found`."""
    if len(files) == 1:
        return files[0]
    folder = os.path.commonpath([os.path.dirname(file) for file in files])
    if not any(file.startswith(folder + os.sep) for file in set(found) - set(files)):
        return folder
    begin = _UP_TO_WORD.match(os.path.basename(files[0]))
    wide = os.path.join(folder, f"{begin[0]}*") if begin else ""
    if wide and set(fnmatch.filter(found, wide)) == set(files):
        return wide
    return ",".join(files[:3]) + (",..." if len(files) > 3 else "")
