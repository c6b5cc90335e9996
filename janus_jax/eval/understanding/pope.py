"""POPE: is an object in the picture that is not? (arXiv 2305.10355)

Questions with yes or no, half of each; "random", "popular" and "adversarial" say how the objects
that are not there were chosen. Files: POPE.tsv of VLMEvalKit, where a question of several splits is
one row with `category` such as "random,popular" and counts in each, as in VLMEvalKit's
POPE_rating (vlmeval/dataset/utils/yorn.py); lmms-eval's parquet; or the authors'
coco_pope_<split>.json with the folder of COCO's val2014, one of them or a folder of several.

The paper's 87.0 is the accuracy of the random split (VLMEvalKit#541).

Protocols:
    janus: the question without " Please answer yes or no.", read by the word yes or no anywhere in
        the answer; what is neither is wrong, and counts as not yes.
    lmms-eval: the question as it stands; an answer counts only where it is nothing but yes or no
        (a full stop makes it wrong), and what is neither is left out of the recall. Its yes ratio
        is of the truth; here, as in the paper of POPE, of the answers.
"""

import collections
import re

from janus_jax.eval.asking import IN_A_WORD, YES_OR_NO, worded
from janus_jax.eval.benchmark import Record
from janus_jax.eval.normalise import yes_or_no
from janus_jax.eval.question_files import question_rows, require_sound
from janus_jax.eval.stored_pictures import same_picture

ABOUT = "POPE: 3,000 yes-or-no questions on objects in 500 pictures for each of three splits"
HEADLINE = "accuracy"
PROTOCOLS = ("janus", "lmms-eval")
MAX_NEW_TOKENS = 32
SPLITS = ("random", "popular", "adversarial")
_COLUMNS = {
    "index": ("index", "question_id", "id"),
    "question": ("question", "text"),
    "answer": ("answer", "label"),
    "category": ("category",),
    "source": ("image_source", "image_path", "image"),
}


def read(path: str, images: str, say) -> list[Record]:
    """See `Understanding.read`. Record.category: the splits, with commas; facts["picture"]: what
    the questions of a picture share."""
    rows, problems = question_rows(
        path, images, _COLUMNS, say, names=lambda fields: [fields["image"]] if "image" in fields else [],
        optional=("category", "source"), index=_index,
    )  # fmt: skip
    out = []
    for row in rows:
        answer = str(row.fields["answer"]).strip().lower()
        splits = row.fields.get("category") or _split(row.fields.get("file", ""))
        if answer not in ("yes", "no"):
            problems.append(f"{row.where}: answer {answer[:40]!r} is neither yes nor no")
        if unknown := set(filter(None, splits.split(","))) - set(SPLITS):
            problems.append(f"{row.where}: category {sorted(unknown)} is none of {SPLITS}")
        facts = {"picture": str(row.fields.get("source") or same_picture(row.pictures[0]))}
        record = Record(
            row.fields["index"], row.fields["question"], row.pictures, answer, {}, splits, facts
        )
        out.append(record)
    require_sound(path, problems)
    if not all(record.category for record in out):
        say(f"{path}: names no split, so there are no scores by split")
    return out


def ask(record: Record, protocol: str) -> list[dict]:
    question = record.question.strip()
    if protocol == "janus":
        question = record.question.replace(YES_OR_NO, "")
    return worded(record, question + IN_A_WORD, protocol)


def mark(record: Record, answer: str, protocol: str) -> dict:
    """What is read is yes, no or empty."""
    read = yes_or_no(answer)
    if protocol == "lmms-eval":
        read = answer.lower().strip()
        read = read if read in ("yes", "no") else ""
    return {"read": read, "right": float(read == record.answer)}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    """The unit is a picture with all its questions."""
    pictures = collections.defaultdict(collections.Counter)
    for record, found in zip(records, marks, strict=True):
        read = found["read"]
        missed = read == "no" if protocol == "lmms-eval" else read != "yes"
        counts = {
            "asked": 1,
            "right": found["right"],
            "yes": read == "yes",
            "unread": read == "",
            "true_yes": read == record.answer == "yes",
            "false_yes": read == "yes" and record.answer == "no",
            "missed_yes": record.answer == "yes" and missed,
        }
        splits = list(filter(None, record.category.split(",")))
        unit = pictures[record.facts["picture"]]
        for name, count in counts.items():
            unit[f"all/{name}"] += count * max(len(splits), 1)
            for split in splits:
                unit[f"{split}/{name}"] += count
    return [dict(unit) for unit in pictures.values()]


def scores(sums, protocol: str) -> dict[str, float]:
    """Percent: accuracy, precision, recall, F1, the share of answers that are yes, and that of
    answers that are neither; of all splits together, and behind each split's name its own."""
    out = {}
    for split in ("all", *SPLITS):
        asked = sums.get(f"{split}/asked", 0)
        if not asked:
            continue
        count = {
            name: sums.get(f"{split}/{name}", 0) for name in ("true_yes", "right", "yes", "unread")
        }
        said = count["true_yes"] + sums.get(f"{split}/false_yes", 0)
        there = count["true_yes"] + sums.get(f"{split}/missed_yes", 0)
        precision = count["true_yes"] / said if said else 0.0
        recall = count["true_yes"] / there if there else 0.0
        both = precision + recall
        found = {
            "accuracy": count["right"] / asked,
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / both if both else 0.0,
            "yes_ratio": count["yes"] / asked,
            "unread": count["unread"] / asked,
        }
        before = "" if split == "all" else f"{split}/"
        out |= {f"{before}{name}": 100 * value for name, value in found.items()}
    return out


def _index(fields) -> str:
    """All but the TSV number the questions of each split from 1."""
    split = fields.get("category") or _split(fields.get("file", ""))
    return f"{split}/{fields['index']}" if "question_id" in fields else fields["index"]


def _split(file: str) -> str:
    found = re.search(r"(random|popular|adversarial)\.jsonl?$", file)
    return found[1] if found else ""
