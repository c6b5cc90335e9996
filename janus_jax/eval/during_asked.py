"""What a user wants to see at each evaluation: `evaluation.prompts` and `evaluation.questions`."""

import os
import pathlib
from typing import NamedTuple

from janus_jax.common.paths import expanded
from janus_jax.common.text import short
from janus_jax.config.schema import ConfigError, Experiment
from janus_jax.data.image_parts import open_picture
from janus_jax.data.image_pixels import ImageError
from janus_jax.data.messages import PICTURE, Turn, blank, laid_out
from janus_jax.data.processor import Processor

_LIST = ".txt"
_OTHER = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".md", ".yaml", ".yml")


class Asked(NamedTuple):
    """prompts: to draw. questions: each a picture, RGB, and what is asked about it."""

    prompts: list[str]
    questions: list[tuple]


NOTHING = Asked([], [])


def read_asked(experiment: Experiment, processor: Processor) -> Asked:
    """What the config asks for, files read and pictures opened. Raises ConfigError that lists all
    that cannot be used, or is too long for the model."""
    e = experiment.evaluation
    problems = []
    prompts = []
    for text, _, where in _entries("prompts", e.prompts, problems):
        try:
            processor.request(text, where)
            prompts.append(text)
        except ValueError as error:
            problems.append(str(error))
    questions = []
    for text, folder, where in _entries("questions", e.questions, problems):
        path, mark, question = text.partition(": " if ": " in text else ":")
        if not mark or blank(path) or blank(question):
            problems.append(
                f"{where}: {short(text, 80)!r} is no question about a picture; write "
                '"PICTURE: QUESTION", such as "cat.png: what is it?"'
            )
            continue
        try:
            file = os.path.join(folder, expanded(path.strip()))
            questions.append((open_picture(file, where), question.strip()))
            processor.question(conversation(*questions[-1]))
        except (ImageError, ValueError) as error:
            told = str(error)
            problems.append(told if told.startswith(where) else f"{where}: {told}")
    if problems:
        raise ConfigError.of(problems)
    return Asked(prompts, questions)


def conversation(picture, question: str) -> list:
    """A question about a picture, as `understand` takes it."""
    return [Turn("user", laid_out([PICTURE, question]), [picture])]


def _entries(field: str, entries: tuple[str, ...], problems: list[str]):
    """(text, the folder that its pictures are named in, where it stands) of each entry and of each
    line of a file; appends what cannot be used."""
    for k, entry in enumerate(entries):
        where = f"evaluation.{field}[{k}]"
        if entry.lower().endswith(_LIST):
            yield from _lines(entry, where, problems)
        elif entry.lower().endswith(_OTHER):
            problems.append(
                f"{where} is {short(entry)!r}: a list is read from a {_LIST} file with one a line"
            )
        elif blank(entry):
            problems.append(f"{where} is {entry[:20]!r}: empty; write some words")
        else:
            yield entry, "", where


def _lines(entry: str, where: str, problems: list[str]):
    """What `_entries` yields of a file."""
    try:
        path = pathlib.Path(expanded(entry))
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or f"is no text in UTF-8 ({error})"
        problems.append(f"{where}: {short(entry)}: {why}; name a text file with one a line")
        return
    found = [(line.strip(), f"{path}:{n}") for n, line in enumerate(lines, 1) if not blank(line)]
    if not found:
        problems.append(f"{where}: {short(entry)} is empty; write one a line, or leave it out")
    for text, place in found:
        yield text, str(path.parent), place
