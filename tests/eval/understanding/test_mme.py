import pathlib

import pytest
from support import questions

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval.understanding import mme

KINDS = [*mme.CATEGORIES["perception"], *mme.CATEGORIES["cognition"]]


def rows():
    """60: pictures 0 to 29, of category number picture % 14, the truth Yes, then No."""
    return [
        {
            "index": str(n), "image": questions.text(n // 2), "category": KINDS[n // 2 % 14],
            "question": f"Question {n}? Please answer yes or no.", "answer": ("Yes", "No")[n % 2],
            "image_path": f"{KINDS[n // 2 % 14]}/{n // 2}.png",
        }
        for n in range(60)
    ]  # fmt: skip


def answers():
    """Yes to both questions of picture 0 (existence), neither read of 10 (commonsense), all else
    right."""
    out = ["Yes", "No"] * 30
    out[1] = "Yes, it is."
    out[20:22] = ["perhaps", "yes and no"]
    return out


def test_sixty_rows_score_what_was_counted_by_hand(tmp_path):
    records = mme.read(questions.tsv(tmp_path / "MME.tsv", rows()), "", print)
    found = questions.score(mme, records, answers(), "janus")
    # 30 pictures: existence and count have pictures 0, 14, 28 and 1, 15, 29, the others two each.
    assert found["perception/existence"] == pytest.approx(100 * 5 / 6 + 100 * 2 / 3)
    assert found["cognition/commonsense_reasoning"] == pytest.approx(100 * 2 / 4 + 100 * 1 / 2)
    assert found["perception"] == pytest.approx(9 * 200 + 150)
    assert found["cognition"] == pytest.approx(3 * 200 + 100)
    assert found["accuracy"] == pytest.approx(100 * 57 / 60)
    assert found["unread"] == pytest.approx(100 * 2 / 60)


def test_lmms_eval_reads_the_first_four_letters(tmp_path):
    records = mme.read(questions.tsv(tmp_path / "MME.tsv", rows()), "", print)
    said = {
        "Y.": "yes",
        "n": "no",
        "Yes and no": "yes",
        "not at all": "no",
        "well, yes": "",
        "k": "",
        "abcno": "",
    }
    assert {a: mme.mark(records[0], a, "lmms-eval")["read"] for a in said} == said


def test_a_part_of_the_categories_has_no_sum(tmp_path):
    part = [row for row in rows() if row["category"] != "OCR"]
    records = mme.read(questions.tsv(tmp_path / "MME.tsv", part), "", print)
    found = questions.score(mme, records, [record.answer for record in records], "janus")
    assert "perception" not in found
    assert found["cognition"] == 800
    assert found["perception/artwork"] == 200


def test_half_a_pair_has_no_acc_plus(tmp_path):
    records = mme.read(questions.tsv(tmp_path / "MME.tsv", rows()), "", print)[:5]
    marks = [mme.mark(record, record.answer, "janus") for record in records]
    units = mme.tally(records, marks, "janus")
    assert [unit[f"{kind}/pairs"] for unit, kind in zip(units, KINDS)] == [1, 1, 0]


def test_the_authors_folder_in_both_its_forms_is_read_as_the_tsv_is(tmp_path):
    for number, row in enumerate(rows()):
        folder = tmp_path / "MME" / row["category"]
        split = row["category"] in ("OCR", "posters")
        pictures = folder / "images" if split else folder
        words = folder / "questions_answers_YN" if split else folder
        for made in (pictures, words):
            made.mkdir(parents=True, exist_ok=True)
        (pictures / f"{number // 2}.jpg").write_bytes(questions.picture(number // 2))
        with open(words / f"{number // 2}.txt", "a") as opened:
            opened.write(f"{row['question']}\t{row['answer']}\n")
    own = mme.read(str(tmp_path / "MME"), "", print)
    tsv = mme.read(questions.tsv(tmp_path / "MME.tsv", rows()), "", print)
    key = lambda record: record.question
    for a, b in zip(sorted(own, key=key), sorted(tsv, key=key), strict=True):
        assert (a.question, a.answer, a.category) == (b.question, b.answer, b.category)
        assert pathlib.Path(a.pictures[0]).read_bytes() == b.pictures[0].read()


def test_parquet_of_lmms_eval_is_read(tmp_path):
    made = [
        {
            "question_id": row["image_path"], "image": questions.struct(n // 2), "question": row["question"],
            "answer": row["answer"], "category": row["category"],
        }
        for n, row in enumerate(rows())
    ]  # fmt: skip
    records = mme.read(questions.parquet(tmp_path / "mme.parquet", made), "", print)
    assert questions.score(mme, records, answers(), "janus")["perception"] == pytest.approx(1950)
    assert mme.ask(records[0], "lmms-eval")[0]["content"].endswith(
        "\nQuestion 0?\nAnswer the question using a single word or phrase."
    )
    assert "Please answer yes or no." in mme.ask(records[0], "janus")[1]["content"]


def test_pictures_without_two_questions_and_odd_answers_are_told_at_once(tmp_path):
    made = rows()
    made[4]["answer"] = "perhaps"
    made[7]["category"] = "colour"
    with pytest.raises(UsageError) as caught:
        mme.read(questions.tsv(tmp_path / "MME.tsv", made), "", print)
    said = str(caught.value)
    assert "row 5: answer 'perhaps'" in said
    assert "row 8: category 'colour'" in said
    with pytest.raises(UsageError, match=r"/0\.png: 1 questions, a picture has two"):
        mme.read(questions.tsv(tmp_path / "N.tsv", rows()[1:]), "", print)
