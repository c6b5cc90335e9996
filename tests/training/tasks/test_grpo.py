"""Task grpo: what it draws and learns of, every mesh, a run that is killed, and what it refuses."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx
from support import tiny, traced
from support.grpo import (
    BOTH,
    DRAWS,
    N,
    batch_of,
    begun,
    exported,
    gone_on,
    groups,
    logged,
    plan_of,
    trained,
)  # fmt: skip
from support.mesh import on_mesh

from janus_jax.data import catalog
from janus_jax.data.processor import Processor
from janus_jax.model import batch as bt
from janus_jax.sample import rollouts
from janus_jax.training import grpo_batch, grpo_options
from janus_jax.training.tasks import grpo
from janus_jax.weights.load import export
from janus_jax.weights.table import WeightsError
from janus_jax.weights.tensors import read_safetensors


def test_a_row_holds_an_example_and_what_it_is_worth():
    plan = plan_of()
    batch = batch_of(plan)
    asked = grpo_batch.batch_arrays(plan.stage.rows, tiny.CONFIG, False)
    assert {n: (x.shape, x.dtype) for n, x in batch.items()} == {
        n: (shape, np.dtype(kind)) for n, (shape, kind) in asked.items()
    }
    for row, (group, k) in enumerate((g, k) for g in groups() for k in range(4)):
        ids, n = group.outputs[k][0], len(group.ids)
        at = slice(n - 1, n - 1 + len(ids))
        own = {name: x[row] for name, x in batch.items()}
        assert (own["tokens"][:n] == group.ids).all()
        assert own["segment_ids"].sum() == n + len(ids)
        np.testing.assert_array_equal(own["old"][at], group.outputs[k][1])
        if group.draws:
            np.testing.assert_array_equal(own["image_targets"][at], 1 + np.arange(N))
            np.testing.assert_array_equal(own["image_ids"][0], ids)
            assert (own["text_targets"] == bt.IGNORE).all()
        else:
            np.testing.assert_array_equal(own["text_targets"][at], ids)
            assert (own["text_targets"] != bt.IGNORE).sum() == len(ids)
            assert not own["image_targets"].any() and own["understanding_slots"].max() == 16
        assert (own["weights"] > 0).sum() == (0 if group.failed else len(ids))
        assert not own["advantages"][own["weights"] == 0].any()
    # Of each kind that has not failed the shares add up to 1, and of 12 examples the weights.
    draws = batch["image_targets"] > 0
    for own in (draws, ~draws):
        assert batch["shares"][own].sum() == pytest.approx(1, rel=1e-5)
    assert batch["weights"].sum() == pytest.approx(1, rel=1e-5)


@functools.cache
def stepped(mesh: tuple, accumulate: int, scale: float):
    """(metrics, numbers of what learns) after a step of two updates on a mesh."""
    rows = {"count": 16, "length": 96, "understanding_images": 1, "generation_images": 1}
    plan = plan_of(options={"updates": 2, "cfg_scale": scale}, accumulate=accumulate, rows=rows)
    with on_mesh(*mesh):
        state, metrics = jax.jit(grpo.step(plan))(begun(plan), tiny.put(batch_of(plan)))
        assert int(state.step) == 1
        return tiny.numbers(metrics), tiny.numbers(state.trainable)


@pytest.mark.slow
@pytest.mark.parametrize("mesh, accumulate, scale", [((2, 2, 2), 1, 1.0), ((1, 2, 1), 4, 1.0)])
def test_a_step_is_the_same_on_a_mesh_and_in_parts(mesh, accumulate, scale):
    want, got = stepped((1, 1, 1), 1, scale), stepped(mesh, accumulate, scale)
    assert want[0]["clipped_drawing"] > 0 and want[0]["kl_answering"] > 0
    for one, other in zip(got, want, strict=True):
        assert one.keys() == other.keys()
        for name in other:
            np.testing.assert_allclose(one[name], other[name], rtol=2e-4, atol=2e-6, err_msg=name)


def test_answers_alone_have_no_picture_to_draw_in_their_rows():
    answers = {"generation": 0, "text": 0, "understanding": 1}
    plan = plan_of((), {"rewards": ""}, ratio=answers, trainable=("transformer", "text_head"))
    with on_mesh():
        batch = grpo.batch_shapes(plan)
        assert batch["image_ids"].size == 0 and batch["understanding_images"].size > 0
        _, metrics = jax.eval_shape(grpo.step(plan), plan.state(), batch)
    assert metrics["entropy_answering"].shape == ()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("begun"))


@pytest.fixture(autouse=True, scope="module")
def traced_once():
    with traced.once(grpo):
        yield


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bits(weights, tmp_path, capsys):
    plan = plan_of([weights], {"sheet_every": 2})
    whole, first = gone_on(plan, tmp_path)
    begun = read_safetensors(weights / "model.safetensors")
    moved = {n for n, x in whole.items() if not np.array_equal(x, begun[n].read())}
    assert {n.split(".")[0] for n in moved} == {"transformer", "image_head", "text_head"}
    # The policy is the reference at first, and the trainer says what the decoder said.
    assert first[0]["kl_drawing"] == pytest.approx(0, abs=1e-6) and first[-1]["kl_drawing"] > 1e-4
    assert max(record["decoder_difference_most"] for record in first) < 1e-3
    assert first[0]["reward_drawing"] == first[0]["reward_drawing/support.judging:brightness"]
    told = capsys.readouterr().out
    assert "one, step 4: drawing: reward" in told and "answering: reward" in told
    sheets = sorted(p.name for p in (tmp_path / "whole/sheets/one-rewards").iterdir())
    assert sheets == ["00000000.png", "00000002.png"]


@pytest.mark.slow
def test_guided_drawings_of_which_some_have_no_reward(weights, tmp_path):
    """What has no reward is left out and counted; with no reference there is no divergence."""
    options = {"cfg_scale": 2.0, "kl": 0.0, "rewards": "support.judging:seldom", "resample": 2}
    options |= {"answer_rewards": "", "rollout_rows": 24, "rollout_weights": "whole"}
    rows = {"count": 16, "length": 96, "understanding_images": 0, "generation_images": 1}
    plan = plan_of([weights], options, ratio=DRAWS, rows=rows, steps=2)
    trained(plan, tmp_path / "run")
    first, last = logged(tmp_path / "run")
    # Of four prompts two have no reward, and of the two that replace them one.
    assert first["groups_failed"] == 3 and "reward_answering" not in first
    assert first["decoder_difference_most"] < 1e-3 and first["grad_norm"] > 0
    assert first["kl_drawing"] == 0 and np.isfinite(last["loss"])


@pytest.mark.slow
def test_a_reference_of_another_tokenizer_is_refused(weights, tmp_path):
    other = catalog.learn_tokenizer(
        [tiny.sources()["text"]], tiny.processor().template, tiny.CONFIG.transformer.vocabulary, 20
    )
    counts = tiny.CONFIG.understanding_encoder.tokens, N
    processor = Processor(other, tiny.processor().template, *counts)
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model()))
        export(tmp_path / "other", params, tiny.CONFIG, processor)
    plan = plan_of([weights], {"reference": str(tmp_path / "other")})
    with pytest.raises(WeightsError, match="tokenizer"):
        trained(plan, tmp_path / "run")


REFUSED = {
    "group is 1": ({"group": 1}, {}, "one drawing cannot be compared with another"),
    "group is 5": ({"group": 5}, {}, "must be a multiple of options.group, 5"),
    "no reward": ({"rewards": ""}, {}, "options.rewards is '': names no reward"),
    "temperature": ({"temperature": 0}, {}, "options.temperature is 0: must be above 0"),
    "average": ({"average": "mean"}, {}, "must be one of example, token, length"),
    "scale": ({"scale": "std"}, {}, "must be one of deviation, none"),
    "clip": ({"clip_low": 2}, {}, "clip_low at most 1"),
    "reference": ({"reference": "x", "kl": 0}, {}, "nothing reads it"),
    "batch": ({}, {"batch_size": 8}, "task grpo has an example a row"),
    "text": ({}, {"ratio": BOTH | {"text": 1}}, "ratio.text is 1"),
    "tokenizer": ({}, {"trainable": ("generation_encoder",)}, "no reward reaches the tokenizer"),
    "supervise": ({}, {"supervise": "answers"}, "supervise is 'answers': task grpo reads no such"),
    "unused": ({}, {"ratio": DRAWS}, "answer_rewards is 'support.judging:brevity' and"),
}  # fmt: skip


@pytest.mark.parametrize("options, changes, told", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(options, changes, told):
    experiment = plan_of([], options, **changes).experiment
    assert any(told in line for line in grpo_options.grpo_problems(experiment, "one"))


def test_a_plan_that_fits_has_no_problem():
    assert not grpo_options.grpo_problems(plan_of().experiment, "one")
    counts = grpo_options.Counts.of(plan_of().stage, plan_of().options)
    assert dataclasses.astuple(counts) == (8, 8, 4)


def test_prompts_are_functions_of_the_step(tmp_path):
    plan = plan_of(options={"kl": 0.0})

    def drawn(step: int, round_: int = 0):
        opened = tiny.sources(), tiny.processor(), tmp_path, print
        with on_mesh():
            data = grpo.batches(plan, *opened)
            made = data.around(None, rollouts, None, None)
        assert data.next_batch(step)[0] == step
        found = made.prompts.draw("generation", step, round_, 3)
        found += made.prompts.draw("understanding", step, round_, 3)
        return [(asked.words, asked.answer, seed) for asked, _, seed in found]

    assert drawn(3) == drawn(3) != drawn(4)
    assert drawn(3) != drawn(3, 1) and all(answer for _, answer, _ in drawn(3)[3:])
