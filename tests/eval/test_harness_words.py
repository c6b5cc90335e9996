"""What is asked, to the letter as the authors' class of VLMEvalKit and the tasks of lmms-eval ask it.

Needs both harnesses: see test_harness_oracles.py.
"""

import dataclasses

import pytest
from PIL import Image
from support.harnesses import harness

from janus_jax.eval.asking import BY_LETTER, IN_A_WORD
from janus_jax.eval.benchmark import Record
from janus_jax.eval.understanding import gqa, mmbench, mme, mmmu, mmvet, pope, seedbench, vqav2

CHOICE = {"A": "a red fish", "B": "two dogs", "C": "none"}
ASKED = Record(
    "1", "Is it red? Please answer yes or no.", ("p.png",), "A", CHOICE, "", {"hint": None}
)
HINTED = Record("1", "Which is it?", ("p.png",), "A", CHOICE, "", {"hint": "Look."})
OPEN = Record("1", "How many?", ("p.png", "q.png"), "4", {}, "", {"hint": None})


def shown(messages) -> list[str]:
    """The pieces of the one message of the user, pictures by their path."""
    content = messages[-1]["content"]
    if isinstance(content, list):
        return [part.get("text") or part["image"] for part in content]
    return [*messages[-1]["images"], content.replace("<image_placeholder>", "")]


@pytest.mark.parametrize(
    ("module", "name", "record"),
    [
        (pope, "POPE", ASKED), (mme, "MME", ASKED), (mmbench, "MMBench_DEV_EN", HINTED),
        (mmbench, "MMBench_DEV_EN", ASKED), (seedbench, "SEEDBench_IMG", ASKED), (mmmu, "MMMU_DEV_VAL", HINTED),
        (mmmu, "MMMU_DEV_VAL", OPEN), (mmvet, "MMVet", ASKED),
    ],
)  # fmt: skip
def test_the_authors_words_are_those_of_their_class(module, name, record):
    own = object.__new__(harness("vlmeval.vlm.janus").Janus)
    own.dump_image = lambda line, dataset: list(record.pictures)
    line = {"question": record.question, **record.options}
    line |= {"hint": record.facts["hint"]} if record.facts["hint"] else {}
    conversation = own.prepare_inputs(own.build_prompt(line, name))
    ours = module.ask(record, "janus")[-1]
    assert ours["content"] == conversation[0]["content"]
    assert ours["images"] == conversation[0]["images"]


def test_lmms_evals_words_are_those_of_its_tasks(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")  # some tasks want one to be imported
    task = lambda name, file="utils": harness(f"lmms_eval.tasks.{name}.{file}")
    word = {"pre_prompt": "", "post_prompt": "\nAnswer the question using a single word or phrase."}
    options = {f"choice_{letter.lower()}": text for letter, text in CHOICE.items()}
    doc = {"question": ASKED.question, "hint": "Look.", "D": "", "choice_d": "x"} | CHOICE | options
    doc |= dict.fromkeys(("index", "category", "L2-category", "source", "split"))
    theirs = {
        pope: task("pope").pope_doc_to_text(doc, word),
        mme: task("mme").mme_doc_to_text(doc, word),
        vqav2: task("vqav2").vqav2_doc_to_text(doc, word),
        gqa: task("gqa").gqa_doc_to_text(doc, word),
        seedbench: task("seedbench").seed_doc_to_text(doc),
        mmbench: task("mmbench", "en_utils").mmbench_doc_to_text(
            doc, {"post_prompt": f"\n{BY_LETTER}"}
        ),
        mmvet: task("mmvet").doc_to_text(doc, {"pre_prompt": mmvet.REASON, "post_prompt": ""}),
    }
    four = Record("1", ASKED.question, ("p.png",), "A", {**CHOICE, "D": "x"}, "", {"hint": "Look."})
    for module, text in theirs.items():
        record = four if module is seedbench else HINTED if module is mmbench else ASKED
        record = dataclasses.replace(record, question=ASKED.question)
        assert shown(module.ask(record, "lmms-eval")) == ["p.png", "\n" + text], module


def test_mmmus_pictures_stand_where_lmms_eval_puts_them():
    lmms = harness("lmms_eval.tasks.mmmu.utils")
    how = {
        "prompt_type": "format",
        "multiple_choice_prompt": BY_LETTER,
        "open_ended_prompt": IN_A_WORD.strip(),
    }
    for question, options in (
        ("What is in <image 1>?", {}), ("What is in <image 1>?", CHOICE), ("Compare <image 2> with <image 1>.", {}),
        ("Which?", {"A": "<image 1>", "B": "<image 2>"}), ("Is <image 1> like <image 1>, or not?", CHOICE),
        ("No picture is named.", CHOICE),
    ):  # fmt: skip
        doc = {
            "question": question, "options": str(list(options.values())),
            "question_type": "multiple-choice" if options else "open",
            "image_1": Image.new("RGB", (1, 1)), "image_2": Image.new("RGB", (2, 2)),
        }  # fmt: skip
        theirs = [
            f"{part['url'].size[0]}" if part["type"] == "image" else part["text"]
            for part in lmms.mmmu_doc_to_messages(doc, how)[0]["content"]
        ]
        assert (
            shown(mmmu.ask(Record("1", question, ("1", "2"), "A", options), "lmms-eval")) == theirs
        )
