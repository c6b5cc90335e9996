"""GQA, test-dev balanced: questions on the scene of a picture, one answer each (arXiv 1902.09506)

Files: the authors' testdev_balanced_questions.json with their folder of pictures;
GQA_TestDev_Balanced.tsv of VLMEvalKit; lmms-eval's parquet of questions
(testdev_balanced_instructions), whose pictures are a parquet of their own, named as the folder of
pictures (testdev_balanced_images).

Janus's authors do not say how they asked. Protocols, alike in their words:
    janus: without a system text; right where the answer is the true one but for case and outer
        spaces, as in VLMEvalKit.
    lmms-eval: right where they are the same but for case and all punctuation.
"""

from janus_jax.eval.asking import IN_A_WORD, worded
from janus_jax.eval.benchmark import Record
from janus_jax.eval.counting import by_picture, percents
from janus_jax.eval.normalise import bare_form
from janus_jax.eval.question_files import question_rows, require_sound
from janus_jax.eval.stored_pictures import same_picture

ABOUT = "GQA, test-dev balanced: 12,578 questions on 398 pictures"
HEADLINE = "accuracy"
PROTOCOLS = ("janus", "lmms-eval")
MAX_NEW_TOKENS = 32
_COLUMNS = {
    "index": ("index", "id"),
    "question": ("question",),
    "answer": ("answer",),
    "category": ("category", "types"),
    "picture": ("imageId", "image_path"),
}


def read(path: str, images: str, say) -> list[Record]:
    """See `Understanding.read`. Record.category: the structural type of the question, as "query" or
    "verify", where the file has it."""
    rows, problems = question_rows(
        path, images, _COLUMNS, say, optional=("category", "picture"),
        names=lambda fields: [f"{fields['imageId']}.jpg"] if "imageId" in fields else [],
    )  # fmt: skip
    require_sound(path, problems)
    out = []
    for row in rows:
        fields = row.fields
        category = fields.get("category", "")
        category = category.get("structural", "") if isinstance(category, dict) else str(category)
        facts = {"picture": str(fields.get("picture") or same_picture(row.pictures[0]))}
        out.append(
            Record(
                fields["index"], fields["question"], row.pictures, str(fields["answer"]), {},
                category or "", facts,
            )
        )  # fmt: skip
    return out


def ask(record: Record, protocol: str) -> list[dict]:
    return worded(record, record.question + IN_A_WORD, protocol)


def mark(record: Record, answer: str, protocol: str) -> dict:
    """What is read is the answer in the form that is compared."""
    form = bare_form if protocol == "lmms-eval" else lambda text: text.strip().lower()
    read = form(answer)
    return {"read": read, "right": float(read == form(record.answer))}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    return by_picture(records, marks)


def scores(sums, protocol: str) -> dict[str, float]:
    """Percent: accuracy, also by type of question, and the answers of which nothing is left."""
    return percents(sums)
