"""VQAv2: questions with ten people's answers each (arXiv 1612.00837)

Files: the authors' v2_OpenEnded_mscoco_val2014_questions.json, with
v2_mscoco_val2014_annotations.json beside it and the folder of COCO's val2014; lmms-eval's parquet;
or a TSV whose `answers` or `answer` is a list of ten. The paper's 77.3 is of test-dev, whose answers
are only with the makers' server (EvalAI); the validation set is what can be scored here.

An answer is worth min(1, n / 3), n being how many of nine people gave it, as the mean over all ten
ways to leave one person out (GT-Vision-Lab/VQA, vqaEval.py). All answers are compared in
`normalise.vqa_form`, as both harnesses do; the first official code does that only where the ten
people differ.

Janus's authors do not say how they asked: janus is the words of both harnesses without a system
text, lmms-eval the same with the weights' own.
"""

import ast
import pathlib
import re

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval.asking import IN_A_WORD, worded
from janus_jax.eval.benchmark import Record
from janus_jax.eval.counting import by_picture, percents
from janus_jax.eval.normalise import vqa_form
from janus_jax.eval.question_files import question_rows, require_sound
from janus_jax.eval.question_formats import json_value
from janus_jax.eval.stored_pictures import same_picture

ABOUT = "VQAv2, val2014: 214,354 questions on 40,504 pictures, ten answers each"
HEADLINE = "accuracy"
PROTOCOLS = ("janus", "lmms-eval")
MAX_NEW_TOKENS = 32
PEOPLE = 10
_COLUMNS = {
    "index": ("question_id", "index"),
    "question": ("question",),
    "answers": ("answers", "answer"),
    "category": ("answer_type", "category"),
    "picture": ("image_id", "image_path"),
}


def read(path: str, images: str, say) -> list[Record]:
    """See `Understanding.read`. Record.answer: ten strings."""
    path, annotations = _own_files(path)
    given = {}
    if annotations:
        found = json_value(annotations)
        given = {str(one["question_id"]): one for one in found.get("annotations", [])}
    optional = ("category", "picture", *(("answers",) if annotations else ()))
    rows, problems = question_rows(path, images, _COLUMNS, say, names=_names, optional=optional)
    out = []
    for row in rows:
        fields = row.fields | given.get(row.fields["index"], {})
        answers = _answers(fields.get("answers"))
        if len(answers) != PEOPLE:
            problems.append(f"{row.where}: {len(answers)} answers, the score needs {PEOPLE}")
        facts = {"picture": str(fields.get("picture") or same_picture(row.pictures[0]))}
        category = str(fields.get("answer_type", fields.get("category", "")))
        out.append(
            Record(
                row.fields["index"], fields["question"], row.pictures, answers, {}, category, facts
            )
        )
    require_sound(path, problems)
    return out


def ask(record: Record, protocol: str) -> list[dict]:
    return worded(record, record.question + IN_A_WORD, protocol)


def mark(record: Record, answer: str, protocol: str) -> dict:
    """What is read is the answer in the form that is compared."""
    read = vqa_form(answer)
    same = [vqa_form(one) == read for one in record.answer]
    right = sum(min(1, (sum(same) - own) / 3) for own in same) / len(same)
    return {"read": read, "right": right}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    return by_picture(records, marks)


def scores(sums, protocol: str) -> dict[str, float]:
    """Percent: accuracy, also by the type of answer, and the answers of which nothing is left."""
    return percents(sums)


def _own_files(path: str) -> tuple[str, str]:
    """The file of questions, and that of the annotations where it is the authors'."""
    file = pathlib.Path(path)
    if file.is_dir() and (found := sorted(file.glob("*_questions.json"))):
        if len(found) > 1:
            names = ", ".join(one.name for one in found)
            raise UsageError(f"{path}: holds {names}; name one of them")
        file = found[0]
    if not file.name.endswith("_questions.json"):
        return path, ""
    name = file.name.replace("OpenEnded_", "").replace("_questions.json", "_annotations.json")
    return str(file), str(file.with_name(name))


def _names(fields) -> list[str]:
    """COCO's names of the pictures: the part of the data set is in the name of the questions'
    file."""
    part = re.search(r"mscoco_([a-z]+\d+)", fields.get("file", ""))
    if part is None or "image_id" not in fields:
        return []
    return [f"COCO_{part[1]}_{int(fields['image_id']):012d}.jpg"]


def _answers(found) -> tuple[str, ...]:
    if isinstance(found, str) and found.startswith("["):
        try:
            found = ast.literal_eval(found)
        except (ValueError, SyntaxError):
            return ()
    if not isinstance(found, list | tuple):
        return () if found is None else (str(found),)
    return tuple(str(one["answer"] if isinstance(one, dict) else one) for one in found)
