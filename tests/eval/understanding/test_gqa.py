import json

import pytest
from support import questions

from janus_jax.eval.understanding import gqa


def rows():
    """60 on 20 pictures."""
    return [
        {
            "question": f"what of {n}?", "answer": ("yes", "t-shirt", "left")[n % 3], "imageId": f"n{n // 3}",
            "types": {"structural": ("verify", "query", "choose")[n % 3], "semantic": "attr"},
        }
        for n in range(60)
    ]  # fmt: skip


def answers():
    """Right, but the first three; the next three with marks and capitals."""
    out = [row["answer"] for row in rows()]
    return ["no", "shirt", "left side", "Yes.", " T-shirt ", "Left", *out[6:]]


def own(tmp_path) -> str:
    path = tmp_path / "testdev_balanced_questions.json"
    path.write_text(json.dumps({f"2{n:04d}": row for n, row in enumerate(rows())}))
    return str(path)


def test_sixty_rows_score_what_was_counted_by_hand(tmp_path):
    images = questions.folder(tmp_path / "images", [f"n{n}.jpg" for n in range(20)])
    records = gqa.read(own(tmp_path), images, print)
    found = questions.score(gqa, records, answers(), "janus")
    assert found["accuracy"] == pytest.approx(100 * 56 / 60)  # "Yes." is wrong too
    assert found["verify"] == pytest.approx(100 * 18 / 20)
    assert found["query"] == found["choose"] == pytest.approx(100 * 19 / 20)
    found = questions.score(gqa, records, answers(), "lmms-eval")
    assert found["accuracy"] == pytest.approx(100 * 56 / 60)  # outer spaces are wrong there
    assert found["verify"] == 95 and found["query"] == 90
    assert len(gqa.tally(records, [{"read": "", "right": 0.0}] * 60, "janus")) == 20


def test_parquet_takes_its_pictures_from_a_parquet_of_their_own(tmp_path):
    made = [row | {"id": f"2{n:04d}", "types": None} for n, row in enumerate(rows())]
    (tmp_path / "pictures").mkdir()
    stored = [{"id": f"n{n}", "image": questions.struct(n)} for n in range(20)]
    file = questions.parquet(tmp_path / "pictures" / "p.parquet", stored)
    for images in (file, str(tmp_path / "pictures")):
        records = gqa.read(questions.parquet(tmp_path / "q.parquet", made), images, print)
        assert records[59].pictures[0].read() == questions.picture(19)
        assert records[59].index == "20059"


def test_the_tsv_is_read(tmp_path):
    made = [
        {"index": n, "image": questions.text(n // 3), "question": row["question"], "answer": row["answer"]}
        for n, row in enumerate(rows())
    ]  # fmt: skip
    records = gqa.read(questions.tsv(tmp_path / "GQA_TestDev_Balanced.tsv", made), "", print)
    assert questions.score(gqa, records, answers(), "janus")["accuracy"] == pytest.approx(
        100 * 56 / 60
    )
    assert len(gqa.tally(records, [{"read": "", "right": 0.0}] * 60, "janus")) == 20
    assert gqa.ask(records[0], "janus")[1]["content"] == (
        "<image_placeholder>\nwhat of 0?\nAnswer the question using a single word or phrase."
    )
