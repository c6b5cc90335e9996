"""Prompts from files: a line each, or the field `prompt` of JSON, JSON lines, CSV and TSV."""

import codecs
import csv
import json
import pathlib

from janus_jax.common.text import short
from janus_jax.data.messages import check_text

FIELDS = ("prompt", "Prompt", "prompts", "caption", "text")  # the first that a record has
BOMS = (  # UTF-32 first: its mark begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"), (codecs.BOM_UTF8, "utf-8-sig"),
)  # fmt: skip


def read_prompts(path) -> list[str]:
    """The prompts of a file. Raises ValueError that names the file and the line.

    A text file holds one a line; empty lines are dropped. A line that is a JSON object, and a
    record of a .json, .jsonl, .csv or .tsv file, gives its field `prompt`, else `caption` or
    `text`. UTF-8, or UTF-16 and UTF-32 with their mark.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a directory; name one file of prompts")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name a text file with a prompt a line")
    text = _text(path)
    kind = path.suffix.lower()
    if kind == ".json":
        found = _of_document(text, path)
    elif kind in (".csv", ".tsv"):
        found = _of_table(text, "\t" if kind == ".tsv" else ",", path)
    else:
        quoted = kind in (".jsonl", ".ndjson")
        found = [
            _of_line(line, quoted, f"{path}:{number}")
            for number, line in enumerate(text.split("\n"), 1)
        ]
    prompts = [prompt for prompt in (prompt.strip("\0\r\t ") for prompt in found) if prompt]
    if not prompts:
        raise ValueError(f"{path}: holds no prompt; write one a line")
    return prompts


def _text(path: pathlib.Path) -> str:
    raw = path.read_bytes()
    encoding = next((name for mark, name in BOMS if raw.startswith(mark)), "utf-8")
    if encoding == "utf-8" and 5 * raw[:4096].count(0) > len(raw[:4096]):
        raise ValueError(f"{path}: is no text, or UTF-16 without its mark; save it as UTF-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        if encoding == "utf-8":
            check_text(raw, str(path))
        raise ValueError(f"{path}: begins as {encoding} and is none; save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _of_line(line: str, quoted: bool, where: str) -> str:
    """The prompt of a line. quoted: all lines are JSON."""
    line = line.strip("\0 \t")
    if not line or not (quoted or line.startswith("{")):
        return line
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        if not quoted:
            return line  # a prompt that begins with a brace
        raise ValueError(f"{where}: is {short(line, 80)!r}, no JSON ({error})") from None
    return _of_record(value, where)


def _of_record(record, where: str) -> str:
    if isinstance(record, str):
        return record
    if not isinstance(record, dict):
        raise ValueError(f"{where}: is {short(record, 80)!r}; needs a text or an object")
    found = next((record[name] for name in FIELDS if name in record), None)
    if not isinstance(found, str):
        has = short(", ".join(map(str, record)))
        raise ValueError(
            f'{where}: has no text in a field "prompt" (fields: {has}); rename the one'
        )
    return found


def _of_document(text: str, path: pathlib.Path) -> list[str]:
    """A list of records, or an object of records by name."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if "\n{" in text.strip():  # lines of JSON under another name
            return [
                _of_line(line, True, f"{path}:{n}") for n, line in enumerate(text.split("\n"), 1)
            ]
        raise ValueError(f"{path}: is no JSON ({error})") from None
    if isinstance(value, dict) and not any(name in value for name in FIELDS):
        value = list(value.values())
    records = value if isinstance(value, list) else [value]
    return [_of_record(record, f"{path}, record {n}") for n, record in enumerate(records)]


def _of_table(text: str, delimiter: str, path: pathlib.Path) -> list[str]:
    rows = csv.DictReader(text.split("\n"), delimiter=delimiter)
    return [_of_record(row, f"{path}:{n}") for n, row in enumerate(rows, 2)]
