"""Rewards of answers by the right one: word for word, or by the number that they name."""

import re

import numpy as np

from janus_jax.training.rewards import RewardError

NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
_NUMBER = re.compile(r"(?:(?<!\w)-)?\d+(?:\.\d+)?")


def words_reward(name: str, **_):
    """The reward `match` or `number`."""
    return {"match": match, "number": number}[name]


def _answers(prompts: list) -> list[str]:
    if unknown := [p.words for p in prompts if not p.answer]:
        raise RewardError(
            f"the right answer to {unknown[0]!r} is not known ({len(unknown)} such): a reward of words "
            "compares with it; give records with answers, or another reward"
        )
    return [p.answer for p in prompts]


def _plain(text: str) -> str:
    return " ".join(text.lower().strip(" .!\"'\n").split())


def match(prompts: list, answers: list[str]) -> np.ndarray:
    """1 where an answer is the right one but for case, spaces and outer punctuation, else 0: float32
    [n]."""
    right = _answers(prompts)
    return np.array([_plain(a) == _plain(b) for a, b in zip(answers, right)], np.float32)


def number(prompts: list, answers: list[str]) -> np.ndarray:
    """1 where the last number in an answer, in digits or as a word up to twelve, is the last one of
    the right answer, else 0: float32 [n]."""
    right = [_last_number(text) for text in _answers(prompts)]
    if None in right:
        text = prompts[right.index(None)].answer
        raise RewardError(f"reward number: the right answer {text!r} names no number; take match")
    return np.array([_last_number(a) == b for a, b in zip(answers, right)], np.float32)


def _last_number(text: str) -> float | None:
    words = [
        str(NUMBERS.index(w)) if w in NUMBERS else w
        for w in re.findall(r"[a-z]+|[^a-z]+", text.lower())
    ]
    found = _NUMBER.findall(re.sub(r"(?<=\d),(?=\d{3}\b)", "", "".join(words)))
    return float(found[-1]) if found else None
