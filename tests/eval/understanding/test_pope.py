import pathlib

import pytest
from support import questions

from janus_jax.eval.understanding import pope

SPLITS = ("random", "popular", "adversarial")


def rows():
    """60: 20 pictures with 3 questions, the truth yes, no, yes; 20 of each split."""
    return [
        {
            "index": str(n),
            "image": questions.text(n // 3),
            "question": f"Is there a cat in the image ({n})? Please answer yes or no.",
            "answer": "No" if n % 3 == 1 else "Yes",
            "category": SPLITS[n // 20],
        }
        for n in range(60)
    ]


def answers(records):
    """Right, but: records 0 to 9 "No.", 10 to 14 "Yes, there is", 15 and 16 "maybe"."""
    said = {"yes": "Yes", "no": "no"}
    out = [said[record.answer] for record in records]
    return ["No."] * 10 + ["Yes, there is"] * 5 + ["maybe"] * 2 + out[17:]


def test_sixty_rows_score_what_was_counted_by_hand(tmp_path):
    records = pope.read(questions.tsv(tmp_path / "POPE.tsv", rows()), "", print)
    found = questions.score(pope, records, answers(records), "janus")
    # Records 0 to 9 are no where n % 3 == 1: 1, 4, 7, so 3 right and 7 yes missed. Of 10 to 14 yes
    # is said to 10 and 13, whose truth is no: 3 right. 15 and 16 are unread; 15 is a yes missed.
    # Right: 3 + 3 + 43 = 49.
    assert found["accuracy"] == pytest.approx(100 * 49 / 60)
    assert found["unread"] == pytest.approx(100 * 2 / 60)
    # Yes of 60: 40; missed 8, so 32 are found; said wrongly 2.
    assert found["precision"] == pytest.approx(100 * 32 / 34)
    assert found["recall"] == pytest.approx(100 * 32 / 40)
    assert found["f1"] == pytest.approx(100 * 2 * 32 / (34 + 40))
    assert found["yes_ratio"] == pytest.approx(100 * 34 / 60)
    assert found["random/accuracy"] == pytest.approx(100 * 9 / 20)
    assert found["popular/accuracy"] == found["adversarial/f1"] == 100


def test_lmms_eval_reads_nothing_but_the_word(tmp_path):
    records = pope.read(questions.tsv(tmp_path / "POPE.tsv", rows()), "", print)
    found = questions.score(pope, records, answers(records), "lmms-eval")
    assert found["accuracy"] == pytest.approx(100 * 43 / 60)
    assert found["unread"] == pytest.approx(100 * 17 / 60)
    assert found["recall"] == 100  # what is neither is left out


def test_a_row_of_two_splits_counts_in_each(tmp_path):
    two = [rows()[0] | {"category": "random,popular"}, rows()[1] | {"category": "random"}]
    records = pope.read(questions.tsv(tmp_path / "POPE.tsv", two), "", print)
    found = questions.score(pope, records, ["yes", "yes"], "janus")
    assert found["random/accuracy"] == 50
    assert found["popular/accuracy"] == 100
    assert found["accuracy"] == pytest.approx(100 * 2 / 3)
    assert "adversarial/accuracy" not in found


def test_the_unit_is_a_picture_with_its_questions(tmp_path):
    records = pope.read(questions.tsv(tmp_path / "POPE.tsv", rows()), "", print)
    marks = [pope.mark(record, record.answer, "janus") for record in records]
    units = pope.tally(records, marks, "janus")
    assert [unit["all/asked"] for unit in units] == [3] * 20


def test_parquet_and_the_authors_files_give_the_same_records(tmp_path):
    made = rows()
    parquet = [
        {
            "id": str(n), "question_id": str(n % 20), "question": row["question"],
            "answer": row["answer"].lower(), "image_source": f"COCO_{n // 3}", "image": questions.struct(n // 3),
            "category": row["category"],
        }
        for n, row in enumerate(made)
    ]  # fmt: skip
    for k, split in enumerate(SPLITS):
        part = [
            {
                "question_id": n, "image": f"{n // 3}.png", "label": row["answer"].lower(),
                "text": row["question"].removesuffix(" Please answer yes or no."),
            }
            for n, row in enumerate(made) if n // 20 == k
        ]  # fmt: skip
        (tmp_path / "own").mkdir(exist_ok=True)
        questions.lines(tmp_path / "own" / f"coco_pope_{split}.json", part)
    images = questions.folder(tmp_path / "val2014", [f"{n}.png" for n in range(20)])
    first = pope.read(questions.tsv(tmp_path / "POPE.tsv", made), "", print)
    for path, folder in (
        (questions.parquet(tmp_path / "p.parquet", parquet), ""),
        (tmp_path / "own", images),
    ):
        found = pope.read(str(path), folder, print)
        key = lambda record: record.category
        for a, b in zip(sorted(first, key=key), sorted(found, key=key), strict=True):
            assert (a.answer, a.category) == (b.answer, b.category)
            assert content(a.pictures[0]) == content(b.pictures[0])
            asked = [pope.ask(record, "janus")[-1]["content"] for record in (a, b)]
            assert asked[0] == asked[1]
        assert len({record.facts["picture"] for record in found}) == 20


def content(picture) -> bytes:
    return pathlib.Path(picture).read_bytes() if isinstance(picture, str) else picture.read()


def test_the_words_are_the_authors(tmp_path):
    record = pope.read(questions.tsv(tmp_path / "POPE.tsv", rows()[:1]), "", print)[0]
    asked = pope.ask(record, "janus")
    assert asked[0] == {"role": "system", "content": ""}
    assert asked[1]["content"] == (
        "<image_placeholder>\nIs there a cat in the image (0)?\n"
        "Answer the question using a single word or phrase."
    )
    other = pope.ask(record, "lmms-eval")
    assert len(other) == 1 and "Please answer yes or no." in other[0]["content"]
