"""A benchmark's answers at any scale: shares, kills, and pictures that cannot be read."""

import json

import pytest
from support.sampling import picture, said

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import answering
from janus_jax.eval.benchmark import Record
from janus_jax.sample.understand import understand, understand_batch

RECORDS = [
    Record(str(i), f"what is {'there ' * (i % 3)}{i}?", (picture(i),) if i % 4 else ())
    for i in range(10)
]


def ask(record):
    return said(record.question, *record.pictures)


@pytest.fixture
def answer(model, processor, monkeypatch):
    monkeypatch.setattr(answering, "AT_ONCE", 4)

    def call(conversations, **how):
        answer.batches.append(len(conversations))
        return understand_batch(model, processor, conversations, **how)

    def answer(folder, records=RECORDS, share=(0, 1)):
        folder.mkdir(exist_ok=True)
        answering.answer_all(call, records, folder, ask, max_new_tokens=4, share=share)

    answer.batches = []
    return answer


def test_answers_of_batches_and_shares_are_those_of_one_question_alone(
    answer, model, processor, tmp_path
):
    for index in range(2):
        answer(tmp_path / "shared", share=(index, 2))
    told = answering.gather(tmp_path / "shared", RECORDS)
    alone = [understand(model, processor, ask(record), max_new_tokens=4) for record in RECORDS]
    assert [one["answer"] for one in told] == alone
    assert len(set(alone)) > 3
    assert [p.name for p in (tmp_path / "shared").iterdir()] == [answering.ANSWERS]
    lines = (tmp_path / "shared" / answering.ANSWERS).read_text("utf-8").splitlines()
    assert [json.loads(line)["index"] for line in lines] == [record.index for record in RECORDS]


def test_a_line_that_a_kill_has_cut_is_answered_again_and_no_other(answer, tmp_path):
    answer(tmp_path)
    path = tmp_path / "answers.0.jsonl"
    whole = path.read_bytes()
    before = answering.answers_of(tmp_path)
    path.write_bytes(whole[:-5])
    answer.batches.clear()
    answer(tmp_path)
    assert answering.answers_of(tmp_path) == before
    assert len(answer.batches) == 1
    answer(tmp_path)
    assert len(answer.batches) == 1


def test_a_picture_that_cannot_be_read_is_told_and_the_others_are_answered(answer, tmp_path):
    bad = Record("bad", "what?", (str(tmp_path / "gone.png"),))
    answer(tmp_path / "out", [*RECORDS[:3], bad])
    told = answering.gather(tmp_path / "out", [*RECORDS[:3], bad])
    assert ["answer" in one for one in told] == [True, True, True, False]
    assert "gone.png" in told[3]["error"]
    picture(9).save(tmp_path / "gone.png")  # mended, it is asked again
    answer(tmp_path / "out", [*RECORDS[:3], bad])
    again = answering.gather(tmp_path / "out", [*RECORDS[:3], bad])
    assert again[:3] == [{"question": r.question, **t} for r, t in zip(RECORDS, told[:3])]
    assert "answer" in again[3]


def test_what_was_never_asked_stays_open(answer, tmp_path):
    answer(tmp_path / "out", RECORDS[:4])
    told = answering.gather(tmp_path / "out", RECORDS)
    assert [one.get("error") for one in told] == [None] * 4 + ["not answered"] * 6
    assert answering.unanswered(tmp_path / "out", RECORDS) == {r.index for r in RECORDS[4:]}
    with pytest.raises(UsageError, match=r"answers\.jsonl:5: no answer of janus-jax eval"):
        with open(tmp_path / "out" / "answers.jsonl", "a") as out:
            out.write("{}\n")
        answering.answers_of(tmp_path / "out")


def test_answers_made_elsewhere_are_taken_from_json_lines_and_tsv(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(f'{{"index": "{r.index}", "answer": "yes {r.index}"}}\n' for r in RECORDS)
    )
    rows = "".join(f"{r.index}\tthe truth\tyes {r.index}\n" for r in RECORDS)
    (tmp_path / "a.tsv").write_text(f"index\tanswer\tprediction\n{rows}")
    for name in ("a.jsonl", "a.tsv"):
        folder = tmp_path / f"of_{name}"
        folder.mkdir()
        answering.take(answering.made_elsewhere(tmp_path / name, RECORDS), folder)
        told = answering.gather(folder, RECORDS)
        assert [one["answer"] for one in told] == [f"yes {r.index}" for r in RECORDS]


def test_answers_made_elsewhere_that_do_not_fit_are_all_told(tmp_path):
    lines = [
        '{"index": "0", "answer": "a"}',
        '{"index": "0", "answer": "b"}',
        '{"index": "99", "answer": "c"}',
        '{"index": "1"}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(UsageError) as error:
        answering.made_elsewhere(tmp_path / "a.jsonl", RECORDS)
    told = str(error.value)
    assert "line 2: index 0 has an answer before" in told
    assert "line 3: index '99' is no record's" in told
    assert "line 4: no text" in told and "no answer to 9 records, the first 1" in told
