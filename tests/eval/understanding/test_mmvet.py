import json

import pytest
from support import questions

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval.understanding import mmvet

KINDS = (["rec"], ["ocr", "math"], ["rec", "know", "gen"], ["ocr", "spat"])


def rows():
    return {
        f"v1_{n}": {
            "imagename": f"v1_{n}.png", "question": f"what of {n}?", "answer": "a<AND>b", "imagesource": "x",
            "capability": KINDS[n % 4],
        }
        for n in range(60)
    }  # fmt: skip


def own(tmp_path):
    (tmp_path / "mm-vet.json").write_text(json.dumps(rows()))
    images = questions.folder(tmp_path / "images", [f"v1_{n}.png" for n in range(60)])
    return mmvet.read(str(tmp_path / "mm-vet.json"), images, print)


def test_sixty_rows_score_what_was_counted_by_hand(tmp_path):
    records = own(tmp_path)
    marks = [mmvet.mark(record, "b", "janus") for record in records]
    for n, mark in enumerate(marks):  # a judge: 1 for the first kind, 0.5 for the second, then 0
        mark["right"] = (1.0, 0.5, 0.0, 0.0)[n % 4]
    sums = {}
    for unit in mmvet.tally(records, marks, "janus"):
        for name, value in unit.items():
            sums[name] = sums.get(name, 0) + value
    assert mmvet.scores(sums, "janus") == pytest.approx(
        {"total": 37.5, "rec": 50, "ocr": 25, "know": 0, "gen": 0, "spat": 0, "math": 50}
    )


def test_while_one_answer_has_no_verdict_there_is_no_score(tmp_path):
    records = own(tmp_path)
    marks = [mmvet.mark(record, "b", "janus") | {"right": 1.0} for record in records]
    marks[7]["right"] = None
    sums = {}
    for unit in mmvet.tally(records, marks, "janus"):
        for name, value in unit.items():
            sums[name] = sums.get(name, 0) + value
    assert mmvet.scores(sums, "janus") == {"unjudged": 1}
    assert questions.score(mmvet, records, ["b"] * 60, "janus") == {"unjudged": 60}


def test_parquet_and_tsv_give_the_same_records(tmp_path):
    first = own(tmp_path)
    stored = [
        {
            "question_id": index, "question": row["question"], "answer": row["answer"],
            "capability": ",".join(row["capability"]), "image": questions.struct(n),
        }
        for n, (index, row) in enumerate(rows().items())
    ]  # fmt: skip
    tsv = [
        {
            "index": n, "image": questions.text(n), "question": row["question"], "answer": row["answer"],
            "category": row["capability"],
        }
        for n, row in enumerate(stored)
    ]  # fmt: skip
    said = []
    for path in (
        questions.parquet(tmp_path / "p.parquet", stored),
        questions.tsv(tmp_path / "t.tsv", tsv),
    ):
        found = mmvet.read(path, "", said.append)
        assert [(r.index, r.question, r.answer, r.facts) for r in found] == [
            (r.index, r.question, r.answer, r.facts) for r in first
        ]
    assert len(said) == 1 and "row N is taken for the authors' v1_N" in said[0]


def test_without_a_judge_the_authors_evaluator_gets_its_file(tmp_path):
    records = own(tmp_path)
    made = json.loads(mmvet.judge_file(records, [f"answer {n}" for n in range(60)]))
    assert made["v1_7"] == "answer 7" and len(made) == 60
    told = mmvet.judge_advice("out/results/janus.json")
    assert "--result_path=out/results --model=janus " in told and "MM-Vet_Evaluator" in told


def test_the_authors_grades_are_read_back_and_failed_ones_are_named(tmp_path):
    records = own(tmp_path)
    graded = {
        record.index: {"model": ["gpt-4-0613"] * 2, "content": ["0.5", "1.0"], "score": [0.5, 1.0]}
        for record in records
    }
    path = tmp_path / "janus_gpt-4-0613-grade-2runs.json"
    path.write_text(json.dumps(graded))
    assert mmvet.judge_results(str(path), records) == {f"v1_{n}": 0.75 for n in range(60)}
    graded["v1_3"] = {"model": ["m"], "content": ["I cannot"], "score": [0.0]}
    del graded["v1_9"]
    path.write_text(json.dumps(graded))
    with pytest.raises(UsageError) as caught:
        mmvet.judge_results(str(path), records)
    said = str(caught.value)
    assert "2 of 60 answers have no verdict" in said
    assert "v1_3: no verdict (replies ['I cannot'])" in said and "v1_9: is not there" in said


def test_a_verdict_is_a_number_from_0_to_1():
    said = {
        "0.5": 0.5,
        " 1.0\n": 1.0,
        "0.3 since": 0.3,
        "1.5": None,
        "-1": None,
        "nan": None,
        "": None,
        "good": None,
    }
    assert {reply: mmvet.verdict(reply) for reply in said} == said


def test_the_words_are_the_authors(tmp_path):
    record = own(tmp_path)[0]
    system, asked = mmvet.ask(record, "janus")
    assert system["content"].startswith("You are a helpful assistant. Please answer truthfully")
    assert asked["content"] == "<image_placeholder>\nwhat of 0?"
    assert mmvet.to_judge(record, "b").endswith(" | 1.0\n\nwhat of 0? | a <AND> b | b | ")


def test_an_unknown_ability_is_told(tmp_path):
    made = rows()
    made["v1_3"]["capability"] = ["smell"]
    (tmp_path / "mm-vet.json").write_text(json.dumps(made))
    images = questions.folder(tmp_path / "images", [f"v1_{n}.png" for n in range(60)])
    with pytest.raises(UsageError, match=r"record 4: ability \['smell'\]"):
        mmvet.read(str(tmp_path / "mm-vet.json"), images, print)
