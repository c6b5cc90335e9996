"""Probes against gradients worked out outside; the training that they look at is not touched."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny, traced
from support.logs import Plain
from support.mesh import on_mesh
from support.toy import records

from janus_jax.config.read import resolve
from janus_jax.model import batch as bt
from janus_jax.training import probes
from janus_jax.training.meter import numbers
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.stages import run_stage
from janus_jax.training.tasks import janus
from janus_jax.weights.tensors import read_safetensors

MESHES = ((2, 4, 1), 1), ((2, 2, 2), 2)
LAYERS = tiny.CONFIG.transformer.layers


@functools.cache
def look(accumulate: int = 1):
    """At every second step."""
    how = {"every": 2, "kinds": bt.TASKS, "accumulate": accumulate}
    return jax.jit(functools.partial(probes.probe, **how))


def rows(without: str = "") -> dict:
    """Rows of unequal make-up, so that a mean of rows' means would be another."""
    kinds = [
        ["understanding", "generation", "text"], ["generation", "generation"],
        ["understanding", "text"], ["text"], ["understanding"], ["generation"],
        ["text", "generation"], ["understanding", "generation"],
    ]  # fmt: skip
    made = [
        tiny.row([tiny.example(kind, 3 * i + k) for k, kind in enumerate(row) if kind != without])
        for i, row in enumerate(kinds)
    ]
    return tiny.with_ids(tiny.stacked(made))


def mean_loss(transformer, state, batch, code):
    """Of one kind, with all logits at once."""
    model = nnx.merge(state.graphdef, state.params | {"transformer": transformer})
    ids = batch["image_ids"].reshape(len(batch["tokens"]), -1)
    hidden = model(batch, ids)
    image_ids = jnp.take_along_axis(ids, jnp.maximum(batch["image_targets"] - 1, 0), axis=1)
    of_text = batch["tasks"] == code, model.text_head.linear, hidden, batch["text_targets"]
    features = model.image_head.features(hidden)
    there = (batch["image_targets"] > 0) & (code == 3)
    of_images = there, model.image_head.fc2, features, jnp.where(there, image_ids, -1)
    total = count = 0
    for there, last, x, targets in (of_text, of_images):
        there = there & (targets >= 0)
        logits = jnp.matmul(x, last.kernel[...], precision="highest")
        logits = logits if last.bias is None else logits + last.bias[...]
        hit = (targets[..., None] == jnp.arange(logits.shape[-1])) & there[..., None]
        total -= jnp.where(hit, jax.nn.log_softmax(logits), 0).sum()
        count += there.sum()
    return total / count


@functools.cache
def expected() -> dict:
    """By name of the metric, in float64 from JAX's own gradients."""
    with on_mesh():
        state, batch = tiny.make_state(tiny.TX), tiny.put(rows())
        gradient = jax.jit(jax.grad(mean_loss))
        transformer = state.trainable["transformer"]
        found = [tiny.numbers(gradient(transformer, state, batch, code)) for code in (1, 2, 3)]
    vectors = {"": [np.concatenate([x.ravel() for x in g.values()]) for g in found]}
    for i in range(LAYERS):
        of_layer = lambda g, i=i: [x[i].ravel() for name, x in g.items() if "blocks" in name]
        vectors[f"/{i}"] = [np.concatenate(of_layer(g)) for g in found]
    out = {}
    for where, of in vectors.items():
        of = [x.astype(np.float64) for x in of]
        norms = [np.linalg.norm(x) for x in of]
        out |= {f"probes/norm_{k}{where}": n for k, n in zip(bt.TASKS, norms)}
        out[f"probes/cosine{where}"] = of[0] @ of[2] / norms[0] / norms[2]
    return out


def looked(batch, step: int = 2, **how) -> dict:
    """What is logged of a step."""
    state = tiny.make_state(tiny.TX)
    state = state.replace(step=jax.device_put(np.int32(step - 1), state.step.sharding))
    return numbers(look(**how)(state, tiny.put(batch)))


def test_norms_and_cosines_are_those_of_gradients_worked_out_apart(one_device):
    got = looked(rows())
    assert got == pytest.approx(expected(), rel=1e-6, abs=1e-7)
    assert len(got) == 4 * (1 + LAYERS)
    assert max(abs(x) for name, x in got.items() if "cosine" in name) > 0.001
    assert looked(rows(), step=3) == {}


@pytest.mark.slow
@pytest.mark.parametrize("mesh, accumulate", MESHES)
def test_every_mesh_and_any_parts_give_the_same(mesh, accumulate):
    with on_mesh(*mesh):
        got = looked(rows(), accumulate=accumulate)
    assert got == pytest.approx(expected(), rel=1e-5, abs=1e-6)


def test_a_kind_that_is_not_there_has_no_value_and_spoils_no_other(one_device):
    got = looked(rows(without="understanding"))
    assert {name.split("/")[1] for name in got} == {"norm_text", "norm_generation"}
    want = {name: expected()[name] for name in got}
    for name in ("probes/norm_text", "probes/norm_generation"):
        assert got[name] > 0.01 and got[name] != want[name], "other rows, other gradients"


def plan_of(**options) -> StagePlan:
    stage = {
        "trainable": tiny.ALL,
        "init": (),
        "steps": 8,
        "batch_size": 8,
        "rows": {"count": 4, "length": 96, "understanding_images": 1, "generation_images": 2},
        "ratio": {"understanding": 2, "text": 3, "generation": 5},
        "optim": {"learning_rate": 1e-3},
        "accumulate": 2,
        "checkpoint_every": 3,
        "log_every": 2,
        "options": options,
    }
    values = {
        "model": dataclasses.asdict(tiny.CONFIG),
        **tiny.WORLD,
        "data": {"datasets": {kind: {"kind": kind, "path": "shapes:"} for kind in bt.TASKS}},
        "stages": {"one": stage},
    }
    return StagePlan.of(resolve(values, {})[0], "one")


def test_without_probes_the_step_is_what_it_was():
    step = object()
    assert probes.beside(plan_of(), step, {}) is step
    assert probes.beside(plan_of(keep="understanding"), step, {}) is step


@pytest.fixture(autouse=True, scope="module")
def traced_once():
    with traced.once(janus):
        yield


class Killed(Exception):
    pass


class Dying(Plain):
    """A log that ends its run after a step."""

    def write(self, step, values):
        super().write(step, values)
        if step == 4:
            raise Killed


def trained(workdir, plan, log=Plain) -> tuple[dict, list]:
    """(the weights that a run hands on, what was logged)."""
    with on_mesh(1, 2):
        shown = lambda *_: lambda *_: {}
        run_stage(plan, tiny.sources(), tiny.processor(), workdir, log(workdir), shown)
    found = read_safetensors(workdir / "one" / "model.safetensors")
    return {name: tensor.read() for name, tensor in found.items()}, records(workdir)


@pytest.mark.slow
def test_a_run_with_probes_learns_the_same_bits_also_after_a_stop(tmp_path):
    """Of one kind, whose step compiles sooner."""
    want, plain = trained(tmp_path / "plain", plan_of(keep="understanding"))
    plan = plan_of(keep="understanding", probe_every=4)
    with pytest.raises(Killed):
        trained(tmp_path / "run", plan, Dying)
    got, logged = trained(tmp_path / "run", plan)
    tiny.same_bits(got, want)
    assert [r["step"] for r in logged] == [r["step"] for r in plain] == [1, 2, 4, 6, 8]
    looked_at = {f"probes/norm_understanding{of}" for of in ("", "/0", "/1")}
    for record, without in zip(logged, plain, strict=True):
        assert record["loss"] == without["loss"] and "generation_loss" not in record
        found = {name for name in record if name.startswith("probes/")}
        assert found == (looked_at if record["step"] in (4, 8) else set())
