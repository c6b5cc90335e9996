"""Multiple choice: the options of a question, and the letter that an answer takes."""

import hashlib
import string
from collections.abc import Mapping

from janus_jax.eval.asking import BY_LETTER
from janus_jax.eval.benchmark import Record

_BRACKETS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ENDS = (",", ".", "!", "?", ";", ":", "'")


def options_in(fields: Mapping) -> dict[str, str]:
    """letter -> text of a row: its columns A, B, ... or choice_a, choice_b, ... The word "nan" is
    how lmms-eval's files of MMBench write that there is none."""
    found = {}
    for letter in string.ascii_uppercase:
        text = fields.get(letter, fields.get(f"choice_{letter.lower()}"))
        if text is not None and text != "nan":
            found[letter] = str(text)
    return found


def option_problem(options: Mapping[str, str], answer) -> str:
    """Why a question cannot be scored, empty where it can."""
    if len(options) < 2:
        return f"{len(options)} options, needs two or more"
    return (
        "" if answer in options else f"answer {str(answer)[:40]!r} is none of {', '.join(options)}"
    )


def by_lines(options: Mapping[str, str]) -> str:
    """The options, one a line."""
    return "\n".join(f"{letter}. {text}" for letter, text in options.items())


def authors_question(record: Record) -> str:
    """A multiple choice in the words of Janus's authors (open-compass/VLMEvalKit,
    vlmeval/vlm/janus.py): hint, question, options, a blank line, the request for the letter."""
    hint = record.facts.get("hint")
    asked = (f"Hint: {hint}\n" if hint else "") + f"{record.question}\n"
    if not record.options:
        return asked + "Answer the question directly. "
    return f"{asked}{by_lines(record.options)}\n\n{BY_LETTER}"


def letter_in(answer: str, options: Mapping[str, str]) -> str:
    """The letter that an answer takes; empty where none is told.

    As VLMEvalKit reads it without a judge (vlmeval/utils/matching_util.py of ms-vlmeval 0.0.20): the
    one letter that stands as a word of its own, first among the last four words; else the one
    option whose text the answer holds, where the answer is at most twice as long as all options.
    Left out: the sentences by which other models refuse.
    """
    words = answer.translate(_BRACKETS).split()
    there = [letter for letter in options if letter in words]
    if len(there) == 1 and words.index(there[0]) > len(words) - 5:
        return there[0]
    if not there and "Z" in words:  # "none of them"
        return ""
    if len(answer) > 2 * sum(map(len, options.values())):
        return ""
    held = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return held[0] if len(held) == 1 else ""


def letter_or_guess(answer: str, options: Mapping[str, str], index: str) -> tuple[str, bool]:
    """The letter that an answer takes by the rules of MMMU (MMMU-Benchmark/MMMU,
    eval/eval_utils.py; lmms-eval: lmms_eval/tasks/_task_utils/mmmu_mcq_utils.py), and whether it
    was guessed.

    The rules guess where they find nothing: with a random number of no seed; here by a hash of the
    question's `index`, so that the same answers have the same score.
    """
    for end in _ENDS:
        answer = answer.strip(end)
    answer = f" {answer} "
    for mark, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        there = [letter for letter in options if mark.format(letter) in answer]
        if there:
            return max(there, key=lambda letter: answer.rfind(place.format(letter))), False
    low = answer.lower()
    held = [letter for letter, text in options.items() if text.lower() in low]
    if held and len(answer.split()) > 5:
        return max(held, key=lambda letter: low.rfind(options[letter].lower())), False
    number = int.from_bytes(hashlib.sha256(index.encode()).digest()[:8], "big")
    return list(options)[number % len(options)], True
