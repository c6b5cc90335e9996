"""Answers in words or numbers, by the rules of MMMU (MMMU-Benchmark/MMMU, eval/eval_utils.py;
lmms-eval: lmms_eval/tasks/mmmu/utils.py)."""

import ast
import re

_NUMBERS = (
    r"-?\b\d{1,3}(?:,\d{3})+\b",  # 1,234
    r"-?\d+(?:\.\d+)?[eE][+-]?\d+",  # 1e-3
    r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
)
# What stands before an answer; in the last sentence "=" too.
_BEFORE = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = (":", ",", ".", "!", "?", ";", "'")


def holds_answer(answer: str, truth: str) -> bool:
    """Whether one of the true answers is held by a sentence's end, or is one of its numbers to two
    decimals. truth: the answer, or a Python list of several."""
    forms = [form for one in python_list(truth) or [truth] for form in _forms(str(one))]
    for said in _said(answer):
        if isinstance(said, float):
            if said in forms:
                return True
        elif any(isinstance(form, str) and form in said for form in forms):
            return True
    return False


def python_list(text: str) -> list:
    """The list that a string writes in Python, as MMMU's files do; empty where it writes none."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    return found if isinstance(found, list) else []


def _said(answer: str) -> list[str | float]:
    """What an answer may mean: the ends of its sentences, and the numbers in them."""
    ends = _ends(answer.strip().strip(".").lower())
    numbers = [n for end in ends for pattern in _NUMBERS for n in re.findall(pattern, end)]
    return [form for text in [*ends, *numbers] for form in _forms(text)]


def _ends(answer: str) -> list[str]:
    # The official pattern splits at a full stop before a capital, of which none are left here.
    sentences = answer.split("\n")
    out = []
    for number, sentence in enumerate(sentences):
        before = (*_BEFORE, "=") if number == len(sentences) - 1 else _BEFORE
        shortest = ""
        for word in before:
            tail = sentence.split(word)[-1].strip()
            if word in sentence and (not shortest or len(tail) < len(shortest)):
                shortest = tail
        out += [shortest] if shortest and shortest not in _TRIVIAL else []
    return out or [answer]


def _forms(text: str) -> list[str | float]:
    """A number to two decimals, or lower case; a single character needs a space on one side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]
