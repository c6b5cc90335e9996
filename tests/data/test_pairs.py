"""Pairs of a chosen and a rejected thing: from records to rows in which both halves stand."""

import json

import numpy as np
import pytest
from PIL import Image
from support import tiny

from janus_jax.config.schema import Dataset, Rows
from janus_jax.data import catalog
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.image_pixels import ImageError
from janus_jax.data.packing import assemble
from janus_jax.data.pair_encoder import PairEncoder, of_chosen, split
from janus_jax.data.sources import RecordError, SourceError
from janus_jax.data.toy import shapes, shapes_pairs

BOS = tiny.processor().tokenizer.bos
ROWS = Rows(1, 240, 2, 4)
ENCODER = PairEncoder(tiny.processor(), tiny.CONFIG, ROWS, "answers")
SOURCES = {
    "understanding": shapes_pairs.ShapesAnswerPairs(3),
    "generation": shapes_pairs.ShapesPicturePairs(3),
}


def opened(folder, records: list[dict], kind: str, **line):
    for name, red in ("a", 10), ("b", 200), ("same", 10):
        Image.new("RGB", (20, 20), (red, 0, 0)).save(folder / f"{name}.png")
    (folder / "pairs.json").write_text(json.dumps(records))
    return catalog.open_dataset(Dataset(kind, str(folder / "pairs.json"), **line), 16, 0)


def example(kind: str, i: int, encoder=ENCODER) -> dict:
    return encoder(kind, SOURCES[kind][i], np.random.default_rng(i))


def refused(source, kind: str, i: int = 0, encoder=ENCODER) -> str:
    """Why a record cannot be used."""
    with pytest.raises((RecordError, ImageError)) as error:
        record = encoder.read(source, i)
        made = encoder(kind, record, np.random.default_rng(0))
        encoder.pixels(kind, source, i, record, made)
    return str(error.value)


ASKED = {"prompt": "a red thing", "chosen": "a.png", "rejected": "b.png"}
SAID = {"question": "what is it?", "image": "a.png", "chosen": "red", "rejected": "blue"}


def test_a_pair_of_pictures_has_one_prompt_and_both_pictures(tmp_path):
    source = opened(tmp_path, [ASKED], "generation")
    pair = source[0]
    assert pair["chosen"] == pair["rejected"] == {"captions": ["a red thing"]}
    assert [source.image(0, k).getpixel((0, 0))[0] for k in (0, 1)] == [10, 200]
    assert source.understood(0)[1] in ([], ["image"])
    files = source.portable(0)
    assert set(files) == set(ASKED) and all(
        files[name] == (tmp_path / ASKED[name]).read_bytes() for name in ("chosen", "rejected")
    )


@pytest.mark.parametrize("kind", ["understanding", "text"])
def test_a_pair_of_answers_has_one_question(tmp_path, kind):
    record = SAID if kind == "understanding" else {n: x for n, x in SAID.items() if n != "image"}
    pair = opened(tmp_path, [record], kind)[0]
    asked, answers = zip(*(pair[half]["messages"] for half in ("chosen", "rejected")))
    assert asked[0] == asked[1] and asked[0].texts[-1].strip() == "what is it?"
    assert [answer.texts for answer in answers] == [["red"], ["blue"]]


def test_a_line_that_names_an_answer_reads_no_pairs(tmp_path):
    source = opened(tmp_path, [SAID], "understanding", answer="chosen", question="question")
    assert source[0]["messages"][1].texts == ["red"]
    assert "needs" in refused(source, "understanding")


@pytest.mark.parametrize(
    "kind, record, said",
    [
        ("generation", ASKED | {"rejected": "a.png"}, "\"chosen\" and \"rejected\" are both 'a.png'"),
        ("generation", ASKED | {"rejected": "same.png"}, "pictures are the same pixels"),
        ("generation", ASKED | {"rejected": "none.png"}, "none.png"),
        ("generation", ASKED | {"rejected": 3}, '"rejected" is \'3\' (int), needs the path of a picture'),
        ("understanding", SAID | {"rejected": " red "}, "nothing is preferred"),
        ("understanding", SAID | {"rejected": ["blue"]}, 'field "rejected" is'),
        ("text", {"chosen": "red", "rejected": "blue"}, "a pair without its prompt"),
        ("understanding", SAID | {"rejected": "blue " * 200}, "tokens does not fit rows of 240"),
    ],
)  # fmt: skip
def test_a_pair_that_prefers_nothing_or_lacks_a_part_is_refused(tmp_path, kind, record, said):
    good = {"generation": ASKED, "understanding": SAID}.get(kind, record | {"prompt": "what?"})
    assert said in refused(opened(tmp_path, [good, record], kind), kind, 1)


@pytest.mark.parametrize("kind", SOURCES)
def test_no_other_task_learns_from_both_halves_alike(kind):
    encoder = ExampleEncoder(tiny.processor(), tiny.CONFIG, ROWS, "answers")
    assert "tasks dpo and dpo_lora learn" in refused(SOURCES[kind], kind, encoder=encoder)


def alone(kind: str, i: int, half: str) -> dict:
    """What a half is by itself."""
    encoder = ExampleEncoder(tiny.processor(), tiny.CONFIG, ROWS, "answers")
    return encoder(kind, SOURCES[kind][i][half], np.random.default_rng(i))


def test_halves_of_a_row_are_what_they_are_alone():
    drawn = [("understanding", 0), ("generation", 1), ("understanding", 2), ("generation", 4)]
    packed = assemble([example(*which) for which in drawn], 400)
    row = {name: x[0] for name, x in split({n: x[None] for n, x in packed.items()}, BOS).items()}
    halves = [(*which, half) for which in drawn for half in ("chosen", "rejected")]
    assert row["segment_ids"].max() == len(halves) == 8
    seen = []
    for number, which in enumerate(halves, 1):
        want = assemble([made := alone(*which)], len(made["tokens"]))
        (at,) = np.nonzero(row["segment_ids"] == number)
        for name in ("tokens", "text_targets", "positions", "tasks"):
            assert row[name][at].tolist() == want[name].tolist(), (which, name)
        for name in ("generation_slots", "image_targets", "understanding_slots"):
            there = want[name] > 0
            assert ((row[name][at] > 0) == there).all()
            first = row[name][at][there].min(initial=99)
            assert (row[name][at][there] - first == np.arange(there.sum())).all()
        seen.append(int(row["understanding_slots"][at].max()))
    assert seen == [16, 16, 0, 0, 32, 32, 0, 0], "the halves of a pair read the same pictures"
    assert row["generation_slots"].max() == 64
    once = of_chosen({name: x[None] for name, x in row.items()})
    assert (once["understanding_slots"] > 0).sum() == 32


def test_both_halves_are_blanked_or_none():
    encoder = PairEncoder(tiny.processor(), tiny.CONFIG, ROWS, "answers", 0.5)
    pad = tiny.processor().tokenizer.pad
    blanked = []
    for i in range(12):
        tokens = example("generation", i, encoder)["tokens"]
        first, second = np.split(tokens, np.flatnonzero(tokens == BOS)[1:])
        blanked.append([bool((half == pad).any()) for half in (first, second)])
    assert all(a == b for a, b in blanked) and {a for a, _ in blanked} == {True, False}


def test_a_bos_inside_a_text_is_told():
    packed = {name: x[None] for name, x in assemble([example("understanding", 0)], 200).items()}
    packed["tokens"][0, 5] = BOS
    with pytest.raises(SourceError, match=r"the id of BOS, .*, stands inside the text of a pair"):
        split(packed, BOS)


def test_the_chosen_picture_fits_its_sentence_and_the_rejected_does_not():
    source = SOURCES["generation"]
    for i in range(200):
        prompt = source.prompt(source.rng(i))
        assert source[i]["chosen"]["captions"] == [prompt.text]
        scenes = [shapes.read(source.image(i, k)) for k in (0, 1)]
        assert [prompt.fits(scene) for scene in scenes] == [True, False]


def test_the_chosen_answer_is_another_than_the_rejected_one():
    source = SOURCES["understanding"]
    kinds = set()
    for i in range(200):
        scene, _, right, wrong = source.asked(i)
        (kind,) = [k for k, all_of in shapes.ANSWERS.items() if {right, wrong} <= set(all_of)]
        assert right != wrong and scene == shapes.read(source.image(i))
        kinds.add(kind)
    assert kinds == set(shapes.QUESTIONS)
