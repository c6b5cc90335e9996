import pytest
from support import questions

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval.understanding import mmmu


def rows():
    """60 of validation and 2 of dev: every sixth is open, every third has two pictures."""
    out = []
    for n in range(62):
        is_open = n % 6 == 5
        out.append(
            {
                "index": str(n), "id": f"{'validation' if n < 60 else 'dev'}_{('Art_Theory', 'Math')[n % 2]}_{n}",
                "question": f"what is in <image 1> of {n}?", "split": "validation" if n < 60 else "dev",
                "image": questions.text(n, n + 1) if n % 3 == 0 else questions.text(n),
                "A": "" if is_open else "a red fish",
                "B": "" if is_open else ("<image 2>" if n % 3 == 0 else "a blue fish"),
                "answer": "42" if is_open else "AB"[n % 2],
            }
        )  # fmt: skip
    return out


def answers():
    """Right, but 0, 1 and 2 take the other letter, 3 and 4 none, and 5 says another number."""
    out = [row["answer"] for row in rows()[:60]]
    return ["B", "A", "B", "neither, I would say", "", "41", *out[6:]]


def test_sixty_rows_score_what_was_counted_by_hand(tmp_path):
    said = []
    records = mmmu.read(questions.tsv(tmp_path / "MMMU_DEV_VAL.tsv", rows()), "", said.append)
    assert "2 of 62 rows left out: not of the validation split" in said[0]
    found = questions.score(mmmu, records, answers(), "janus")
    assert found["accuracy"] == pytest.approx(100 * 54 / 60)
    assert found["unread"] == pytest.approx(100 * 3 / 60)
    assert found["guessed"] == 0
    assert found["Art_Theory"] == found["Math"] == pytest.approx(100 * 27 / 30)


def test_mmmus_rules_guess_the_same_every_time(tmp_path):
    records = mmmu.read(questions.tsv(tmp_path / "MMMU_DEV_VAL.tsv", rows()), "", print)
    found = questions.score(mmmu, records, answers(), "lmms-eval")
    guesses = [mmmu.mark(records[n], answers()[n], "lmms-eval") for n in (3, 4)]
    assert [guess["guessed"] for guess in guesses] == [True, True]
    assert found["guessed"] == pytest.approx(100 * 2 / 60)
    assert found["accuracy"] == pytest.approx(100 * (54 + sum(g["right"] for g in guesses)) / 60)
    many = [mmmu.letter_or_guess("", dict.fromkeys("ABCD", "x"), str(n))[0] for n in range(400)]
    assert many == [
        mmmu.letter_or_guess("", dict.fromkeys("ABCD", "x"), str(n))[0] for n in range(400)
    ]
    assert all(70 < many.count(letter) < 130 for letter in "ABCD")


def test_pictures_come_first_or_where_they_are_named(tmp_path):
    record = mmmu.read(questions.tsv(tmp_path / "MMMU_DEV_VAL.tsv", rows()), "", print)[0]
    assert mmmu.ask(record, "janus")[1] == {
        "role": "user",
        "content": "<image_placeholder><image_placeholder>\nwhat is in <image 1> of 0?\nA. a red fish\n"
        "B. <image 2>\n\nAnswer with the option's letter from the given choices directly.",
        "images": list(record.pictures),
    }
    parts = mmmu.ask(record, "lmms-eval")[0]["content"]
    assert [part["type"] for part in parts] == ["text", "image", "text", "image", "text"]
    assert parts[0]["text"] == "what is in"
    assert parts[2]["text"] == "of 0?\nA. a red fish\nB."
    assert parts[3]["image"] == record.pictures[1]
    assert parts[4]["text"] == "Answer with the option's letter from the given choices directly."


def test_parquet_has_its_options_in_a_string(tmp_path):
    made = [
        {
            "id": row["id"], "question": row["question"], "answer": row["answer"],
            "options": "[]" if not row["A"] else str([row["A"], row["B"]]),
            "question_type": "multiple-choice" if row["A"] else "open", "image_1": questions.struct(n),
            "image_2": questions.struct(n + 1) if n % 3 == 0 else None,
        }
        for n, row in enumerate(rows())
    ]  # fmt: skip
    found = mmmu.read(questions.parquet(tmp_path / "m.parquet", made), "", print)
    tsv = mmmu.read(questions.tsv(tmp_path / "MMMU_DEV_VAL.tsv", rows()), "", print)
    assert [(r.index, r.question, r.options, r.answer, r.category) for r in found] == [
        (r.index, r.question, r.options, r.answer, r.category) for r in tsv
    ]
    assert [p.read() for p in found[3].pictures] == [p.read() for p in tsv[3].pictures]


def test_a_number_is_that_of_the_column(tmp_path):
    made = [
        {
            "id": "validation_Art_1", "question": "what is in <image 3>?", "answer": "A", "options": "['x', 'y']",
            "image_1": questions.struct(1), "image_2": None, "image_3": questions.struct(3),
        },
        {
            "id": "validation_Art_2", "question": "<image 1>?", "answer": "A", "options": "['x', 'y']",
            "image_1": questions.struct(4), "image_2": questions.struct(5), "image_3": None,
        },
    ]  # fmt: skip
    record = mmmu.read(questions.parquet(tmp_path / "m.parquet", made), "", print)[0]
    shown = [
        p["image"] for p in mmmu.ask(record, "lmms-eval")[0]["content"] if p["type"] == "image"
    ]
    assert [picture.read() for picture in shown] == [questions.picture(3)]


def test_a_picture_that_is_named_and_not_there_is_told(tmp_path):
    made = rows()
    made[1]["question"] = "compare <image 1> and <image 3>"
    made[2]["answer"] = "E"
    with pytest.raises(UsageError) as caught:
        mmmu.read(questions.tsv(tmp_path / "MMMU_DEV_VAL.tsv", made), "", print)
    assert "row 2: names <image 3>, which it does not have (1 pictures)" in str(caught.value)
    assert "row 3: answer 'E' is none of A, B" in str(caught.value)
