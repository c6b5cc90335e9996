"""MME: two questions with yes or no on each picture, in 14 categories (arXiv 2306.13394)

Files: MME.tsv of VLMEvalKit; lmms-eval's parquet; or the authors' folder of categories, in which a
picture NAME.jpg stands beside NAME.txt, or in `images` beside `questions_answers_YN`, each line of
the text a question, a tab, and Yes or No.

A category is worth acc + acc+, 200 at most: the percent of questions answered right, and that of
pictures with both right. Perception is the sum of ten categories (2,000 at most), cognition that of
four (800).

Protocols:
    janus: the question as it stands, read by the word yes or no anywhere in the answer.
    lmms-eval: the question without " Please answer yes or no.", read from the first four letters
        (lmms_eval/tasks/mme/utils.py).
"""

import collections
import pathlib

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval.asking import IN_A_WORD, YES_OR_NO, worded
from janus_jax.eval.benchmark import Record
from janus_jax.eval.normalise import yes_or_no
from janus_jax.eval.question_files import question_rows, require_sound, row_problems
from janus_jax.eval.question_formats import Row

ABOUT = (
    "MME: 2,374 yes-or-no questions, two a picture, in 10 categories of perception, 4 of cognition"
)
HEADLINE = "perception"
PROTOCOLS = ("janus", "lmms-eval")
MAX_NEW_TOKENS = 32
CATEGORIES = {
    "perception": (
        "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark",
        "artwork", "OCR",
    ),
    "cognition": (
        "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
    ),
}  # fmt: skip
_KNOWN = {name for names in CATEGORIES.values() for name in names}
_COLUMNS = {
    "index": ("index",),
    "question": ("question",),
    "answer": ("answer",),
    "category": ("category",),
    "picture": ("question_id", "image_path"),
}


def read(path: str, images: str, say) -> list[Record]:
    """See `Understanding.read`. facts["picture"]: what the two questions of a picture share."""
    if own := _own_rows(path):
        rows, problems = own, row_problems(own)
    else:
        rows, problems = question_rows(
            path, images, _COLUMNS, say, optional=("index",),
            index=lambda fields: fields.get("index") or f"{fields['picture']}: {fields['question']}",
        )  # fmt: skip
    out = []
    for row in rows:
        fields = row.fields
        answer = str(fields["answer"]).lower().strip().replace(".", "")
        if answer not in ("yes", "no"):
            problems.append(f"{row.where}: answer {answer[:40]!r} is neither yes nor no")
        if fields["category"] not in _KNOWN:
            problems.append(f"{row.where}: category {fields['category']!r} is none of MME's")
        facts = {"picture": (fields["category"], str(fields["picture"]))}
        out.append(
            Record(
                fields["index"],
                fields["question"],
                row.pictures,
                answer,
                {},
                fields["category"],
                facts,
            )
        )
    if not problems:  # else one of the two may be a row that is told already
        questions = collections.Counter(record.facts["picture"] for record in out)
        problems += [
            f"{'/'.join(picture)}: {count} questions, a picture has two"
            for picture, count in questions.items()
            if count != 2
        ]
    require_sound(path, problems)
    return out


def ask(record: Record, protocol: str) -> list[dict]:
    question = record.question
    if protocol == "lmms-eval":
        question = question.strip().replace(YES_OR_NO, "")
    return worded(record, question + IN_A_WORD, protocol)


def mark(record: Record, answer: str, protocol: str) -> dict:
    """What is read is yes, no or empty."""
    read = _from_its_begin(answer) if protocol == "lmms-eval" else yes_or_no(answer)
    return {"read": read, "right": float(read == record.answer)}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    """The unit is a picture with its questions; one of whose two only one was asked has no acc+."""
    pictures = collections.defaultdict(list)
    for record, found in zip(records, marks, strict=True):
        pictures[record.facts["picture"]].append(found)
    out = []
    for (category, _), found in pictures.items():
        right = [one["right"] for one in found]
        unit = {
            f"{category}/asked": len(right),
            f"{category}/right": sum(right),
            f"{category}/unread": sum(one["read"] == "" for one in found),
            f"{category}/pairs": float(len(right) == 2),
            f"{category}/both": float(sum(right) == 2),
        }
        out.append(unit)
    return out


def scores(sums, protocol: str) -> dict[str, float]:
    """Points of each category; perception and cognition where all their categories are there; the
    percent of questions that were answered right ("accuracy"), and of answers neither yes nor
    no ("unread")."""
    out = {}
    for part, categories in CATEGORIES.items():
        points = {}
        for name in categories:
            asked = sums.get(f"{name}/asked", 0)
            pairs = sums.get(f"{name}/pairs", 0)
            if asked and pairs:
                points[name] = 100 * (
                    sums[f"{name}/right"] / asked + sums.get(f"{name}/both", 0) / pairs
                )
        out |= {part: sum(points.values())} if len(points) == len(categories) else {}
        out |= {f"{part}/{name}": value for name, value in points.items()}
    asked = sum(sums.get(f"{name}/asked", 0) for name in _KNOWN)
    for score, count in (("accuracy", "right"), ("unread", "unread")):
        out[score] = 100 * sum(sums.get(f"{name}/{count}", 0) for name in _KNOWN) / max(asked, 1)
    return out


def _from_its_begin(answer: str) -> str:
    answer = answer.lower().strip().replace(".", "")
    if len(answer) == 1:
        return {"y": "yes", "n": "no"}.get(answer, "")
    return next((word for word in ("yes", "no") if word in answer[:4]), "")


def _own_rows(path: str) -> list[Row]:
    """The rows of the authors' folder; none where it is another's."""
    out = []
    for file in sorted(pathlib.Path(path).rglob("*.txt")) if pathlib.Path(path).is_dir() else []:
        folder = file.parent
        category = folder.name
        if folder.name == "questions_answers_YN":
            folder = folder.parent / "images"
            category = folder.parent.name
        found = sorted(p for p in folder.glob(f"{file.stem}.*") if p.suffix != ".txt")
        picture = str(found[0] if found else folder / f"{file.stem}.jpg")
        try:
            lines = file.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: cannot be read ({error}); get it again") from None
        for number, line in enumerate(lines, 1):
            question, _, answer = line.rpartition("\t")
            if line.strip():
                fields = {
                    "index": f"{category}/{file.stem}/{number}",
                    "question": question,
                    "answer": answer,
                    "category": category,
                    "picture": file.stem,
                }
                out.append(Row(f"{category}/{file.name}: line {number}", fields, (picture,)))
    return out
