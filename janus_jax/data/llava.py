"""Record sources over users' files: LLaVA-style JSON and a folder of pictures, checked whole when opened."""

import json
import os
import re
import unicodedata

from janus_jax.data.images import read_image
from janus_jax.data.sources import SourceError

_SHOWN = 20  # lines of a report
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_GAPS = "\0 \t\r\n"  # between records; crashed writers leave NULs
_BLANK = {"Cc", "Cf", "Zs", "Zl", "Zp"}  # Unicode categories of control characters and spaces
_REQUEST = "Describe the picture."  # asked where a record holds a picture and a caption only


class _Records:
    """Records in memory. Subclasses set `_arguments`, the paths they were made from."""

    def __len__(self):
        return len(self._records)

    def __getitem__(self, i):
        return self._records[i]

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(map(repr, self._arguments))}, records={len(self)})"


class _Pictures(_Records):
    def __init__(self, json_path, image_root):
        """Checks every record, and that its picture lies below `image_root`. Raises SourceError."""
        self._arguments = os.fspath(json_path), os.fspath(image_root)
        root = os.path.realpath(image_root)
        if not os.path.isdir(root):
            raise SourceError(f"{image_root}: is no directory; give the folder of the pictures as image_root")

        def parse(record):
            if record.get("image") is None:
                LlavaText.parse(record)  # left out here, yet not without a check
                return None
            return self.parse(record), _resolve(root, _image_name(record))

        pairs = _checked(self._arguments[0], parse)
        if not pairs:
            raise SourceError(f'{json_path}: no record has the field "image"; for text use LlavaText')
        self._records, self._paths = map(list, zip(*pairs))

    def image(self, i):
        """The picture of record `i`, an RGB `PIL.Image`. Raises ImageError."""
        return read_image(self._paths[i])


class LlavaUnderstanding(_Pictures):
    """Conversations about pictures: {"image": "a/b.jpg", "conversations": [{"from": "human", "value": "..."},
    {"from": "gpt", "value": "..."}, ...]}, or {"image", "caption" or "text"}, the answer to "Describe ...".

    `<image>` in a human turn becomes the image part; without it the picture opens the first human turn.
    Records without "image" are left out.
    """

    @staticmethod
    def parse(record):
        if "conversations" in record:
            turns = _turns(record, images=1)
        else:
            turns = [("user", _REQUEST), ("assistant", _captions(record)[0])]
        if not any(role == "user" and "<image>" in text for role, text in turns):
            first = next(k for k, (role, _) in enumerate(turns) if role == "user")
            turns[first] = ("user", "<image>" + turns[first][1])
        contents = [_parts(text) if role == "user" else text for role, text in turns]
        return {"messages": [{"role": role, "content": c} for (role, _), c in zip(turns, contents)]}


class LlavaGeneration(_Pictures):
    """The same files as captions and pictures: "caption" or "text" (a string or a list of alternatives), else
    the first answer of the conversation. Records without "image" are left out."""

    @staticmethod
    def parse(record):
        if "conversations" in record and not {"caption", "text"} & set(record):
            return {"captions": [next(text for role, text in _turns(record, 1) if role == "assistant")]}
        return {"captions": _captions(record)}


class LlavaText(_Records):
    """The text of such files: records without "image", conversations as messages, the others as text.

    Where every record has a picture, their captions, or else their answers, serve as plain text.
    """

    def __init__(self, json_path):
        """Checks every record. Raises SourceError."""
        self._arguments = (os.fspath(json_path),)

        def parse(record):
            return _image_name(record), self.parse(record)

        parsed = _checked(self._arguments[0], parse)
        bare = [record for image, record in parsed if image is None]
        self._records = bare or [record for _, record in parsed]

    @staticmethod
    def parse(record):
        if "conversations" not in record or (_image_name(record) and {"caption", "text"} & set(record)):
            return {"text": "\n".join(_captions(record))}
        turns = _turns(record, images=0 if _image_name(record) is None else 1)
        if _image_name(record):
            return {"text": "\n".join(text for role, text in turns if role == "assistant")}
        return {"messages": [{"role": role, "content": text} for role, text in turns]}


class _MissingError(SourceError):
    """A picture's file is not there; the message is its name."""


def _checked(path, parse):
    """parse(record) of every record but those it gives None for. Raises SourceError with all problems."""
    good, missing = [], []
    records, bad = _read(path)
    for where, record in records:
        try:
            if not isinstance(record, dict):
                raise SourceError(f"is a {type(record).__name__}, needs an object with fields")
            good.append(parse(record))
        except _MissingError as error:
            missing.append(f"{where}: {error}")
        except SourceError as error:
            bad.append(f"{where}: {error}")
    report = _listed(f"{len(bad)} bad records; mend or remove them", bad)
    report += _listed(
        f"{len(missing)} missing image files; check image_root (data.images), or remove the records", missing
    )
    if report:
        raise SourceError("\n".join([f"{path}: {len(records)} records read", *report]))
    return [item for item in good if item is not None]


def _listed(title, lines):
    more = [f"  ... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [f"{title}:", *(f"  {line}" for line in lines[:_SHOWN]), *more] if lines else []


def _read(path):
    """A JSON list or JSON lines -> [(where, record)] and the problems of broken lines. Raises SourceError."""
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; give a readable .json or .jsonl file") from None
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x} at offset {error.start}"
        raise SourceError(f"{path}: {byte} is not UTF-8; convert it with `iconv -t UTF-8`") from None
    records, bad = [], []
    if text.lstrip(_GAPS).startswith("["):
        try:
            records = [(f"record {i}", r) for i, r in enumerate(json.loads(text.strip(_GAPS), strict=False))]
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{path}: is not JSON ({error}); needs a list, or one record a line") from None
        text = ""
    for n, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 may stand inside a string
        line, where = line.strip(_GAPS), f"record {len(records) + len(bad)}, line {n}"
        try:
            records += [(where, json.loads(line, strict=False))] if line else []
        except (ValueError, RecursionError) as error:
            bad.append(f"{where}: is not JSON ({error}): {line[:40]!r}")
    if not records and not bad:
        raise SourceError(f"{path}: is empty; needs a JSON list of records, or one record a line")
    return records, bad


def _text(value, field):
    if not isinstance(value, str):
        raise SourceError(f'field "{field}" is a {type(value).__name__}, needs a string')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f'field "{field}" has a lone surrogate at {error.start}; drop it') from None
    if all(unicodedata.category(c) in _BLANK for c in value):
        raise SourceError(f'field "{field}" is empty or blank: {value[:20]!r}')
    return value.replace("\0", "")


def _captions(record):
    field = next((field for field in ("caption", "text") if field in record), None)
    if field is None:
        raise SourceError(f'no "conversations", "caption" or "text" (fields: {", ".join(record) or "none"})')
    values = record[field] if isinstance(record[field], list) and record[field] else [record[field]]
    return [_text(value, field) for value in values]


def _turns(record, images):
    """The conversation as [(role, text)]: user and assistant in turn, answered, `<image>` at most as due."""
    turns, values = [], record["conversations"]
    for k, turn in enumerate(values if isinstance(values, list) else [values]):
        field = f"conversations[{k}]"
        if not isinstance(turn, dict) or not {"from", "value"} <= set(turn):
            raise SourceError(f'field "{field}" needs "from" and "value": {str(turn)[:60]!r}')
        role = _ROLES.get(turn["from"]) if isinstance(turn["from"], str) else None
        if role is None:
            raise SourceError(f'field "{field}.from" is {turn["from"]!r}; known are {", ".join(_ROLES)}')
        previous = turns[-1][0] if turns else "system"
        if role == previous and turns:
            raise SourceError(f'field "{field}": two {role} turns in a row; join them')
        if (role == "system" and turns) or (role == "assistant" and previous == "system"):
            raise SourceError(f'field "{field}": {role} turn out of order; needs [system,] human, gpt, ...')
        text = _text(turn["value"], f"{field}.value")
        if role != "user" and "<image>" in text:
            raise SourceError(f'field "{field}.value" has <image> in role {role}; put it in a human turn')
        turns.append((role, text))
    found = sum(text.count("<image>") for _, text in turns)
    if found > images:
        raise SourceError(f'field "conversations" has {found} <image> placeholders for {images} images')
    if not turns or turns[-1][0] != "assistant":
        raise SourceError('field "conversations" ends without an answer (gpt); add it, or cut the question')
    return turns


def _parts(text):
    before, image, after = text.partition("<image>")
    if not image:
        return text
    texts = [[{"type": "text", "text": part}] if part.strip() else [] for part in (before, after.strip())]
    return texts[0] + [{"type": "image"}] + texts[1]


def _image_name(record):
    value = record.get("image")
    if isinstance(value, list):
        raise SourceError(f'field "image" is a list of {len(value)}; one picture a record is supported')
    return None if value is None else _text(value, "image")


def _resolve(root, name):
    """The file of a picture named relative to `root`. Raises SourceError."""
    if "://" in name or re.match("data:", name, re.I):
        raise SourceError(f'field "image" is a URL: {name[:60]!r}; download it and give its path')
    path = os.path.realpath(os.path.join(root, name))
    inside = path.startswith(root.rstrip(os.sep) + os.sep)
    if not inside or os.path.isabs(name) or ".." in re.split(r"[/\\]", name):
        raise SourceError(
            f'field "image" leaves the image root: {name!r}; give a path (or link) that stays below'
        )
    if not os.path.exists(path):
        raise _MissingError(name)
    if os.path.isdir(path) or not os.access(path, os.R_OK):
        raise SourceError(f'field "image" is a directory, or not readable: {name!r}; give a readable file')
    return path
