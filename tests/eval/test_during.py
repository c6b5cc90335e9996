"""The sheet of an evaluation: the same held-out prompts and questions each time, drawn and answered
with the weights of the step."""

import types

import jax
import numpy as np
import pytest
from PIL import Image
from support import tiny

from janus_jax.config.read import resolve
from janus_jax.config.schema import Dataset
from janus_jax.data.holdout import Part
from janus_jax.data.images import generation_image
from janus_jax.data.toy import shapes_edits, shapes_sources
from janus_jax.eval import during, during_edits
from janus_jax.model import config as model_config
from janus_jax.training.stage_plan import StagePlan

SOURCES = {
    "questions": shapes_sources.ShapesUnderstanding(0, 500),
    "scenes": shapes_sources.ShapesGeneration(0, 400),
    "others": shapes_sources.ShapesGeneration(1, 20),
}


def plan_of(evaluation=None, **changes) -> StagePlan:
    stage = {
        "trainable": ("image_head",),
        "init": (),
        "steps": 1000,
        "batch_size": 8,
        "rows": {"count": 4, "length": 96, "understanding_images": 1, "generation_images": 2},
        "ratio": {"understanding": 1, "text": 0, "generation": 1},
        "optim": {"learning_rate": 1e-3},
        **changes,
    }
    kinds = {"questions": "understanding", "scenes": "generation", "others": "generation"}
    values = {
        "model": model_config.to_dict(tiny.CONFIG),
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "data": {"datasets": {name: {"kind": k, "path": "shapes:"} for name, k in kinds.items()}},
        "stages": {"one": stage},
        "evaluation": {"every": 2, "holdout": 0.1} | (evaluation or {}),
    }
    return StagePlan.of(resolve(values, {})[0], "one")


@pytest.fixture
def asked(monkeypatch):
    """(model, prompts) and (model, questions) as they come; drawings are violet, answers "two"."""
    calls = {"drawn": [], "answered": []}

    def generate(model, processor, prompts, seed):
        calls["drawn"].append((model, prompts, seed))
        return [Image.new("RGB", (16, 16), (90, 10, 200)) for _ in prompts]

    def understand_batch(model, processor, conversations, max_new_tokens):
        calls["answered"].append((model, [turn for (turn,) in conversations]))
        return ["two"] * len(conversations)

    monkeypatch.setattr(during, "generate", generate)
    monkeypatch.setattr(during, "understand_batch", understand_batch)
    monkeypatch.setattr(during, "serving", lambda model: model)
    return calls


def opened(tmp_path, plan=None):
    """A sheet, and what its log said and showed."""
    log = types.SimpleNamespace(said=[], shown=[])
    log.say = log.said.append
    log.sheet = lambda *shown: log.shown.append(shown)
    return during.Sheet(None, plan or plan_of(), SOURCES, tiny.processor(), tmp_path, log), log


def test_a_sheet_shows_held_out_records_the_same_each_time(asked, one_device, tmp_path):
    sheet, log = opened(tmp_path)
    state = tiny.make_state(tiny.TX)
    for step in (2, 1000):
        assert sheet(step, state, {}) == {}
    (model, prompts, seeds), again = asked["drawn"]
    assert prompts == again[1] and len(prompts) == 8 and seeds == again[2] == list(range(8))
    parts = {name: Part.of(s, name, 0.1, 0, held_out=True) for name, s in SOURCES.items()}
    captions = {x["captions"][0] for name in ("scenes", "others") for x in parts[name]}
    assert set(prompts) <= captions
    # Of the two data sets in turn, the second of which has two held-out records.
    assert prompts[1] == parts["others"][0]["captions"][0]
    (_, turns), _ = asked["answered"]
    assert [turn.texts for turn in turns] == [
        parts["questions"][i]["messages"][0].texts for i in range(8)
    ]
    assert (turns[0].pictures[0] == parts["questions"].image(0)).all()
    tiny.same_bits(model.text_embedding.table[...], state.params["text_embedding"]["table"])
    assert sorted(p.name for p in (tmp_path / "sheets" / "one").iterdir()) == [
        "0000002.png",
        "0001000.png",
    ]
    (step, picture, text), _ = log.shown
    drawn = Image.open(tmp_path / "sheets" / "one" / "0000002.png")
    assert step == 2 and np.array_equal(np.asarray(drawn), np.asarray(picture))
    assert f"* {prompts[0]}\n" in text and f"{turns[0].texts[0]} **two** (truth: " in text
    assert (np.asarray(picture) == (90, 10, 200)).all(-1).sum() == 8 * 144 * 144


def test_a_stage_that_only_reads_is_only_asked(asked, one_device, tmp_path):
    reads = plan_of(ratio={"understanding": 1, "text": 0, "generation": 0})
    sheet, log = opened(tmp_path, reads)
    sheet(2, tiny.make_state(tiny.TX), {})
    assert not asked["drawn"] and len(asked["answered"]) == len(log.shown) == 1


def test_a_stage_that_takes_its_drawings_out_is_only_asked(asked, one_device, tmp_path):
    sheet, log = opened(tmp_path, plan_of(options={"keep": "understanding"}))
    sheet(2, tiny.make_state(tiny.TX), {})
    assert not asked["drawn"] and len(asked["answered"]) == len(log.shown) == 1


def test_a_stage_of_texts_alone_has_nothing_to_show(asked, one_device, tmp_path):
    sheet, log = opened(tmp_path, plan_of(ratio={"understanding": 0, "text": 1, "generation": 0}))
    assert sheet(2, tiny.make_state(tiny.TX), {}) == {}
    assert not asked["drawn"] and not asked["answered"] and not log.shown


def test_a_stage_of_what_neither_draws_nor_encodes_has_nothing_to_show(tmp_path):
    sheet, _ = opened(tmp_path, plan_of(ratio={"understanding": 0, "text": 0, "generation": 1}))
    assert len(sheet.prompts) == 8
    assert sheet.rows(2, types.SimpleNamespace(detector=None)) == ([], "")


def test_a_sheet_shows_what_the_user_asks_beside_what_is_held_out(asked, one_device, tmp_path):
    Image.new("RGB", (16, 16), (1, 200, 3)).save(tmp_path / "p.png")
    (tmp_path / "q.txt").write_text("p.png: what is it?\n\np.png: and this: blue?\n")
    own = {
        "prompts": [f"prompt {k}" for k in range(9)],
        "questions": [str(tmp_path / "q.txt")],
    }
    sheet, log = opened(tmp_path, plan_of(own))
    sheet(2, tiny.make_state(tiny.TX), {})
    drawn = [(prompts, seeds) for _, prompts, seeds in asked["drawn"]]
    assert [prompts for prompts, _ in drawn[:2]] == [own["prompts"][:8], own["prompts"][8:]]
    assert [seeds for _, seeds in drawn] == [list(range(8)), [8], list(range(8))]
    (_, turns), (_, held) = asked["answered"]
    assert [turn.texts for turn in turns] == [["what is it?"], ["and this: blue?"]]
    assert turns[0].pictures[0].getpixel((3, 3)) == (1, 200, 3) and len(held) == 8
    ((_, picture, text),) = log.shown
    assert text.startswith("* prompt 0\n* prompt 1\n") and "* and this: blue? **two**\n" in text
    shown = np.asarray(picture)
    assert (shown == (1, 200, 3)).all(-1).sum() == 2 * 144 * 144
    assert (shown == (90, 10, 200)).all(-1).sum() == (9 + 8) * 144 * 144


def test_sheets_of_a_run_that_gets_more_steps_stay_in_order(tmp_path):
    for steps, step in ((100, 90), (2000, 600)):
        sheet, _ = opened(tmp_path, plan_of(steps=steps))
        sheet.write(step, Image.new("RGB", (1, 1)))
    names = sorted(path.name for path in (tmp_path / "sheets" / "one").iterdir())
    assert [int(name.removesuffix(".png")) for name in names] == [90, 600]


def test_what_a_user_asks_is_all_that_is_shown_where_nothing_is_held_out(asked, tmp_path):
    sheet, _ = opened(tmp_path, plan_of({"holdout": 0.0, "prompts": ["a cat"]}))
    rows, text = sheet.rows(2, types.SimpleNamespace(transformer=None))
    assert [captions for _, captions in rows] == [["a cat"]] and text == "* a cat"
    assert len(asked["drawn"]) == 1 and not asked["answered"]


def test_photos_are_shown_smaller_and_tiny_pictures_larger():
    widths = {side: during.fitted([np.zeros((side, side, 3), np.uint8)])[0].width
              for side in (24, 100, 144, 200, 384)}  # fmt: skip
    assert widths == {24: 144, 100: 100, 144: 144, 200: 200, 384: 256}


def test_full_devices_cost_a_sheet_and_not_the_run(asked, one_device, tmp_path, monkeypatch):
    def full(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(during, "generate", full)
    sheet, log = opened(tmp_path)
    assert sheet(2, tiny.make_state(tiny.TX), {}) == {}
    assert log.said == ["ERROR: no sheet of step 2: the devices' memory is full"]
    assert not log.shown and not (tmp_path / "sheets").exists()


def test_what_a_stage_has_laid_aside_draws_with_it(asked, one_device, tmp_path):
    sheet, _ = opened(tmp_path)
    state = tiny.make_state(tiny.TX)
    vq = state.frozen["generation_encoder"]
    aside = {"generation_encoder": jax.tree.map(np.asarray, vq)}
    frozen = {name: x for name, x in state.frozen.items() if name not in aside}
    sheet(2, state.replace(frozen=frozen), aside)
    ((model, _, _),) = asked["drawn"]
    assert isinstance(model.generation_encoder.codebook[...], jax.Array)
    tiny.same_bits(model.generation_encoder.codebook[...], vq["codebook"])


def test_a_data_set_of_few_records_is_never_read_past_its_held_out_ones(
    asked, one_device, tmp_path, monkeypatch
):
    few = {name: source for name, source in SOURCES.items() if name != "scenes"}
    few["others"] = shapes_sources.ShapesGeneration(1, 6)
    monkeypatch.setitem(globals(), "SOURCES", few)
    sheet, _ = opened(tmp_path)
    held = Part.of(few["others"], "others", 0.1, 0, True)
    assert [caption for caption, _ in sheet.prompts] == [held[0]["captions"][0]]


def test_a_sheet_shows_edits_with_what_was_there_and_what_should_come_out(
    asked, one_device, tmp_path, monkeypatch
):
    def edit(model, processor, pictures, instruction, seed):
        told.append((len(pictures), instruction, seed))
        return [Image.new("RGB", (16, 16), (1, 2, 3))]

    told = []
    monkeypatch.setattr(during_edits, "edit", edit)
    line = Dataset("generation", "shapes:edits")
    monkeypatch.setitem(SOURCES, "others", shapes_edits.ShapesEdits(line, 0, 40))
    sheet, _ = opened(tmp_path)
    sheet(2, tiny.make_state(tiny.TX), {})
    held = Part.of(SOURCES["others"], "others", 0.1, 0, True)
    words = [held[i]["captions"][0] for i in range(4)]
    assert told == [(1, text, k) for k, text in enumerate(words)]
    assert not set(words) & set(asked["drawn"][0][1]), "no edit is drawn without its picture"
    rows, text = sheet.rows(2, types.SimpleNamespace(transformer=None))
    first, true, drawn = rows[2:5]
    assert (first[1], true[1][0], drawn[1][0]) == (words, "what comes out", "drawn at step 2")
    for pictures, k in ((first[0], 0), (true[0], 1)):
        want = np.asarray(during.fitted([generation_image(held.image(0, k), 16)])[0])
        assert np.array_equal(np.asarray(pictures[0]), want)
    assert f"* {words[0]}" in text
