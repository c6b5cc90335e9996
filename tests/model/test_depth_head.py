"""The depth head (RQ-Transformer's): the numbers of a torch oracle, each code from those before it, and the
same loss on every mesh and in parts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support import rq, tiny
from support.mesh import on_mesh

from janus_jax.distributed import arrays
from janus_jax.model import flops
from janus_jax.model import sharding as sh
from janus_jax.model.depth_head import DepthHead
from janus_jax.training.loss import token_losses
from janus_jax.training.step import train_step

VQ = dataclasses.replace(tiny.CONFIG.generation_encoder, depth=3, codebook_l2_norm=False)
CONFIG = tiny.small(generation_encoder=VQ, image_head="depth", image_head_layers=2)
FLAMES = tuple(name for name in CONFIG.children if name != "generation_encoder")
N = VQ.tokens


def drawn_ids(*shape):
    return np.random.default_rng(3).integers(0, VQ.codebook_size, shape).astype(np.int32)


@pytest.fixture(scope="module")
def head():
    with on_mesh():
        make = lambda: DepthHead(CONFIG, nnx.Rngs(0))
        graphdef, state = nnx.split(jax.eval_shape(make))
        return nnx.merge(graphdef, tiny.drawn(sh.concrete(nnx.to_pure_dict(state)), 0))


def test_the_loss_and_all_its_gradients_are_the_oracles(head, one_device):
    """Of a row with one of two pictures to predict."""
    rng = np.random.default_rng(0)
    targets = np.zeros((1, 40), np.int32)
    at = np.arange(9, 9 + N)
    targets[0, at] = 1 + N + np.arange(N)  # the second picture's
    hidden = rng.normal(size=(1, 40, 32)).astype(np.float32)
    ids = drawn_ids(1, 2 * N, 3)
    graphdef, weights = nnx.split(head)
    batch = tiny.put({"image_targets": targets})
    of = lambda weights, hidden: nnx.merge(graphdef, weights).loss(hidden, ids, batch, token_losses)
    got, grads = jax.jit(jax.value_and_grad(of, (0, 1)))(weights, hidden)

    theirs = rq.Head(tiny.numbers(nnx.to_pure_dict(weights)), heads=8)
    c = torch.tensor(hidden[0], requires_grad=True)
    codes = torch.tensor(ids[0, N:]).long()
    want = sum(theirs.loss(c[t], own) for t, own in zip(at, codes))
    want.backward()
    assert float(got) == pytest.approx(want.item(), rel=1e-5)
    ours = tiny.numbers(nnx.to_pure_dict(grads[0]))
    both = {name: (ours[name], x.grad.numpy()) for name, x in theirs.leaves.items()}
    both["hidden"] = np.asarray(grads[1][0]), c.grad.numpy()
    for name, (got, want) in both.items():
        atol = 1e-5 * np.abs(want).max()
        assert atol > 0
        np.testing.assert_allclose(got, want, atol=atol, rtol=1e-5, err_msg=name)


def test_a_code_is_predicted_from_those_before_it_alone(head, one_device):
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 32)), jnp.float32)
    ids = drawn_ids(1, 2, 3)
    other = ids.copy()
    other[0, 0, 1] = (ids[0, 0, 1] + 1) % VQ.codebook_size
    run = jax.jit(lambda head, ids: head(hidden, ids))
    moved = np.abs(np.asarray(run(head, ids) - run(head, other))).max(-1).reshape(2, 3)
    assert moved[0, 2] > 1e-3 and np.count_nonzero(moved) == 1


@pytest.mark.slow
def test_the_loss_and_its_gradient_are_the_same_on_all_meshes_and_in_parts():
    rows = [
        tiny.row([tiny.example("generation", 2 * i), tiny.example("generation", 2 * i + 1)])
        for i in range(8)
    ]
    batch = tiny.stacked(rows)
    batch["understanding_images"] = batch["understanding_images"][:, :0]
    found = []
    for mesh, parts in (((1, 1, 1), 2), ((2, 2, 2), 1)):
        with on_mesh(*mesh):
            state = tiny.make_state(tiny.TX, FLAMES, CONFIG)
            step = jax.jit(functools.partial(train_step, tx=tiny.TX, accumulate=parts))
            _, metrics = step(state, arrays.put_batch(batch))
            found.append({key: float(x) for key, x in metrics.items()})
    one, other = found
    assert 3.5 < one["generation_loss"] < 5  # nats a code; a chance of 1 in 64 is 4.16
    assert one["grad_norm/generation_adaptor"] > 0 and one["grad_norm/generation_embedding"] > 0
    assert other == pytest.approx(one, rel=2e-5, abs=1e-6)


def test_flops_count_the_layers_and_the_logits_of_every_code():
    work = flops.Work(
        tokens=0, pairs=0, text=0, image=N, understanding_images=0, generation_images=0
    )
    frozen = flops.count(CONFIG, (), work)["image_head"]
    w, d = 32, 3
    layer = d * (4 * w * w + 3 * w * 64) + 2 * w * (1 + 2 + 3)
    assert frozen == 2 * N * (w * 32 + 2 * 8 * w + 2 * layer + d * w * 64)
    assert flops.count(CONFIG, ("image_head",), work)["image_head"] == 3 * frozen
