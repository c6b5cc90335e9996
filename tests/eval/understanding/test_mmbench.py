import pytest
from support import questions

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval.understanding import mmbench


def rows():
    """60: 20 questions of three options with two rotations each; the truth of row r is letter r."""
    out = []
    for rotation in range(3):
        for n in range(20):
            texts = [f"thing {(k - rotation) % 3} of {n}" for k in range(3)]
            out.append(
                {
                    "index": str(n + 241 + rotation * 1_000_000), "question": f"which of {n}?",
                    "image": questions.text(n) if rotation == 0 else str(n + 241),
                    "A": texts[0], "B": texts[1], "C": texts[2], "D": "", "answer": "ABC"[rotation],
                    "hint": "look" if n == 0 else "", "category": ("ocr", "logic")[n % 2],
                }
            )  # fmt: skip
    return out


def answers():
    """Right, but: questions 0 and 1 always A; the first rows of 2, 3, 4 say nothing that is read;
    5 says its option in words."""
    out = [row["answer"] for row in rows()]
    for rotation in range(3):
        for n in (0, 1):
            out[rotation * 20 + n] = "A"
    out[2:5] = ["I do not know"] * 3
    out[5] = "It is thing 0 of 5."
    return out


def test_sixty_rows_score_what_was_counted_by_hand(tmp_path):
    records = mmbench.read(questions.tsv(tmp_path / "M.tsv", rows()), "", print)
    found = questions.score(mmbench, records, answers(), "janus")
    assert found["vanilla"] == pytest.approx(100 * 17 / 20)  # 2, 3 and 4 are wrong
    assert found["vanilla_all"] == pytest.approx(100 * (17 + 18 + 18) / 60)
    assert found["circular"] == pytest.approx(100 * 15 / 20)  # 0 and 1 too
    assert found["unread"] == pytest.approx(100 * 3 / 60)
    assert found["vanilla/ocr"] == pytest.approx(100 * 8 / 10)
    assert found["vanilla/logic"] == pytest.approx(100 * 9 / 10)


def test_without_all_rotations_there_is_no_circular_score(tmp_path):
    said = []
    path = questions.tsv(tmp_path / "M.tsv", rows()[:20])
    records = mmbench.read(path, "", said.append)
    assert "20 of 20 questions lack rotations" in said[0]
    assert "circular" not in questions.score(mmbench, records, answers()[:20], "janus")
    whole = mmbench.read(questions.tsv(tmp_path / "N.tsv", rows()), "", print)
    part = questions.score(mmbench, whole[:45], answers()[:45], "janus")
    assert "circular" not in part and part["vanilla"] == 85


def test_the_words_are_the_authors_and_lmms_evals(tmp_path):
    record = mmbench.read(questions.tsv(tmp_path / "M.tsv", rows()), "", print)[0]
    options = "A. thing 0 of 0\nB. thing 1 of 0\nC. thing 2 of 0\n"
    ends = "\nAnswer with the option's letter from the given choices directly."
    assert mmbench.ask(record, "janus")[1]["content"] == (
        f"<image_placeholder>\nHint: look\nwhich of 0?\n{options}{ends}"
    )
    assert mmbench.ask(record, "lmms-eval")[0]["content"] == (
        f"<image_placeholder>\nlook which of 0? There are several options:\n{options}{ends}"
    )


def test_answers_that_are_no_option_and_lost_rotations_are_told_at_once(tmp_path):
    made = rows()
    made[3]["answer"] = "D"
    made[4] |= {"B": "", "C": "", "answer": "A"}
    made[6]["image"] = "QUJD" * 30
    with pytest.raises(UsageError) as caught:
        mmbench.read(questions.tsv(tmp_path / "M.tsv", made), "", print)
    said = str(caught.value)
    assert "row 4: answer 'D' is none of A, B, C" in said
    assert "row 5: 1 options, needs two or more" in said
    assert "row 7: image: is no picture" in said
    made = rows()
    made[41]["index"] = "2000999"
    with pytest.raises(UsageError, match="row 42: a rotation of row 999, which is not there"):
        mmbench.read(questions.tsv(tmp_path / "N.tsv", made), "", print)


def test_parquet_of_lmms_eval_is_read(tmp_path):
    made = [
        row
        | {
            "index": int(row["index"]),
            "image": questions.struct(n % 20),
            "D": "nan",
            "hint": row["hint"] or "nan",
        }
        for n, row in enumerate(rows())
    ]
    found = mmbench.read(questions.parquet(tmp_path / "m.parquet", made), "", print)
    tsv = mmbench.read(questions.tsv(tmp_path / "M.tsv", rows()), "", print)
    assert [(r.index, r.options, r.answer, r.facts) for r in found] == [
        (r.index, r.options, r.answer, r.facts) for r in tsv
    ]
