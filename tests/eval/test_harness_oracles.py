"""The marks of a thousand made answers, equal to those of the harnesses' own functions.

Needs lmms-eval 0.7.3 and ms-vlmeval 0.0.20 (CONTRIBUTING.md says how to run it). Where we differ by
design, the made answers leave the case out or the test says it:

* POPE's yes ratio: lmms-eval takes it of the truth, here it is of the answers.
* MMMU's guess: there a random number without a seed, here a hash of the question.
* MMMU, open questions: an answer that is a list is compared there as the list's text.
* Letters: VLMEvalKit knows the sentences by which GPT-4V and others refuse; here they are read as
  any other answer.
* MM-Vet by ability: VLMEvalKit counts a question that takes one ability alone twice for it; its
  authors, lmms-eval and we do not. The made questions take several.
* MMBench under lmms-eval: answers without a letter go to a judge, or, in its task "static", to
  another rule; here both protocols are read as VLMEvalKit reads.
"""

import random
import string

import numpy as np
import pytest
from support import questions
from support.harnesses import harness

from janus_jax.eval import choices, normalise, open_answers
from janus_jax.eval.benchmark import Record
from janus_jax.eval.understanding import gqa, mmbench, mme, mmmu, mmvet, pope, seedbench, vqav2

COUNT = 1000
WORDS = (
    "yes", "no", "Yes", "No.", "YES,", "not", "nothing", "y", "N", "the", "A", "a", "an", "B", "(C)", "D.", "E:",
    "answer", "is", "two", "dogs", "2", "none", "ten", "dont", "can't", "somebody'd", "youdve", "t-shirt", "1,000",
    "3.5", "e.g.", "left/right", "cat;", "[red]", "blue?", "café", "I", "think", "so", "option", "Z", "1e-3", "=",
    "42.", "maybe!", "it's", "12,345.6", "DNA", "could be",
)  # fmt: skip


def made(seed: int, count: int = COUNT) -> list[str]:
    """Answers of one to twelve words, with odd spaces, marks and lines."""
    rng = random.Random(seed)
    out = ["", " ", "\n", ".", "yes no", "Yes\n", " no "]
    while len(out) < count:
        words = rng.choices(WORDS, k=rng.choice((1, 1, 1, 2, 3, 6, 12)))
        between = rng.choice((" ", " ", " ", "  ", "\n", ", ", ". ", "\t"))
        out.append(between.join(words) + rng.choice(("", "", ".", " .", "!", "\n")))
    return out


def asked(seed: int) -> list[tuple[str, dict[str, str], str]]:
    """(answer, options, right letter): answers often hold an option's text."""
    rng = random.Random(seed)
    out = []
    for answer in made(seed):
        count = rng.choice((2, 3, 4, 5))
        texts = rng.sample(
            ["red dog", "Two cats", "no", "a boat", "42", "left/right", "DNA"], count
        )
        options = dict(zip(string.ascii_uppercase, texts))
        if rng.random() < 0.3:
            answer += f" {rng.choice(texts)}"
        out.append((answer, options, rng.choice(list(options))))
    return out


def test_popes_scores_are_those_of_both():
    lmms = harness("lmms_eval.tasks.pope.utils")
    records = [
        Record(
            str(n),
            "q",
            ("p",),
            random.Random(n).choice(("yes", "no")),
            {},
            "random",
            {"picture": n // 3},
        )
        for n in range(COUNT)
    ]
    answers = made(1)
    found = questions.score(pope, records, answers, "lmms-eval")
    theirs = [
        lmms.pope_process_results({"question_id": r.index, "answer": r.answer}, [a])[
            "pope_accuracy"
        ]
        for r, a in zip(records, answers)
    ]
    for name in ("accuracy", "precision", "recall"):
        assert found[name] == pytest.approx(100 * getattr(lmms, f"pope_aggregate_{name}")(theirs))
    assert found["f1"] == pytest.approx(100 * lmms.pope_aggregate_f1_score(theirs))


def test_popes_scores_by_split_are_vlmevalkits(tmp_path, monkeypatch):
    yorn = harness("vlmeval.dataset.utils.yorn")
    import pandas

    rng = random.Random(2)
    splits = ("random", "popular,adversarial", "adversarial", "random,popular,adversarial")
    records = [
        Record(
            str(n), "q", ("p",), rng.choice(("yes", "no")), {}, rng.choice(splits), {"picture": n}
        )
        for n in range(COUNT)
    ]
    answers = made(2)
    table = pandas.DataFrame(
        {
            "index": range(COUNT), "category": [r.category for r in records],
            "answer": [r.answer.capitalize() for r in records],
            "extracted": [yorn.YOrN_Extraction(a) for a in answers],
        }
    )  # fmt: skip
    table["score"] = table["answer"] == table["extracted"]
    monkeypatch.setattr(yorn, "load", lambda path: table)
    found = questions.score(pope, records, answers, "janus")
    for _, row in yorn.POPE_rating("").iterrows():
        before = "" if row["split"] == "Overall" else f"{row['split']}/"
        for ours, theirs in (
            ("f1", "Overall"),
            ("accuracy", "acc"),
            ("precision", "precision"),
            ("recall", "recall"),
        ):
            assert found[before + ours] == pytest.approx(row[theirs]), (row["split"], ours)


def test_mmes_points_are_those_of_both(monkeypatch):
    lmms = harness("lmms_eval.tasks.mme.utils")
    yorn = harness("vlmeval.dataset.utils.yorn")
    import pandas

    names = [*mme.CATEGORIES["perception"], *mme.CATEGORIES["cognition"]]
    records = [
        Record(
            str(n), "q", ("p",), ("yes", "no")[n % 2], {}, names[n // 2 % 14],
            {"picture": (names[n // 2 % 14], str(n // 2))},
        )
        for n in range(COUNT)
    ]  # fmt: skip
    answers = [a if n % 3 else ("Yes", "No")[n % 2] for n, a in enumerate(made(3))]
    found = questions.score(mme, records, answers, "lmms-eval")
    theirs = {"mme_perception_score": [], "mme_cognition_score": []}
    for record, answer in zip(records, answers):
        doc = {
            "question_id": str(record.facts["picture"]),
            "category": record.category,
            "answer": record.answer,
        }
        for name, value in lmms.mme_process_results(doc, [answer]).items():
            theirs[name].append(value)
    for part in ("perception", "cognition"):
        assert found[part] == pytest.approx(lmms.mme_aggregate_results(theirs[f"mme_{part}_score"]))
    for answer in made(3):
        other = lmms.parse_pred_ans(answer)
        assert mme.mark(records[0], answer, "lmms-eval")["read"] == other.replace("other", "")

    extracted = [yorn.YOrN_Extraction(a) for a in answers]
    score = [e.lower() == r.answer for e, r in zip(extracted, records)]
    table = pandas.DataFrame(
        {
            "category": [r.category for r in records], "score": score,
            "image_path": [str(r.facts["picture"]) for r in records],
        }
    )  # fmt: skip
    monkeypatch.setattr(yorn, "load", lambda path: table)
    found = questions.score(mme, records, answers, "janus")
    theirs = yorn.MME_rating("").iloc[0]
    assert found["perception"] == pytest.approx(theirs["perception"])
    assert found["cognition"] == pytest.approx(theirs["reasoning"])


def test_yes_and_no_are_vlmevalkits():
    yorn = harness("vlmeval.dataset.utils.yorn")
    for answer in made(4):
        assert normalise.yes_or_no(answer) == yorn.YOrN_Extraction(answer).lower().replace(
            "unknown", ""
        )


def test_the_form_of_vqa_is_lmms_evals():
    metric = harness("lmms_eval.tasks._task_utils.vqa_eval_metric")
    processor = metric.EvalAIAnswerProcessor()
    table = {k: v for k, v in processor.CONTRACTIONS.items() if k != v}
    capitals = {"Id've", "I'dve", "Im", "Ive"}  # answers are lower case by then
    assert {k: v for k, v in table.items() if k not in capitals} == normalise._MENDED
    for answer in [*made(5), "." * 40, *table, *processor.NUMBER_MAP]:
        stripped = answer.replace("\n", " ").replace("\t", " ").strip()
        theirs = processor.process_digit_article(processor.process_punctuation(stripped))
        assert normalise.vqa_form(answer) == theirs, answer


def test_vqav2s_accuracy_is_lmms_evals():
    lmms = harness("lmms_eval.tasks.vqav2.utils")
    rng = random.Random(6)
    pool = made(6)
    for answer in made(7):
        people = tuple(rng.choices([answer, answer.lower(), *rng.sample(pool, 3)], k=10))
        doc = {
            "question_id": 1,
            "answers": [{"answer": p, "answer_id": k} for k, p in enumerate(people)],
        }
        theirs = lmms.vqav2_process_results(doc, [answer])["exact_match"]
        ours = vqav2.mark(Record("1", "q", (), people), answer, "lmms-eval")["right"]
        assert ours == pytest.approx(theirs)


def test_gqas_match_is_that_of_both():
    metrics = harness("lmms_eval.api.metrics")
    vqa = harness("vlmeval.dataset.utils.vqa_eval")
    rng = random.Random(8)
    for answer in made(9):
        truth = rng.choice([answer, answer.lower(), answer.strip(" .\n"), "two dogs"])
        record = Record("1", "q", (), truth)
        theirs = metrics.exact_match_hf_evaluate(
            [answer], [truth], ignore_case=True, ignore_punctuation=True
        )["exact_match"]
        assert gqa.mark(record, answer, "lmms-eval")["right"] == theirs, (answer, truth)
        theirs = vqa.process_line({"answer": truth, "prediction": answer}, method="accuracy")[
            "match"
        ]
        assert gqa.mark(record, answer, "janus")["right"] == theirs[0]


def test_letters_are_vlmevalkits():
    matching = harness("vlmeval.utils.matching_util")
    for answer, options, right in asked(10):
        theirs = matching.can_infer(answer, dict(options)) or "Z"
        assert choices.letter_in(answer, options) == theirs.replace("Z", ""), (answer, options)
        record = Record("1", "q", (), right, options, "", {"group": "1", "rotations": 1})
        for module in (mmbench, seedbench):
            assert module.mark(record, answer, "janus")["right"] == float(theirs == right)


def test_mmbenchs_circular_score_is_vlmevalkits(tmp_path):
    module = harness("vlmeval.dataset.utils.multiple_choice")
    import pandas

    rng = random.Random(11)
    records = []
    answers = []
    for n in range(COUNT // 4):
        for rotation in range(3):
            right = rng.choice("ABC")
            index = str(n + rotation * mmbench.ROTATION)
            facts = {"group": str(n), "rotations": 3, "hint": None}
            options = {"A": "red", "B": "two dogs", "C": "blue"}
            records.append(Record(index, "q", (), right, options, "c", facts))
            answers.append(rng.choice([right, right, right, f"({right})", "two dogs", "none"]))
    table = pandas.DataFrame(
        {
            "index": [int(r.index) for r in records], "answer": [r.answer for r in records],
            "prediction": answers, **{k: [r.options[k] for r in records] for k in "ABC"},
        }
    )  # fmt: skip
    theirs = module.mcq_circular_eval(
        None, table, table, 1, str(tmp_path / "r.pkl"), "MMBench_DEV_EN"
    )
    found = questions.score(mmbench, records, answers, "janus")
    assert found["circular"] == pytest.approx(100 * theirs["hit"].mean())


def test_seeds_first_letter_is_lmms_evals():
    lmms = harness("lmms_eval.tasks.seedbench.utils")
    for answer, options, right in asked(12):
        doc = {"answer": right, "data_type": "image", "question_id": "1"}
        theirs = lmms.seed_aggregation_result([lmms.seed_process_result(doc, [answer])["seed_all"]])
        ours = seedbench.mark(Record("1", "q", (), right, options), answer, "lmms-eval")
        assert ours["right"] == theirs


def test_mmmus_letters_and_open_answers_are_lmms_evals(monkeypatch):
    lmms = harness("lmms_eval.tasks.mmmu.utils")
    shared = harness("lmms_eval.tasks._task_utils.mmmu_mcq_utils")
    monkeypatch.setattr(shared.random, "choice", lambda choices: "a guess")
    guesses = 0
    for answer, options, _ in asked(13):
        theirs = lmms.parse_multi_choice_response(answer, list(options), dict(options))
        letter, guessed = choices.letter_or_guess(answer, options, "1")
        assert (theirs == "a guess") == guessed
        assert guessed or letter == theirs, (answer, options)
        guesses += guessed
    assert 0 < guesses < COUNT
    rng = random.Random(14)
    for answer in made(15):
        truth = rng.choice(
            ["42", "two dogs", "1,000", "0.001", "B", "is", "-3.50", rng.choice(WORDS)]
        )
        theirs = lmms.eval_open(truth, lmms.parse_open_response(answer))
        assert open_answers.holds_answer(answer, truth) == theirs, (answer, truth)
        record = Record("1", "q", (), truth)
        assert mmmu.mark(record, answer, "lmms-eval")["right"] == float(theirs)


def test_mmmus_open_questions_are_vlmevalkits():
    module = harness("vlmeval.dataset.utils.multiple_choice")
    import pandas

    table = pandas.DataFrame(
        {"A": [np.nan] * 3, "B": [np.nan] * 3, "answer": ["42", "two dogs", "red"]}
    )
    table = module.MMMU_preproc(table)
    for answer in made(16):
        for _, row in table.iterrows():
            item = {**row, "question": "q", "prediction": answer, "GT": "A"}
            theirs = module.eval_vanilla(None, item)["hit"]
            record = Record("1", "q", (), row["answer"])
            assert mmmu.mark(record, answer, "janus")["right"] == theirs, (answer, row["answer"])


def test_mmvets_question_to_the_judge_and_scores_are_those_of_both(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    lmms = harness("lmms_eval.tasks.mmvet.utils")
    vlm = harness("vlmeval.dataset.utils.mmvet")
    import pandas

    record = Record("v1_0", "What?", (), "a<AND>b<OR>c", {}, "", {"abilities": ("rec",)})
    ours = mmvet.to_judge(record, "b")
    task, _, rest = ours.partition("\n\nQuestion | ")
    theirs = lmms.MM_VET_PROMPT  # which lacks the empty line, and names the first column otherwise
    assert f"{task}\ngpt_query_prompt | {rest}".startswith(theirs)
    spaces = lambda text: " ".join(text.split())
    line = {"question": "What?", "answer": "a<AND>b<OR>c", "prediction": "b"}
    assert spaces(ours) == spaces(vlm.build_mmvet_gpt4_prompt(line))

    rng = random.Random(17)
    kinds = ("rec,spat", "ocr,math", "rec,know,gen", "ocr,spat", "ocr,spat,math")
    rows = [(rng.choice(kinds), rng.choice((0.0, 0.3, 1.0))) for _ in range(COUNT)]
    records = [
        Record(f"v1_{n}", "q", (), "a", {}, "", {"abilities": tuple(kind.split(","))})
        for n, (kind, _) in enumerate(rows)
    ]
    marks = [{"read": "", "right": score} for _, score in rows]
    sums = {}
    for unit in mmvet.tally(records, marks, "janus"):
        for name, value in unit.items():
            sums[name] = sums.get(name, 0) + value
    found = mmvet.scores(sums, "janus")
    table = pandas.DataFrame(
        {"category": [kind for kind, _ in rows], "score": [score for _, score in rows]}
    )
    monkeypatch.setattr(vlm, "load", lambda path: table)
    for _, row in vlm.MMVet_acc("")[0].iterrows():
        assert found[row["Category"].replace("Overall", "total")] == pytest.approx(row["acc"])
