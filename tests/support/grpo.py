"""Small stages of task grpo, what they learn of, and runs of them."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.logs import Plain
from support.mesh import on_mesh

from janus_jax.config.read import resolve
from janus_jax.sample import rollouts
from janus_jax.training import grpo_batch
from janus_jax.training.grpo_batch import Group
from janus_jax.training.rewards import Asked
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.stages import run_stage
from janus_jax.weights.load import export
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


def exported(root: pathlib.Path) -> pathlib.Path:
    """A whole Janus to begin with, in a folder."""
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model()))
        export(root / "weights", params, tiny.CONFIG, tiny.processor())
    return root / "weights"


class Killed(Exception):
    pass


class Dying(Plain):
    """A log that ends its run after a step."""

    def write(self, step, values):
        super().write(step, values)
        if step == 2:
            raise Killed


def trained(plan: StagePlan, workdir: pathlib.Path, log=Plain, name="model.safetensors") -> dict:
    """Runs a stage, or what is left of it, and gives the arrays that it hands on."""
    workdir.mkdir(exist_ok=True)
    tiny.processor().tokenizer.save(workdir)
    sources = {kind: tiny.sources()[kind] for kind in ("generation", "understanding")}
    shows = lambda *_: lambda *_: {}
    with on_mesh():
        run_stage(plan, sources, tiny.processor(), workdir, log(workdir), shows, rollouts)
    found = read_safetensors(workdir / "one" / name).items()
    return {name: tensor.read() for name, tensor in found}


def logged(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def gone_on(plan: StagePlan, folder: pathlib.Path, name="model.safetensors") -> tuple:
    """(what a stage hands on, its records), which one that is killed and goes on has too, bit for
    bit."""
    whole = trained(plan, folder / "whole", name=name)
    with pytest.raises(Killed):
        trained(plan, folder / "killed", Dying)
    tiny.same_bits(trained(plan, folder / "killed", name=name), whole)
    first, again = (logged(folder / name) for name in ("whole", "killed"))
    assert [record["step"] for record in first] == [1, 2, 3, 4]
    same = [name for name in first[0] if name.split("_")[0] in SAME]
    assert {"loss", "reward_drawing", "kl_drawing", "entropy_drawing"} <= {*same}
    for one, other in zip(first, again, strict=True):
        assert {name: one[name] for name in same} == {name: other[name] for name in same}
    return whole, first
