"""GELU is exact, norms have transformers' epsilons, embeddings sum gradients in float32, and products
are as exact as their type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support import compiled, tiny
from support.mesh import on_mesh
from support.outputs import (
    TOLERANCE,
    error,
    first_layer,
    nchw,
    nhwc,
    same,
    split,
)

from janus_jax.model import attention, layers
from janus_jax.model import sharding as sh
from janus_jax.training.loss import janus_loss

GELUS = {
    "tower": (lambda m: first_layer(m.understanding_encoder.blocks).mlp,
              lambda m: m.model.vision_model.encoder.layers[0].mlp),
    "understanding adaptor": (lambda m: m.understanding_adaptor, lambda m: m.model.aligner),
    "generation adaptor": (lambda m: m.generation_adaptor, lambda m: m.model.generation_aligner),
    "image head": (lambda m: m.image_head, lambda m: m.model.generation_head),
}  # fmt: skip


@pytest.mark.parametrize("rows, slots", [(2, 3), (5, 2), (3, 5), (9, 2)])
def test_pictures_are_encoded_in_chunks_that_need_not_divide_them(one_device, rows, slots):
    images = np.random.default_rng(0).standard_normal((rows, slots, 4, 4, 3)).astype(np.float32)
    count = np.arange(rows) % (slots + 1)
    seen = []
    encode = lambda x: (seen.append(len(x)), x.mean((1, 2)))[1]
    got = np.asarray(jax.jit(lambda *x: layers.of_filled(encode, *x))(images, count))
    there = np.arange(slots) < count[:, None]
    assert set(seen) == {min(rows * slots, max(rows, layers.TOGETHER))}
    np.testing.assert_allclose(got[there], images.mean((2, 3))[there], rtol=1e-5)


def products(jaxpr):
    """Every product of a program and of those inside it: its operands' types and its result's."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield [str(x.aval.dtype) for x in (*equation.invars, *equation.outvars)]
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_off_a_cpu_no_product_of_a_step_has_a_float32_operand(monkeypatch, platform):
    monkeypatch.setattr(sh, "platform", lambda: platform)
    with on_mesh(2, 2, 2):
        model = tiny.make_model(tiny.small(dtype="bfloat16", attention="plain"))
        batch = tiny.put(tiny.with_ids(tiny.rows()))
        loss = lambda model: janus_loss(model, batch)[0]
        found = list(products(jax.make_jaxpr(nnx.grad(loss))(model).jaxpr))
    wide = [types for types in found if "float32" in types[:2]]
    assert len(found) > 60 and bool(wide) == (platform == "cpu")


@pytest.mark.parametrize("box", GELUS)
def test_gelu_is_exact(theirs, ours, box, monkeypatch):
    """The tolerance tells exact (erf) GELU from the tanh form: with the latter the comparison
    fails."""
    our_box, their_box = GELUS[box][0](ours), GELUS[box][1](theirs)
    exact, width = jax.nn.gelu, our_box.fc1.kernel.shape[0]
    x = 2 * np.random.default_rng(20).standard_normal((4, 16, width)).astype(np.float32)
    want = their_box(torch.from_numpy(x))
    same(our_box(*split(x)), want)
    monkeypatch.setattr(jax.nn, "gelu", lambda x, approximate: exact(x, approximate=True))
    assert error(our_box(*split(x)), want) > 2 * TOLERANCE


NORMS = {
    "tower block": (lambda m: first_layer(m.understanding_encoder.blocks).norm1,
                    lambda m: m.model.vision_model.encoder.layers[0].layer_norm1),
    "tower end": (lambda m: m.understanding_encoder.norm, lambda m: m.model.vision_model.post_layernorm),
    "transformer block": (lambda m: first_layer(m.transformer.blocks).norm2,
                          lambda m: m.model.language_model.layers[0].post_attention_layernorm),
    "transformer end": (lambda m: m.transformer.norm, lambda m: m.model.language_model.norm),
    "VQ": (lambda m: m.generation_encoder.encoder.norm_out, lambda m: m.model.vqmodel.encoder.norm_out),
}  # fmt: skip


@pytest.mark.parametrize("box", NORMS)
def test_norm_epsilon(theirs, ours, box):
    """Inputs so small that the epsilon decides the output."""
    our_norm, their_norm = NORMS[box][0](ours), NORMS[box][1](theirs)
    x = 1e-3 * np.random.default_rng(21).standard_normal((2, 4, 4, len(their_norm.weight))).astype(
        np.float32
    )
    want = nhwc(their_norm(nchw(x))) if box == "VQ" else their_norm(torch.from_numpy(x))
    same(our_norm(*split(x)), want)


# Embeddings


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_an_embedding_sums_its_gradient_in_float32(mesh):
    """One id 4096 times, each with a gradient of 1: in bfloat16 the sum stays at 256."""
    with on_mesh(*mesh):
        put = lambda x, spec: jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), spec))
        table, ids = (
            put(np.ones((16, 32), np.float32), sh.W_VD),
            put(np.full((8, 512), 3, np.int32), sh.BATCH),
        )
        total = lambda table: layers.lookup(table, ids, jnp.bfloat16).astype(jnp.float32).sum()
        got = np.asarray(jax.jit(jax.grad(total))(table))
    np.testing.assert_array_equal(got, np.where(np.arange(16)[:, None] == 3, 4096, 0) * np.ones(32))


@pytest.mark.parametrize(
    ("dtype", "callers", "exact"), [("float32", "bfloat16", True), ("bfloat16", "highest", False)]
)
def test_products_are_as_exact_as_their_type_whatever_the_caller_asks_for(
    one_device, dtype, callers, exact
):
    """Linear maps, plain and blockwise attention, and the gradients of all."""
    layer = jax.eval_shape(lambda: layers.Attention(32, 4, dtype, nnx.Rngs(0), bias=True))
    x = jax.ShapeDtypeStruct((2, 16, 32), dtype)
    ids = jnp.zeros((2, 16), jnp.int32)
    tiles = lambda *qkv: attention.packed(*qkv, ids, "blockwise")
    run = lambda layer, x: (layer(x) + layer(x, tiles)).astype(jnp.float32).sum()
    with jax.default_matmul_precision(callers):
        lowered = jax.jit(nnx.grad(run)).trace(layer, x).lower(lowering_platforms=("tpu",))
    found = compiled.products(lowered)
    assert len(found) > 20
    assert [x for x in found if x.count("HIGHEST") != 2 * exact] == []
