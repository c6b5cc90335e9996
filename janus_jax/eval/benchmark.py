"""What a benchmark is: one module of `understanding/` or `generation/`, found by its name.

Both halves end alike. Each unit that is drawn or asked independently (a picture with its questions,
a prompt with its pictures) gives counts by name, the counts of all units add up, and `scores` makes
the benchmark's scores of the sums. So an interval is the same scores of resampled units, whatever
the benchmark divides by what.
"""

import dataclasses
import importlib
import pathlib
from collections.abc import Mapping
from typing import Protocol

HALVES = ("understanding", "generation")
NAMES = {
    half: sorted(p.stem for p in (pathlib.Path(__file__).parent / half).glob("[a-z]*.py"))
    for half in HALVES
}


@dataclasses.dataclass(frozen=True)
class Record:
    """One question of an understanding benchmark.

    Args:
        index: as its file names it; unique within the file.
        question: its text, as the file has it.
        pictures: each the bytes of a picture file, a path, a PIL picture, or what `read()` gives
            such bytes of, so that they stay in their file until they are looked at.
        answer: what is right, as the file has it.
        options: letter -> text of a multiple choice; empty where the answer is free.
        category: what it is counted under; empty where the benchmark has no categories.
        facts: what else the benchmark's score needs.
    """

    index: str
    question: str
    pictures: tuple
    answer: object = None
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    category: str = ""
    facts: Mapping = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Item:
    """One prompt of a generation benchmark.

    Args:
        prompt: what is drawn.
        files: where its pictures go, relative to the tree, with `/`. There may be fewer than
            pictures, where several are put on one.
        category: what it is counted under; empty where the benchmark has no categories.
        facts: what else the tree or the score needs, such as the prompt's line of its file.
    """

    prompt: str
    files: tuple[str, ...]
    category: str = ""
    facts: Mapping = dataclasses.field(default_factory=dict)


class Understanding(Protocol):
    """What a module of understanding/ defines."""

    ABOUT: str
    """A line: what it is, and of which size."""

    HEADLINE: str
    """The score that stands for the benchmark."""

    PROTOCOLS: tuple[str, ...]
    """Ways to ask and to read answers; the first is the one of the model's authors."""

    MAX_NEW_TOKENS: int
    """The longest answer."""

    def read(path: str, images: str, say) -> list[Record]:
        """The records of a file, in its order. images: the folder of its pictures, or empty. `say`
        hears what is left out. Raises UsageError that lists what cannot be used."""

    def ask(record: Record, protocol: str) -> list[dict]:
        """Chat messages with the pictures, in a form that `understand` takes."""

    def mark(record: Record, answer: str, protocol: str) -> dict:
        """What an answer is worth: "read", what was taken from it, and "right", 0 to 1."""

    def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
        """The counts of each independent unit."""

    def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
        """The scores, by name, of counts that were added up; in the paper's units."""


class Judged(Understanding, Protocol):
    """What a module defines beside where a judge says what an answer is worth (see `judge.judged`).
    Until then "right" of its marks is None, and while it is of one of them there is no score."""

    def to_judge(record: Record, answer: str) -> str:
        """What the judge is asked about an answer."""

    def verdict(reply: str) -> float | None:
        """What an answer is worth by a judge's reply, 0 to 1; None where it says nothing."""

    def judge_file(records: list[Record], answers: list[str]) -> str:
        """The file that the benchmark's own evaluator reads, for want of a judge."""

    def judge_advice(file: str) -> str:
        """What to do with that file, saved as `file`."""

    def judge_results(path: str, records: list[Record]) -> dict[str, float]:
        """index -> what an answer is worth, from what the benchmark's own evaluator wrote. Raises
        UsageError that lists the records without a verdict."""


class Generation(Protocol):
    """What a module of generation/ defines."""

    ABOUT: str
    """A line: what it is, and of which size."""

    HEADLINE: str
    """The score that stands for the benchmark."""

    PROTOCOLS: tuple[str, ...]
    """Forms of the benchmark that differ in prompts or scorer; the first is the default."""

    PICTURES: int
    """How many a prompt the benchmark's protocol draws."""

    def read(path: str, pictures: int, protocol: str) -> list[Item]:
        """The prompts of a file, in its order, `pictures` of each. Raises UsageError that lists
        what cannot be used."""

    def compose(pictures: list) -> list:
        """The PIL pictures that an item's files hold, of those that were drawn for it."""

    def beside(items: list[Item], folder: pathlib.Path) -> dict[str, bytes]:
        """The other files of the tree that the scorer reads: relative name -> content."""

    def traps(folder: pathlib.Path, items: list[Item]) -> list[str]:
        """What is wrong with a tree that its scorer would pass over in silence, other than missing,
        surplus and damaged pictures, which are looked for in every tree."""

    def command(folder: pathlib.Path, side: int, protocol: str) -> str:
        """How the scorer is run over the tree of pictures of `side` pixels."""

    def results(path: pathlib.Path, items: list[Item], protocol: str) -> list[dict[str, float]]:
        """The counts of each prompt, from what the scorer wrote. Raises UsageError."""

    def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
        """The scores, by name, of counts that were added up."""


class AnySize(Generation, Protocol):
    """What a module defines beside whose scorer reads pictures of any size, squares or not."""

    ANY_SIZE = True


class Graded(Generation, Protocol):
    """What a module may define beside where its pictures are graded here."""

    def grade(folder: pathlib.Path, items: list[Item]) -> bytes:
        """What `results` reads, of the pictures of a tree. Raises UsageError for those that cannot
        be graded."""

    def own_settings(items: list[Item]) -> dict:
        """Optional: what else changes the scores, such as the weights that grade."""

    def fixed_scores(folder: pathlib.Path, items: list[Item]) -> dict[str, float]:
        """Optional: scores of the tree as a whole, which are of no sums and have no interval."""


def load(half: str, name: str):
    """The module of a benchmark, one of NAMES[half]."""
    return importlib.import_module(f"janus_jax.eval.{half}.{name}")
