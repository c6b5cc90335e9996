"""Edits drawn: their ids are the likeliest of the row that training has of the same record, and guidance
is the sum of three rows."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh
from support.sampling import N, make, picture

import janus_jax
from janus_jax.config.schema import Rows
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.packing import assemble
from janus_jax.sample import edit as edits
from janus_jax.sample import edit_prompts, programs
from janus_jax.sample import engine as engines
from janus_jax.sample.decode import ids_of

WORDS = "make the circle red"
ROWS = Rows(1, 256, 2, 3)
# What training blanks -> the branch of guidance that this is.
BRANCHES = {"full": (0, 0, 0), "pictures": (1, 0, 0), "neither": (0, 0, 1)}


def row_of(pictures: list, source_ids: bool, dropout) -> dict:
    """The packed row that training makes of an edit whose target is the first picture."""
    shown = [*pictures, pictures[0]]
    source = types.SimpleNamespace(image=lambda i, k=0: shown[k])
    record = {"captions": [WORDS], "sources": len(pictures), "source_ids": float(source_ids)}
    record["edit_dropout"] = dropout
    encode = ExampleEncoder(tiny.processor(), tiny.CONFIG, ROWS, "answers", 0.1)
    example = encode("generation", record, np.random.default_rng(0))
    filled = encode.pixels("generation", source, 0, record, example)
    row = assemble([example], ROWS.length)
    for name, count in (("understanding_images", 2), ("generation_images", 3)):
        row[name] = np.zeros((count, 16, 16, 3), np.uint8)
        row[name][: len(filled[name])] = filled[name] or row[name][:0]
    return {name: jnp.asarray(x)[None] for name, x in row.items()}


encoded = jax.jit(lambda model, row: model.image_ids(row))
logits_of = jax.jit(lambda model, row, ids: model.image_head(model(row, ids)))


def forced(model, row, drawn) -> np.ndarray:
    """Teacher-forced logits [N, V] of the picture that a row draws, its ids being `drawn`."""
    targets = np.asarray(row["image_targets"][0])
    ids = np.array(encoded(model, row))
    ids[0, targets[targets > 0] - 1] = drawn
    return np.asarray(logits_of(model, row, jnp.asarray(ids)))[0, targets > 0]


def by_hand(model, pictures, source_ids, drawn) -> dict[str, np.ndarray]:
    rows = {name: row_of(pictures, source_ids, chance) for name, chance in BRANCHES.items()}
    return {name: forced(model, row, drawn) for name, row in rows.items()}


@pytest.mark.parametrize("count, source_ids", [(1, True), (1, False), (2, True)])
def test_without_guidance_the_ids_are_the_likeliest_of_the_training_row(
    model, processor, count, source_ids
):
    pictures = [picture(k) for k in range(count)]
    plain = dict(cfg_scale=1, image_cfg_scale=1, temperature=0)
    ids, _ = edits.drawn(model, processor, pictures, WORDS, source_ids=source_ids, **plain)
    assert len(set(ids[0].tolist())) > 2, "ids that do not vary show nothing"
    found = by_hand(model, pictures, source_ids, ids[0])
    assert found["full"].argmax(-1).tolist() == ids[0].tolist()
    assert any((found[name].argmax(-1) != ids[0]).any() for name in ("pictures", "neither"))


@pytest.mark.parametrize("words, images", [(5.0, 1.0), (3.0, 1.5), (2.0, 2.0), (0.0, 4.0)])
def test_guided_ids_are_of_the_sum_of_three_rows(model, processor, words, images):
    shown = [picture(4)]
    how = dict(cfg_scale=words, image_cfg_scale=images, temperature=0)
    ids, _ = edits.drawn(model, processor, shown, WORDS, **how)
    of = by_hand(model, shown, True, ids[0])
    of_images = images * (of["pictures"] - of["neither"])
    total = of["neither"] + of_images + words * (of["full"] - of["pictures"])
    assert total.argmax(-1).tolist() == ids[0].tolist()
    assert (of["full"].argmax(-1) != ids[0]).any(), "guidance changes them"


def test_logits_of_a_group_are_summed_by_their_weights(one_device):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 5)).astype(np.float32)
    mix = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    mix[0, :3, :3] = 3.0, -1.5, -0.5
    out = np.asarray(programs.mixed(jnp.asarray(logits), jnp.asarray(mix)))
    want = 3.0 * logits[0] - 1.5 * logits[1] - 0.5 * logits[2]
    assert np.allclose(out[:3], want, atol=1e-6) and (out[3:] == logits[3:]).all()


@pytest.mark.parametrize(
    "words, images, count", [(1, 1, 1), (0, 0, 1), (5, 1, 2), (3, 3, 2), (0, 2, 2), (5, 1.5, 3)]
)
def test_a_branch_of_no_weight_takes_no_row(words, images, count):
    request = edit_prompts.request(("full", "pictures", "neither"), words, images, 0, 0, 1.0, N)
    assert len(request.prompts) == len(request.weights) == count
    assert sum(request.weights) == 1


def test_three_rows_beside_one_and_in_company_draw_what_they_draw_alone(model, processor):
    """Row 4 of a group is free for a request of one row."""
    spans, shown = edit_prompts.edit_prompt(processor, picture(1), WORDS)
    branches = edit_prompts.branches_of(model, processor, spans, shown)
    of = {"three": (5, 1.5), "one": (1, 1), "two": (5, 1)}
    alone = {}
    for name, scales in of.items():
        alone[name] = ids_of(
            model, [edit_prompts.request(branches, *scales, 7, 0, 1.0, N)]
        ).tolist()
    both = [edit_prompts.request(branches, *scales, 7, 0, 1.0, N) for scales in of.values()]
    assert ids_of(model, both).tolist() == [ids for [ids] in alone.values()]
    engine = engines.Engine(model, (8,), group=4)
    for request in both:
        engine.add(request)
    engine.step()
    assert [request.rows for request in both] == [(0, 1, 2), (3,), (4, 5)]


def test_eight_devices_edit_what_one_edits(processor):
    how = dict(cfg_scale=5, image_cfg_scale=1.5, temperature=0)
    found = []
    for mesh in ((), (4, 2)):
        with on_mesh(*mesh):
            found.append(edits.drawn(make(), processor, picture(2), WORDS, **how)[0].tolist())
    assert found[0] == found[1]


def test_pictures_say_how_they_were_drawn_and_seeds_move_them(model, processor):
    two = janus_jax.edit(model, processor, picture(3), WORDS, images_per_prompt=2, seed=5)
    assert [x.size for x in two] == [(16, 16)] * 2 and two[0].tobytes() != two[1].tobytes()
    assert two[1].info == {
        "prompt": WORDS, "index": 1, "seed": 5, "cfg_scale": 5.0, "image_cfg_scale": 1.0,
        "temperature": 1.0,
    }  # fmt: skip
    (again,) = janus_jax.edit(model, processor, [picture(3)], WORDS, seed=5, first=1)
    assert again.tobytes() == two[1].tobytes()


@pytest.mark.parametrize(
    "images, words, how, told",
    [
        ([], WORDS, {}, "images: 0 pictures were given; give one to edit"),
        ("make it red", WORDS, {}, "images: make it red: no such file"),
        ([picture(0), 7], WORDS, {}, r"images\[1\]: a picture is a path, .* not a int"),
        (picture(0), " ", {}, "instruction is ' ': say what to do"),
        (picture(0), picture(1), {}, "instruction: is .*Image.*, needs a string"),
        (
            picture(0),
            WORDS,
            {"image_cfg_scale": float("nan")},
            "image_cfg_scale is nan: must be a f",
        ),
        (picture(0), WORDS, {"cfg_scale": -1}, "cfg_scale is -1: must be a finite number"),
        (picture(0), WORDS, {"source_ids": 0.5}, "source_ids is 0.5"),
        (picture(0), WORDS, {"seed": "x"}, "seed is x: must be a whole number"),
        (
            picture(0),
            "山" * 1400,
            {},
            r"1 pictures x 36 \+ .* of text .* the context is 4,096: give",
        ),
        (picture(0), "r" * 70_000, {}, "instruction: 70,000 characters, at most 65,536 are read"),
    ],
)
def test_what_cannot_be_edited_is_said(model, processor, images, words, how, told):
    with pytest.raises(ValueError, match=told):
        janus_jax.edit(model, processor, images, words, **how)
