import pytest
from support import questions

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval.understanding import seedbench


def rows():
    """60 on 30 pictures; the truth of row n is letter n % 4."""
    return [
        {
            "index": str(n), "image": questions.text(n // 2), "question": f"what of {n}?", "A": "a cat",
            "B": "a dog", "C": "a cow", "D": "an owl", "answer": "ABCD"[n % 4],
            "category": ("Scene Understanding", "Spatial Relation")[n // 30],
        }
        for n in range(60)
    ]  # fmt: skip


def answers():
    """Right in many forms, but the first five A, of which two are right, and 6 and 7 unread."""
    said = ("A", "(B)", "C. a cow", "D")
    out = [said[n % 4] for n in range(60)]
    return ["A"] * 5 + [out[5]] + ["a cat or a dog", ""] + out[8:]


def test_sixty_rows_score_what_was_counted_by_hand(tmp_path):
    records = seedbench.read(questions.tsv(tmp_path / "S.tsv", rows()), "", print)
    found = questions.score(seedbench, records, answers(), "janus")
    assert found["accuracy"] == pytest.approx(100 * 55 / 60)
    assert found["unread"] == pytest.approx(100 * 2 / 60)
    assert found["Scene Understanding"] == pytest.approx(100 * 25 / 30)
    assert found["Spatial Relation"] == 100
    # The first character of "(B)" is no letter; "a cat or a dog" begins with one.
    found = questions.score(seedbench, records, answers(), "lmms-eval")
    assert found["unread"] == pytest.approx(100 * (14 + 1) / 60)
    assert len(seedbench.tally(records, [{"read": "", "right": 0.0}] * 60, "janus")) == 30


def test_the_authors_json_and_parquet_leave_videos_out(tmp_path):
    made = [
        {
            "question_id": str(n), "question": row["question"], "answer": row["answer"], "data_id": f"{n // 2}_7",
            "choice_a": row["A"], "choice_b": row["B"], "choice_c": row["C"], "choice_d": row["D"],
            "question_type_id": 1, "data_type": "image" if n < 58 else "video",
        }
        for n, row in enumerate(rows())
    ]  # fmt: skip
    (tmp_path / "SEED-Bench.json").write_text(questions.json.dumps({"questions": made}))
    folder = questions.folder(tmp_path / "SEED-Bench-image", [f"{n}_7" for n in range(29)])
    listed = [row | {"image": [questions.struct(n // 2)]} for n, row in enumerate(made)]
    tsv = seedbench.read(questions.tsv(tmp_path / "S.tsv", rows()), "", print)[:58]
    for path, images in (
        (tmp_path / "SEED-Bench.json", folder),
        (questions.parquet(tmp_path / "s.parquet", listed), ""),
    ):
        said = []
        found = seedbench.read(str(path), images, said.append)
        assert "2 of 60 rows left out: not on a picture" in said[0]
        assert [(r.question, r.answer, r.options) for r in found] == [
            (r.question, r.answer, r.options) for r in tsv
        ]
        assert found[0].category == "type 1"


def test_the_words(tmp_path):
    record = seedbench.read(questions.tsv(tmp_path / "S.tsv", rows()[:1]), "", print)[0]
    options = "what of 0?\nA. a cat\nB. a dog\nC. a cow\nD. an owl\n"
    ends = "Answer with the option's letter from the given choices directly."
    assert seedbench.ask(record, "janus")[1]["content"].endswith(f"{options}\n{ends}")
    assert seedbench.ask(record, "lmms-eval")[0]["content"].endswith(f"{options}{ends}")


def test_a_file_without_answers_is_refused(tmp_path):
    made = [{k: v for k, v in row.items() if k != "answer"} for row in rows()]
    with pytest.raises(UsageError, match="no column answer"):
        seedbench.read(questions.tsv(tmp_path / "S.tsv", made), "", print)
