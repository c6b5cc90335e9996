"""MMMU, validation: questions of 30 college subjects, some with several pictures (arXiv 2311.16502)

Files: MMMU_DEV_VAL.tsv of VLMEvalKit, of which only the split "validation" is asked; lmms-eval's
parquet, and the authors' own, one folder a subject, of which only validation files. A question
names its pictures as <image 1>, in options too.

Protocols:
    janus: all pictures first, the names stay in the text; read by `choices.letter_in`. A question
        without options is read as if its options were the answer and "Other Answers"
        (open-compass/VLMEvalKit, vlmeval/dataset/utils/multiple_choice.py), so a short answer that
        holds the true one is right.
    lmms-eval: pictures stand where they are named; read by MMMU's own rules, which guess where an
        answer names no option: `choices.letter_or_guess`, "guessed" is their share. Where a
        question names more pictures than it has, the text between is lost, as there
        (lmms_eval/tasks/mmmu/utils.py). An answer that is a list of several is taken as one, any of
        which is right, where lmms-eval compares with the list's text.
"""

import re

from janus_jax.eval.asking import BY_LETTER, IN_A_WORD, worded
from janus_jax.eval.benchmark import Record
from janus_jax.eval.choices import (
    authors_question,
    by_lines,
    letter_in,
    letter_or_guess,
    option_problem,
    options_in,
)
from janus_jax.eval.counting import by_picture, percents
from janus_jax.eval.open_answers import holds_answer, python_list
from janus_jax.eval.question_files import Only, question_rows, require_sound

ABOUT = "MMMU, validation: 900 questions of 30 subjects, 94% multiple choice"
HEADLINE = "accuracy"
PROTOCOLS = ("janus", "lmms-eval")
MAX_NEW_TOKENS = 128
_NAMED = re.compile(r"<image (\d)>")
_COLUMNS = {
    "index": ("id", "index"),
    "question": ("question",),
    "answer": ("answer",),
    "category": ("category", "subject", "subfield"),
    "hint": ("hint",),
}


def read(path: str, images: str, say) -> list[Record]:
    """See `Understanding.read`. Record.category: the subject. A question without options has
    none."""
    only = Only(_of_validation, "of the validation split")
    rows, problems = question_rows(
        path, images, _COLUMNS, say, only=only, optional=("category", "hint")
    )
    out = []
    for row in rows:
        fields = row.fields
        options = options_in(fields) or _listed_options(fields.get("options", "[]"))
        answer = str(fields["answer"])
        is_choice = options or fields.get("question_type") == "multiple-choice"
        why = option_problem(options, answer) if is_choice else ""
        named = _NAMED.findall(" ".join([fields["question"], *options.values()]))
        if lost := sorted(set(named) - _numbered(row.pictures).keys()):
            why = f"names <image {lost[0]}>, which it does not have ({len(row.pictures)} pictures)"
        problems += [f"{row.where}: {why}"] if why else []
        out.append(
            Record(
                fields["index"], fields["question"], row.pictures, answer, options, _subject(fields),
                {"hint": fields.get("hint")},
            )
        )  # fmt: skip
    require_sound(path, problems)
    return out


def ask(record: Record, protocol: str) -> list[dict]:
    if protocol == "janus":
        return worded(record, authors_question(record), protocol)
    text = f"{record.question}\n\n{IN_A_WORD.strip()}"
    if record.options:
        text = f"{record.question}\n{by_lines(record.options)}\n\n{BY_LETTER}"
    shown = sorted(set(_NAMED.findall(text)))
    pictures = _numbered(record.pictures)
    between = _NAMED.split(text)[::2]
    parts = []
    for number, name in enumerate(shown):
        if number < len(between) - 1 and between[number].strip():
            parts.append({"type": "text", "text": between[number].strip()})
        parts.append({"type": "image", "image": pictures[name]})
    parts.append({"type": "text", "text": between[-1].strip()})
    return [{"role": "user", "content": parts}]


def mark(record: Record, answer: str, protocol: str) -> dict:
    """What is read is a letter; of a question without options, the answer itself. "guessed":
    whether the letter is a guess."""
    if protocol == "janus":
        options = record.options or {"A": record.answer, "B": "Other Answers"}
        read = letter_in(answer, options)
        right = read == (record.answer if record.options else "A")
        return {"read": read, "right": float(right), "guessed": False}
    if not record.options:
        return {
            "read": answer,
            "right": float(holds_answer(answer, record.answer)),
            "guessed": False,
        }
    read, guessed = letter_or_guess(answer, record.options, record.index)
    return {"read": read, "right": float(read == record.answer), "guessed": guessed}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    """The unit is a question."""
    units = by_picture(records, marks)
    return [unit | {"guessed": float(m["guessed"])} for unit, m in zip(units, marks, strict=True)]


def scores(sums, protocol: str) -> dict[str, float]:
    """Percent: accuracy, also by subject, the answers of which nothing was read, and the guesses."""
    return percents(sums) | {"guessed": 100 * sums["guessed"] / sums["all/asked"]}


def _numbered(pictures) -> dict[str, object]:
    """The pictures by their number in the text: that of their column, or their place."""
    columns = [getattr(picture, "column", "") for picture in pictures]
    named = [re.fullmatch(r"image_(\d)", str(column)) for column in columns]
    return {
        found[1] if found else str(place): picture
        for place, (found, picture) in enumerate(zip(named, pictures), 1)
    }


def _of_validation(fields) -> bool:
    split = fields.get("split") or str(fields.get("id", "validation")).split("_")[0]
    return split == "validation"


def _subject(fields) -> str:
    """From the authors' index, as validation_Art_Theory_12; else the category."""
    found = re.fullmatch(r"[a-z]+_(.+)_\d+", fields["index"])
    return found[1] if found else str(fields.get("category", ""))


def _listed_options(text) -> dict[str, str]:
    """letter -> text of the Python list that the authors' files hold as a string."""
    found = python_list(text) if isinstance(text, str) else text
    return {chr(ord("A") + number): str(option) for number, option in enumerate(found)}
