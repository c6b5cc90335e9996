"""The loss as the paper writes it, and its fused cross-entropy against the plain one."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh
from support.tiny import with_ids

from janus_jax.model import batch as bt
from janus_jax.model import sharding as sh
from janus_jax.training import loss


def alone(model, forward, example: dict, ids: np.ndarray):
    """Token losses of one example by itself, in numpy from the hidden states on: (text, image)."""
    n, role, length = len(example["tokens"]), example["role"], 96
    x = np.asarray(model.text_embedding.table[...])[example["tokens"]]
    if (role == bt.UNDERSTANDING_SLOT).any():
        pixels = tiny.row([example])["understanding_images"][:1]
        x[role == bt.UNDERSTANDING_SLOT] = np.asarray(seen(model, bt.pixels(pixels)))[0]
    if (role == bt.GENERATION_SLOT).any():
        x[role == bt.GENERATION_SLOT] = np.asarray(drawn(model, ids[None]))[0]
    hidden = forward(model, np.pad(x, ((0, length - n), (0, 0)))[None])
    logp = [
        log_softmax(np.asarray(head(hidden))[0]) for head in (model.text_head, model.image_head)
    ]
    text, image = [], []
    for t in range(n - 1):  # position t predicts token t + 1
        if not example["supervised"][t + 1]:
            continue
        if role[t + 1] == bt.GENERATION_SLOT:
            image.append(-logp[1][t, ids[(role[: t + 1] == bt.GENERATION_SLOT).sum()]])
        else:
            text.append(-logp[0][t, example["tokens"][t + 1]])
    return text, image


def log_softmax(x):
    x = x.astype(np.float64)
    return (
        x
        - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - x.max(-1, keepdims=True)
    )


@jax.jit
def forward(model, x):
    positions = jnp.arange(x.shape[1])[None]
    return model.transformer(x, positions, jnp.ones((1, x.shape[1]), jnp.int32))


seen = jax.jit(lambda model, images: model.embed_images(images))
drawn = jax.jit(lambda model, ids: model.embed_image_ids(ids))


def test_a_packed_row_loses_what_its_examples_lose_alone(one_device):
    model = tiny.make_model()
    examples = [
        tiny.example(t, i) for t, i in (("generation", 3), ("understanding", 4), ("text", 5))
    ]
    examples.append(tiny.example("generation", 6, dropout=1.0))
    packed = with_ids(tiny.stacked([tiny.row(examples, 224)]))
    got, metrics = jax.jit(loss.janus_loss)(model, tiny.put(packed))
    texts, images, every = [], [], iter(packed["image_ids"][0])
    by_task = {}
    for task, example in zip(("generation", "understanding", "text", "generation"), examples):
        text, image = alone(model, forward, example, next(every) if task == "generation" else None)
        assert bool(image) == (task == "generation") and bool(text) != bool(image)
        texts, images = texts + text, images + image
        by_task.setdefault(task, []).extend(text + image)
    assert len(images) == 32 and len(texts) > 30
    assert float(got) == pytest.approx(np.mean(texts + images), rel=1e-5)
    for task, values in by_task.items():
        assert float(metrics[f"{task}_loss"]) == pytest.approx(np.mean(values), rel=1e-5), task
        share = len(values) / len(texts + images)
        assert float(metrics[f"tokens_{task}"]) == pytest.approx(share, rel=1e-5)


# The fused cross-entropy


def plain_losses(kernel, bias, hidden, targets):
    """Cross-entropy as it is written down: all logits at once."""
    logits = hidden @ kernel + bias
    hit = jax.nn.one_hot(targets, kernel.shape[1])
    losses = jax.nn.logsumexp(logits, -1) - (logits * hit).sum(-1)
    return jnp.where(targets == bt.IGNORE, 0, losses)


@jax.jit
def plainly(kernel, bias, hidden, targets):
    """(losses, the gradients of their sum)."""
    total = lambda *xs: (lambda losses: (losses.sum(), losses))(plain_losses(*xs, targets))
    grads, losses = jax.grad(total, (0, 1, 2), has_aux=True)(kernel, bias, hidden)
    return losses, grads


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("supervised", [0.0, 0.3, 1.0])
def test_fused_cross_entropy_is_the_plain_one(mesh, supervised, monkeypatch):
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(8, 600, 32)).astype(np.float32)
    targets = rng.integers(0, 384, (8, 600)).astype(np.int32)
    targets[rng.random((8, 600)) >= supervised] = bt.IGNORE
    kernel, bias = (
        rng.normal(size=(32, 384)).astype(np.float32) / 4,
        rng.normal(size=384).astype(np.float32),
    )
    want_losses, want = plainly(kernel, bias, hidden, targets)
    monkeypatch.setattr(
        loss, "LOGITS", 256 * 384 * 4
    )  # several chunks a device, the last one not full
    with on_mesh(*mesh):
        graphdef = nnx.graphdef(tiny.make_model().image_head.fc2)
        wide = {"kernel": (kernel, sh.W_DF), "bias": (bias, sh.B_F)}
        put = lambda x, spec: jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), spec))
        weights = {name: put(*x) for name, x in wide.items()}
        batch = put(hidden, sh.ACT_BTD), put(targets, sh.BATCH)

        def run(weights, hidden, targets):
            total, losses = loss.token_losses(nnx.merge(graphdef, weights), hidden, targets)
            return 3 * total, losses

        both = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
        (total, losses), (d_weights, d_hidden) = both(weights, *batch)
        frozen = jax.jit(jax.grad(run, argnums=1, has_aux=True))(weights, *batch)[0]
    np.testing.assert_allclose(losses, want_losses, rtol=1e-5, atol=1e-5)
    assert float(total) == pytest.approx(3 * float(want_losses.sum()), rel=1e-5)
    for got, d in zip((d_weights["kernel"], d_weights["bias"], d_hidden), want):
        np.testing.assert_allclose(
            got, 3 * d, rtol=1e-5, atol=1e-5 * max(float(np.abs(d).max()), 1)
        )
    np.testing.assert_array_equal(frozen, d_hidden)


def test_fused_cross_entropy_holds_a_fraction_of_the_memory(monkeypatch):
    """Stage 2's loss over a wide vocabulary, a tenth of the tokens supervised for text, as a part
    of its step."""
    monkeypatch.setattr(
        loss, "LOGITS", 256 * 16384 * 4
    )  # a quarter of a row's; at full size it is a twelfth
    rows, length, width, vocabulary = 8, 1024, 64, 16384
    shapes = [
        ((width, vocabulary), sh.W_DF),
        ((rows, length, width), sh.ACT_BTD),
        ((rows, length), sh.BATCH),
    ]
    with on_mesh(1, 8, 1):
        mesh = jax.sharding.get_mesh()
        kernel, hidden, targets = (
            jax.ShapeDtypeStruct(shape, t, sharding=jax.NamedSharding(mesh, spec))
            for (shape, spec), t in zip(shapes, (jnp.float32, jnp.float32, jnp.int32))
        )
        graphdef = nnx.graphdef(tiny.make_model().text_head.linear)

        def fused(kernel, hidden, targets):
            return loss.token_losses(nnx.merge(graphdef, {"kernel": kernel}), hidden, targets)[0]

        def plain(kernel, hidden, targets):
            return plain_losses(
                jax.sharding.reshard(kernel, sh.REPLICATED), 0.0, hidden, targets
            ).sum()

        held = {}
        for name, f in (("fused", fused), ("plain", plain)):
            program = jax.jit(jax.grad(f, (0, 1))).lower(kernel, hidden, targets).compile()
            held[name] = program.memory_analysis().temp_size_in_bytes
    logits = length * vocabulary * 4  # of one device's row
    assert held["plain"] > 2 * logits
    assert held["fused"] < held["plain"] / 2, held


# Image ids


def test_image_ids_from_the_record_or_from_its_picture_are_one():
    with on_mesh(2, 2, 2):
        model, batch = tiny.make_model(), tiny.rows(4)
        images = batch.pop("generation_images")
        encode = jax.jit(lambda model, x: model.generation_encoder.encode(x))
        slots = [tiny.put({0: bt.pixels(images[:, g])})[0] for g in range(images.shape[1])]
        ids = np.stack([np.asarray(encode(model, slot)) for slot in slots], 1)
        assert len(np.unique(ids)) > 4, "pictures of one code show nothing"
        # As training compiles it: without fusion emitters the two programs add up in another order.
        name = "xla_cpu_use_fusion_emitters"  # the tests turn it off where XLA knows it
        flags = {name: True} if name in os.environ["XLA_FLAGS"] else {}
        run = jax.jit(loss.janus_loss, compiler_options=flags)
        a, _ = run(model, tiny.put(batch | {"generation_images": images}))
        b, _ = run(model, tiny.put(batch | {"image_ids": ids}))
        assert float(a) == float(b)
