"""Task kl: the loss falls and is the oracle's, noise is that of the step, and what it hands on is the same
tokenizer."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import torch
from support import tiny
from support.configs import checked
from support.mesh import on_mesh

from janus_jax.data.images import generation_image
from janus_jax.data.toy import shapes_sources
from janus_jax.model import sharding as sh
from janus_jax.training import optim
from janus_jax.training.tasks import kl, semantic, vq
from janus_jax.weights.load import export
from janus_jax.weights.source import open_source
from janus_jax.weights.vq_parts import vq_sizes

KL = dataclasses.replace(
    tiny.CONFIG.generation_encoder, multipliers=(1, 1), channels=4, norm_groups=2, latent="kl", code_dim=4,
    z_channels=4, latent_scale=2.0,
)  # fmt: skip
MODEL = dataclasses.replace(tiny.CONFIG, generation_encoder=KL, image_head="diffusion")
OPTIONS = kl.OPTIONS | {"kl_weight": 1e-3}
STEPS = 12


def images() -> np.ndarray:
    source = shapes_sources.ShapesPictures(0, 8)
    return np.stack([generation_image(source.image(i), KL.image_size) for i in range(8)])


TX = optim.make(dataclasses.replace(tiny.OPTIM, learning_rate=1e-2, weight_decay=0.0), STEPS)
STEP = functools.partial(kl.kl_step, tx=TX, options=OPTIONS)


def begun():
    """A state on the current mesh, whose numbers come from numpy, which compiles nothing."""
    shapes = sh.concrete(jax.eval_shape(lambda: kl.init_state(jax.random.key(0), MODEL, TX)))
    zeros = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), shapes)
    return zeros.replace(trainable=tiny.drawn(shapes.trainable, 1))


def taught(mesh: tuple, steps: int):
    """(the metrics by step, the state after them)."""
    with on_mesh(*mesh):
        state = kl.init_state(jax.random.key(0), MODEL, TX)
        state = state.replace(trainable=tiny.drawn(state.trainable, 1))
        step = jax.jit(STEP)
        metrics = []
        for _ in range(steps):
            state, told = step(state, tiny.put({"images": images()}))
            metrics.append({name: float(x) for name, x in told.items()})
    return metrics, state


@pytest.fixture(scope="module")
def state():
    with on_mesh():
        return begun()


@pytest.mark.slow
def test_the_loss_falls_and_is_the_same_on_a_mesh_of_all_axes():
    metrics, state = taught((1, 1, 1), STEPS)
    losses = [told["loss"] for told in metrics]
    assert np.mean(losses[-3:]) < 0.7 * losses[0] and int(state.nonfinite_updates) == 0
    assert metrics[0]["loss"] == pytest.approx(metrics[0]["reconstruction"] + metrics[0]["kl"])
    (other,), *_ = taught((1, 2, 2), 1)
    assert other == pytest.approx(metrics[0], rel=2e-5)


def test_the_distance_is_torchs(state):
    @jax.jit
    def of(tokenizer, batch):
        moments = tokenizer.moments(batch["images"] / 127.5 - 1)
        return kl.kl_terms(tokenizer, batch, OPTIONS), moments, tokenizer.render(moments[0])

    with on_mesh():
        batch = tiny.put({"images": images()})
        (terms, told), moments, drawn = of(state.model().generation_encoder, batch)
        mean, log_variance = map(np.asarray, moments)
    normal = torch.distributions.Normal
    own = normal(torch.tensor(mean), torch.tensor(np.exp(0.5 * log_variance)))
    apart = torch.distributions.kl_divergence(own, normal(0.0, 1.0)).sum((1, 2, 3)).mean()
    assert float(terms["kl"]) == pytest.approx(1e-3 * apart.item(), rel=1e-4)
    error = np.mean((np.asarray(drawn) - (images() / 127.5 - 1)) ** 2)
    assert float(terms["reconstruction"]) == pytest.approx(error, rel=1e-4)
    assert float(told["latent_std"]) == pytest.approx(mean.std(), rel=1e-4)


def test_each_step_draws_other_noise_and_the_same_when_it_is_taken_again(state):
    told = jax.jit(lambda *given: STEP(*given)[1]["reconstruction"])  # the step, as far as it tells
    with on_mesh():
        batch = tiny.put({"images": images()})
        at = lambda i: float(told(state.replace(step=state.step * 0 + i), batch))
        assert at(3) == at(3) != at(4)


def test_what_it_hands_on_is_the_same_tokenizer(state, tmp_path, one_device):
    export(tmp_path / "kl", state.params, part_of=MODEL)
    source = open_source(tmp_path / "kl").require()
    shapes = {name: shape for name, (shape, _) in source.leaves.items()}
    assert (
        dataclasses.replace(vq_sizes(shapes, source.unshaped), codebook_size=64, image_size=16)
        == KL
    )


def test_stages_that_learn_what_the_model_has_not_are_refused():
    experiment = checked()
    stage = experiment.stages["stage0"]
    (problem,) = [x for x in kl.problems(of(experiment, stage, "kl"), "stage0") if "latent" in x]
    assert "latent 'vq'" in problem and "task to vq" in problem
    latents = dataclasses.replace(experiment, model=MODEL)
    for task in (vq, semantic):
        name = task.__name__.split(".")[-1]
        problems = task.problems(of(latents, stage, name), "stage0")
        assert any(f"task is {name}" in x and "latent 'kl'" in x for x in problems)


def of(experiment, stage, task: str):
    stage = dataclasses.replace(stage, task=task, options={})
    return dataclasses.replace(experiment, stages={**experiment.stages, "stage0": stage})
