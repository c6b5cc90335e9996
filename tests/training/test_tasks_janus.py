"""Task janus: the loss of what is kept, and the data of a stage that keeps some kinds."""

import dataclasses
from contextlib import closing

import jax
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.batches import facts as facts_of
from support.configs import checked, refusal

from janus_jax.config.read import resolve
from janus_jax.data.kept import only
from janus_jax.model import batch as bt
from janus_jax.training.loss import janus_loss
from janus_jax.training.stage_plan import StagePlan

NONE = np.zeros((0, len(bt.EXAMPLE_COLUMNS)), np.int64)


def plan_of(**changes) -> StagePlan:
    stage = {
        "trainable": tiny.ALL,
        "init": (),
        "steps": 8,
        "batch_size": 8,
        "rows": {"count": 4, "length": 96, "understanding_images": 1, "generation_images": 2},
        "ratio": {"understanding": 2, "text": 3, "generation": 5},
        "optim": {"learning_rate": 1e-3},
        "log_every": 2,
        **changes,
    }
    values = {
        "model": dataclasses.asdict(tiny.CONFIG),
        **tiny.WORLD,
        "data": {"datasets": {kind: {"kind": kind, "path": "shapes:"} for kind in bt.TASKS}},
        "stages": {"one": stage},
    }
    return StagePlan.of(resolve(values, {})[0], "one")


def opened(plan, tmp_path):
    data = plan.task.batches(plan, tiny.sources(), tiny.processor(), tmp_path, print)
    with closing(data):
        yield from (data.next_batch(i) for i in range(plan.stage.steps))
        data.position.sync_counts()
        yield data.stats.report()


def test_a_stages_batches_and_what_is_said_of_them_are_of_what_it_keeps(one_device, tmp_path):
    *whole, _ = opened(plan_of(), tmp_path)
    plan = plan_of(options={"keep": "understanding+text"})
    *switched, report = opened(plan, tmp_path)
    for (batch, facts), (kept, left) in zip(whole, switched, strict=True):
        want, _ = only(("understanding", "text"), jax.tree.map(np.asarray, batch), NONE)
        assert want.keys() == kept.keys()
        for name in want:
            np.testing.assert_array_equal(kept[name], want[name], err_msg=name)
        gone = facts["positions_generation"]
        assert gone > 0 == left["positions_generation"] == left["generation"]
        assert left["tokens"] == facts["tokens"] - gone
        assert 0 < left["flops"] < facts["flops"] and left["images"] < facts["images"]
        assert [left[k] for k in ("understanding", "text")] == [
            facts[k] for k in ("understanding", "text")
        ]
    assert "generation were taken out" in report[-1]
    examples = sum(left["understanding"] + left["text"] for _, left in switched)
    assert sum(int(line.split()[5].replace(",", "")) for line in report[1:3]) == examples


def test_a_stage_that_draws_no_images_leaves_their_encoder_aside():
    assert plan_of().without == ()
    assert plan_of(options={"keep": "understanding"}).without == ("generation_encoder",)
    assert plan_of(options={"keep": "generation"}).without == ()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["understanding", "generation"])
def test_the_loss_and_gradient_of_what_is_kept_are_of_these_examples_alone(kind, one_device):
    """Against rows that hold nothing else, and have room for all pictures."""
    kept, _ = only((kind,), tiny.with_ids(tiny.rows(4)), NONE)
    alone = tiny.stacked([tiny.row([tiny.example(kind, i)]) for i in range(4)])
    left = "understanding_images" if kind == "understanding" else "image_ids"
    assert [n for n, x in kept.items() if x.ndim > 2 and x.size] == [left]
    state = tiny.make_state(tiny.TX)
    loss = lambda t, batch: janus_loss(nnx.merge(state.graphdef, t, state.frozen), batch)[0]
    got, want = (
        jax.jit(jax.value_and_grad(loss))(state.trainable, tiny.put(batch))
        for batch in (kept, tiny.with_ids(alone))
    )
    assert float(got[0]) == pytest.approx(float(want[0]), rel=1e-6)
    got, want = tiny.numbers(got[1]), tiny.numbers(want[1])
    assert max(np.abs(x).max() for x in want.values()) > 0.01
    for name, x in want.items():
        np.testing.assert_allclose(got[name], x, rtol=1e-4, atol=1e-7, err_msg=name)


def test_the_loss_of_what_is_kept_is_its_loss_within_the_whole_batch(one_device):
    whole = tiny.with_ids(tiny.rows(4))
    kept, _ = only(("understanding", "text"), whole, NONE)
    (_, want), (loss, got) = (
        jax.jit(janus_loss)(tiny.make_model(), tiny.put(batch)) for batch in (whole, kept)
    )
    want, got = jax.device_get((want, got))
    losses = [float(want[f"{kind}_loss"]) for kind in ("understanding", "text")]
    tokens = [want[f"tokens_{kind}"] for kind in ("understanding", "text")]
    assert [float(got[f"{kind}_loss"]) for kind in ("understanding", "text")] == pytest.approx(
        losses, rel=1e-5
    )
    assert float(loss) == pytest.approx(np.average(losses, weights=tokens), rel=1e-5)
    assert got["tokens_generation"] == 0 < want["tokens_generation"]


def test_options_that_cannot_be_are_refused_with_the_field():
    (line,) = refusal({"stages.stage2.options.keep": "understanding+text+generation"})
    assert line.startswith("stages.stage2.options.keep is 'understanding+text+generation'")
    (line,) = refusal({"stages.stage1.options.keep": "text"})
    assert "stages.stage1.ratio draws no text" in line
    wrong = {"stages.stage1.options.probe_every": "30", "stages.stage2.options.probe_every": "1000"}
    uneven, frozen, never = refusal(wrong)
    assert uneven.endswith("set it to a multiple of stages.stage1.log_every, 20")
    assert frozen.startswith("stages.stage1.options.probe_every is 30: stages.stage1.trainable has")
    assert never.startswith("stages.stage2.options.probe_every is 1000: the stage has 800 steps")


@pytest.mark.parametrize("keep", ["", "understanding+text"])
def test_the_batch_that_is_planned_for_is_that_of_the_data(keep, one_device, tmp_path):
    plan = plan_of(options={"keep": keep}, steps=1)
    (batch, _), _ = opened(plan, tmp_path)
    assert facts_of(plan.task.batch_shapes(plan)) == facts_of(batch)


def test_what_a_stage_takes_out_can_neither_choose_the_best_nor_be_shown():
    keep = {"stages.stage3.options.keep": "understanding+text"}
    every = {"evaluation.every": "50", "evaluation.holdout": "0.1"}
    (line,) = refusal(keep | {"evaluation.count": "8"})
    assert line.startswith("evaluation.count is 8, and stages.stage3.options.keep is 'under")
    assert "show generation of parts that never learned it; set it to 0" in line
    none = keep | every | {"evaluation.count": "0"}
    (line,) = refusal(none | {"checkpoints.best": "validation_generation_loss"})
    assert "no generation is left to measure it by" in line
    checked(none | {"checkpoints.best": "validation_text_loss"})
    checked({"stages.stage2.options.keep": "understanding+text", "evaluation.count": "8"})
