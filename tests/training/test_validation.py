"""The validation loss: over fixed rows of held-out records alone, equal to the loss of these rows
worked out at once."""

import dataclasses

import jax
import numpy as np
import pytest
from support import tiny

from janus_jax.config.read import resolve
from janus_jax.data.holdout import Part
from janus_jax.data.toy import shapes_sources
from janus_jax.model import batch as bt
from janus_jax.training import validation
from janus_jax.training.loss import janus_loss
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.tasks import vq

RECORDS = 60
SHARE = 0.1
STEPS = 60
WORLDS = {
    "understanding": shapes_sources.ShapesUnderstanding,
    "text": shapes_sources.ShapesText,
    "late": shapes_sources.ShapesText,
    "generation": shapes_sources.ShapesGeneration,
}


class Read:
    """A source that notes which records are read."""

    def __init__(self, source):
        self.source, self.fingerprint, self.read = source, source.fingerprint, set()

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        self.read.add(int(i))
        return self.source[i]

    def image(self, i, k=0):
        self.read.add(int(i))
        return self.source.image(i, k)

    def where(self, i):
        return self.source.where(i)


def opened() -> dict:
    return {name: Read(world(0, RECORDS)) for name, world in WORLDS.items()}


def plan_of(evaluation=None, holdouts=None, **changes) -> StagePlan:
    stage = {
        "trainable": ("image_head",),
        "init": (),
        "steps": STEPS,
        "batch_size": 8,
        "rows": {
            "count": 4,
            "length": 96,
            "understanding_images": 1,
            "generation_images": 2,
        },
        "ratio": {"understanding": 2, "text": 3, "generation": 5},
        "optim": {"learning_rate": 1e-3},
        "condition_dropout": 0.5,
        **changes,
    }
    lines = {kind: {"kind": kind, "path": "shapes:"} for kind in bt.TASKS}
    lines["late"] = {"kind": "text", "path": "shapes:", "steps": (STEPS // 2, STEPS)}
    for name, held in (holdouts or {}).items():
        lines[name]["holdout"] = held
    values = {
        "model": dataclasses.asdict(tiny.CONFIG),
        "template": {"user": "User", "assistant": "Assistant"},
        "data": {"datasets": lines},
        "stages": {"one": stage},
        "evaluation": evaluation or {"every": 2, "holdout": SHARE},
    }
    return StagePlan.of(resolve(values, {})[0], "one")


def held_out(source) -> set[int]:
    part = Part.of(source, "any", SHARE, 0, True)
    return {part.index(i) for i in range(len(part))}


@pytest.fixture
def few_rows(monkeypatch):
    monkeypatch.setattr(validation, "ROWS", 8)


def test_the_loss_by_kind_is_that_of_its_rows_at_once(few_rows, one_device, tmp_path):
    sources = opened()
    plan = plan_of(accumulate=2)
    state = tiny.make_state(tiny.TX)
    validate = validation.Validation(plan, sources, tiny.processor(), tmp_path, print)
    found = validate(state)
    assert validate(state) == found
    batches = validate._drawn
    assert [len(batch["tokens"]) for batch in batches] == [4, 4]
    rows = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    loss, metrics = jax.jit(janus_loss)(state.model(), tiny.put(rows))
    assert found.keys() == {f"validation_{name}" for name in plan.task.VALIDATES}
    np.testing.assert_allclose(found.pop("validation_loss"), loss, rtol=1e-5)
    for name, value in found.items():
        np.testing.assert_allclose(value, metrics[name.removeprefix("validation_")], rtol=1e-5)
    # Held-out records alone, those of all data sets at all steps, and no prompt is blanked.
    pad = tiny.processor().tokenizer.pad
    assert not ((rows["tokens"] == pad) & (rows["tasks"] == 3)).any()
    for source in sources.values():
        assert source.read == held_out(source)


def test_kinds_of_which_nothing_is_held_out_have_no_validation_loss(few_rows, one_device, tmp_path):
    sources = opened()
    plan = plan_of(evaluation={"every": 2}, holdouts={"understanding": 6})
    validate = validation.Validation(plan, sources, tiny.processor(), tmp_path, print)
    (batch, _) = validate._draw()
    assert {*np.unique(batch["tasks"])} <= {0, 1}
    assert len(sources["understanding"].read) <= 6 and not sources["generation"].read
    none = plan_of(evaluation={"every": 2})
    assert validation.Validation(none, sources, None, tmp_path, print)(None) == {}


def test_training_batches_hold_the_other_records_alone(one_device, tmp_path):
    sources = opened()
    stage_data = plan_of().task.batches(plan_of(), sources, tiny.processor(), tmp_path, print)
    for i in range(STEPS):
        stage_data.next_batch(i)
    stage_data.close()
    for source in sources.values():
        assert len(source.read) > RECORDS / 2 and not source.read & held_out(source)


def test_the_tokenizers_validation_is_the_mean_over_held_out_pictures(
    few_rows, one_device, tmp_path, monkeypatch
):
    def terms(model, batch, options):
        mean = batch["images"].astype(np.float32).mean()
        return {"reconstruction": mean, "codebook": mean}, None

    monkeypatch.setattr(vq, "tokenizer_terms", terms)
    sources = {"generation": opened()["generation"]}
    plan = plan_of(
        task="vq",
        trainable=("generation_encoder",),
        rows=None,
        batch_size=4,
        ratio={"understanding": 0, "text": 0, "generation": 1},
    )
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), plan.state())
    validate = validation.Validation(plan, sources, None, tmp_path, print)
    found = validate(state)
    images = np.concatenate([batch["images"] for batch in validate._drawn])
    assert images.shape == (8, 16, 16, 3) and len(np.unique(images, axis=0)) > 2
    assert found == {
        "validation_loss": pytest.approx(2 * images.mean(), rel=1e-5),
        "validation_reconstruction": pytest.approx(images.mean(), rel=1e-5),
    }
    assert sources["generation"].read <= held_out(sources["generation"])
