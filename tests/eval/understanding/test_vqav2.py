import json

import pytest
from support import questions

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval.understanding import vqav2

KINDS = ("yes/no", "number", "other")


def rows():
    """60 on 20 pictures: of row n, n % 4 people say "two dogs", 10 - n % 4 "cat"."""
    return [
        {
            "question_id": n, "image_id": n // 3, "question": f"what of {n}?", "answer_type": KINDS[n % 3],
            "answers": [
                {"answer": "two dogs" if k < n % 4 else "cat", "answer_confidence": "yes", "answer_id": k + 1}
                for k in range(10)
            ],
        }
        for n in range(60)
    ]  # fmt: skip


def files(tmp_path) -> tuple[str, str]:
    """The authors' two files and COCO's folder."""
    asked = [{k: row[k] for k in ("question_id", "image_id", "question")} for row in rows()]
    given = [
        {k: row[k] for k in ("question_id", "image_id", "answer_type", "answers")} for row in rows()
    ]
    name = tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json"
    name.write_text(json.dumps({"data_subtype": "val2014", "questions": asked}))
    other = tmp_path / "v2_mscoco_val2014_annotations.json"
    other.write_text(json.dumps({"annotations": given[::-1]}))
    return str(name), questions.folder(
        tmp_path / "val2014", [f"COCO_val2014_{n:012d}.jpg" for n in range(20)]
    )


def test_sixty_rows_score_what_was_counted_by_hand(tmp_path):
    path, images = files(tmp_path)
    records = vqav2.read(path, images, print)
    answers = ["The 2 dogs."] * 60
    found = questions.score(vqav2, records, answers, "janus")
    # n people of ten: leaving one of them out, n - 1 remain, else n; a third each, at most 1.
    one = (1 * 0 + 9 * 1) / 30
    two = (2 * 1 + 8 * 2) / 30
    three = (3 * 2 + 7 * 3) / 30
    assert found["accuracy"] == pytest.approx(100 * (one + two + three) / 4)
    assert [
        vqav2.mark(record, "2 dogs", "janus")["right"] for record in records[:4]
    ] == pytest.approx([0, one, two, three])
    assert set(found) == {"accuracy", "unread", *KINDS}
    assert found["number"] == pytest.approx(100 * (one + two + three) / 4)
    marks = [vqav2.mark(record, "cat", "janus") for record in records]
    assert [mark["right"] for mark in marks] == [1.0] * 60
    assert len(vqav2.tally(records, marks, "janus")) == 20


def test_the_folder_parquet_and_tsv_give_the_same_records(tmp_path):
    path, images = files(tmp_path)
    first = vqav2.read(path, images, print)
    stored = [row | {"image": questions.struct(row["image_id"])} for row in rows()]
    tsv = [
        {
            "index": row["question_id"], "image": questions.text(row["image_id"]), "question": row["question"],
            "answer": str([one["answer"] for one in row["answers"]]), "category": row["answer_type"],
        }
        for row in rows()
    ]  # fmt: skip
    for other, folder in (
        (str(tmp_path), images), (questions.parquet(tmp_path / "v.parquet", stored), ""),
        (questions.tsv(tmp_path / "v.tsv", tsv), ""),
    ):  # fmt: skip
        found = vqav2.read(other, folder, print)
        assert [(r.index, r.question, r.answer, r.category) for r in found] == [
            (r.index, r.question, r.answer, r.category) for r in first
        ]


def test_questions_without_ten_answers_are_told_at_once(tmp_path):
    path, images = files(tmp_path)
    annotations = tmp_path / "v2_mscoco_val2014_annotations.json"
    given = json.loads(annotations.read_text())["annotations"]
    given[0]["answers"].pop()
    annotations.write_text(json.dumps({"annotations": given[:-1]}))
    with pytest.raises(UsageError) as caught:
        vqav2.read(path, images, print)
    assert "record 60: 9 answers, the score needs 10" in str(caught.value)
    assert "record 1: 0 answers" in str(caught.value)
    annotations.unlink()
    with pytest.raises(UsageError, match=r"annotations\.json: there is no such file"):
        vqav2.read(path, images, print)
