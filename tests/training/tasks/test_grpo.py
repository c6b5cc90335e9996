"""Task grpo: what it draws and learns of, every mesh, a run that is killed, and what it refuses."""

import dataclasses
import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx
from support import tiny, traced
from support.logs import Plain
from support.mesh import on_mesh

from janus_jax.config.read import resolve
from janus_jax.data import catalog
from janus_jax.data.processor import Processor
from janus_jax.model import batch as bt
from janus_jax.sample import rollouts
from janus_jax.training import grpo_batch, grpo_options
from janus_jax.training.grpo_batch import Group
from janus_jax.training.rewards import Asked
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.stages import run_stage
from janus_jax.training.tasks import grpo
from janus_jax.weights.load import export
from janus_jax.weights.table import WeightsError
from janus_jax.weights.tensors import read_safetensors

N = tiny.CONFIG.generation_encoder.tokens
STEPS = 4
BOTH = {"generation": 1, "text": 0, "understanding": 1}
DRAWS = {"generation": 1, "text": 0, "understanding": 0}
SAME = ("loss", "reward", "entropy", "kl", "distinct", "useful", "grad", "decoder")  # metrics
OPTIONS = {
    "group": 4,
    "rewards": "support.judging:brightness",
    "answer_rewards": "support.judging:brevity",
    "max_new_tokens": 4,
}


def plan_of(weights=(), options=None, **changes) -> StagePlan:
    ratio = changes.get("ratio", BOTH)
    stage = {
        "task": "grpo",
        "options": OPTIONS | (options or {}),
        "trainable": ("transformer", "image_head", "text_head"),
        "init": tuple(map(str, weights)),
        "steps": STEPS,
        "batch_size": 16,
        "rows": {
            "count": 16,
            "length": 64,
            "understanding_images": int(ratio["understanding"] > 0),
            "generation_images": int(ratio["generation"] > 0),
        },
        "ratio": ratio,
        "optim": {"learning_rate": 1e-2, "eps": 1e-3, "warmup_steps": 1},
        "spikes": {"sigma": 0},
        "checkpoint_every": 1,
        "log_every": 1,
        **changes,
    }
    lines = {kind: {"kind": kind, "path": "shapes:"} for kind in ("generation", "understanding")}
    values = {
        "model": dataclasses.asdict(tiny.CONFIG),
        **tiny.WORLD,
        "data": {"datasets": lines},
        "stages": {"one": stage},
    }
    return StagePlan.of(resolve(values, {})[0], "one")


def groups(guided: bool = False) -> list[Group]:
    """Two prompts drawn and two questions answered, four times each, one of whose rewards failed."""
    rng = np.random.default_rng(0)
    processor = tiny.processor()
    codes = tiny.CONFIG.generation_encoder.codebook_size
    found = []
    for k, words in enumerate(("a red circle", "two blue squares")):
        outputs = [
            (rng.integers(0, codes, N).astype(np.int32), rng.normal(-2, 0.1, N).astype(np.float32))
            for _ in range(4)
        ]
        values = np.array([0, 1, 0, k], np.float32)
        found.append(Group(Asked(words), True, processor.request(words), outputs, rewards=values))
    for k, words in enumerate(("what is it?", "how many circles are there?")):
        picture = np.full((16, 16, 3), 90 * k, np.uint8)
        ids, slots, seen = rollouts.question(processor, tiny.CONFIG, picture, words)
        outputs = [
            (rng.integers(5, 60, n).astype(np.int32), rng.normal(-2, 0.1, n).astype(np.float32))
            for n in (1, 2, 3, 4)
        ]
        values = np.array([0, 1, np.nan if k else 0, 2], np.float32)
        found.append(Group(Asked(words), False, ids, outputs, slots, seen, values))
    return found


def batch_of(plan: StagePlan) -> dict:
    """The batch of `groups`, whose old log-probabilities are what the decoder told."""
    guided = plan.options["cfg_scale"] != 1
    blank = tiny.processor().unconditional if guided else None
    batch = grpo_batch.assembled(groups(), plan.stage.rows, tiny.CONFIG, 4, blank, plan.options)
    told = batch.pop("told")
    return batch | {"old": told, "reference": told - np.float32(0.1) * (told != 0)}


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


def begun(plan: StagePlan):
    """A state of drawn weights on the current mesh."""
    like = plan.state()
    zeros = lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)
    return like.replace(
        step=jax.device_put(np.int32(0), like.step.sharding),
        nonfinite_updates=jax.device_put(np.int32(0), like.nonfinite_updates.sharding),
        trainable=tiny.drawn(like.trainable, 0),
        frozen=tiny.drawn(like.frozen, 0),
        opt_state=jax.tree.map(zeros, like.opt_state),
    )


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


class Killed(Exception):
    pass


class Dying(Plain):
    """A log that ends its run after a step."""

    def write(self, step, values):
        super().write(step, values)
        if step == 2:
            raise Killed


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("begun")
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model()))
        export(root / "weights", params, tiny.CONFIG, tiny.processor())
    return root / "weights"


@pytest.fixture(autouse=True, scope="module")
def traced_once():
    with traced.once(grpo):
        yield


def trained(plan: StagePlan, workdir: pathlib.Path, log=Plain) -> dict:
    """Runs a stage, or what is left of it, and gives the arrays that it hands on."""
    workdir.mkdir(exist_ok=True)
    tiny.processor().tokenizer.save(workdir)
    sources = {kind: tiny.sources()[kind] for kind in ("generation", "understanding")}
    shows = lambda *_: lambda *_: {}
    with on_mesh():
        run_stage(plan, sources, tiny.processor(), workdir, log(workdir), shows, rollouts)
    found = read_safetensors(workdir / "one" / "model.safetensors").items()
    return {name: tensor.read() for name, tensor in found}


def logged(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bits(weights, tmp_path, capsys):
    plan = plan_of([weights], {"sheet_every": 2})
    whole = trained(plan, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(plan, tmp_path / "killed", Dying)
    tiny.same_bits(trained(plan, tmp_path / "killed"), whole)
    first, again = (logged(tmp_path / name) for name in ("whole", "killed"))
    assert [record["step"] for record in first] == [1, 2, 3, 4]
    same = [name for name in first[0] if name.split("_")[0] in SAME]
    assert len(same) > 15
    for one, other in zip(first, again, strict=True):
        assert {name: one[name] for name in same} == {name: other[name] for name in same}
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
