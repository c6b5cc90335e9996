"""The step: the same numbers on every mesh, the flames and no others, the loss as the paper writes it."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from conftest import on_mesh
from flax import nnx

from janus_jax import batch as bt
from janus_jax import experiment, loss, optim
from janus_jax import sharding as sh
from janus_jax.model import layers

MESHES = [(1, 1, 1), (1, 8, 1), (1, 4, 2), (1, 2, 4), (1, 1, 8), (2, 2, 2)]
CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
STEPS = 10


def with_ids(batch: dict, seed: int = 0) -> dict:
    """The batch with drawn image ids in place of its images: they vary, and compile in half the time."""
    shape = (*batch["images"].shape[:2], tiny.CONFIG.generation_encoder.tokens)
    ids = np.random.default_rng(seed).integers(0, tiny.CONFIG.generation_encoder.codebook_size, shape)
    return {n: x for n, x in batch.items() if n != "images"} | {"image_ids": ids.astype(np.int32)}


def specs(tree) -> dict:
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="."): x.sharding.spec for p, x in leaves}


@functools.cache
def stepped(mesh: tuple, steps: int = 1):
    """What `steps` steps leave on a mesh: losses, weights (numpy), shardings before and after, jit cache size."""
    with on_mesh(*mesh):
        tx = optim.make(tiny.OPTIM, STEPS)
        state, step, batch = tiny.make_state(tx), tiny.make_step(tx), with_ids(tiny.rows())
        before, seen = specs(state), []
        for _ in range(steps):
            state, metrics = step(state, tiny.put(batch))
            seen.append({name: float(x) for name, x in metrics.items()})
        assert int(state.step) == steps
        return seen, tiny.numbers(state.trainable), before, specs(state), step._cache_size()


@pytest.mark.parametrize("mesh", MESHES[1:], ids=lambda m: "x".join(map(str, m)))
def test_every_mesh_takes_the_same_step(mesh):
    (metrics, *_), weights, *_ = stepped(mesh, 3 if mesh == (2, 2, 2) else 1)
    (want, *_), *_ = stepped((1, 1, 1))
    for name in ("loss", "grad_norm", "generation_loss", "text_loss", "understanding_loss"):
        assert metrics[name] == pytest.approx(want[name], rel=1e-5), name
    if mesh != (2, 2, 2):
        for name, x in stepped((1, 1, 1))[1].items():
            np.testing.assert_allclose(weights[name], x, atol=1e-5, rtol=0, err_msg=name)


def test_the_step_compiles_once_and_keeps_every_sharding():
    losses, _, before, after, compiled = stepped((2, 2, 2), 3)
    assert compiled == 1
    assert before == after
    assert losses[2]["loss"] < losses[0]["loss"]
    split = {axis for spec in after.values() for part in spec for axis in ([part] if part else [])}
    assert {"fsdp", "tensor"} <= split, "nothing was split: the test shows nothing"


def test_moments_lie_beside_their_weights_and_exist_for_flames_only():
    with on_mesh(2, 2, 2):
        flames = ("understanding_adaptor", "transformer")
        state = tiny.make_state(optim.make(tiny.OPTIM, STEPS), flames)
        adam = next(x for x in jax.tree.leaves(state.opt_state, is_leaf=is_adam) if is_adam(x))
        assert set(state.trainable) == set(flames) and not set(state.frozen) & set(flames)
        for moments in (adam.mu, adam.nu):
            assert specs(moments) == specs(state.trainable)
            assert jax.tree.map(jnp.shape, moments) == jax.tree.map(jnp.shape, state.trainable)
        many = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim)
        assert many == 2 * sum(x.size for x in jax.tree.leaves(state.trainable))


def is_adam(x) -> bool:
    return isinstance(x, optax.ScaleByAdamState)


def flames_of(name: str) -> tuple:
    (stage,) = experiment.read(CONFIGS / f"{name}.py")[0].stages.values()
    return stage.trainable


@pytest.mark.parametrize("name", ["stage1", "stage2", "stage3"])
def test_only_the_flames_of_a_stage_change(name, one_device):
    flames = flames_of(name)
    tx = optim.make(tiny.OPTIM, STEPS)
    state, batch = tiny.make_state(tx, flames), with_ids(tiny.rows(2))
    before = tiny.numbers(state.trainable), tiny.numbers(state.frozen)
    state, _ = tiny.make_step(tx)(state, tiny.put(batch))
    after = tiny.numbers(state.trainable), tiny.numbers(state.frozen)
    assert {key.split(".")[0] for key in after[0]} == set(flames)
    assert "generation_encoder" in state.frozen
    assert [key for key in after[1] if before[1][key].tobytes() != after[1][key].tobytes()] == []
    # In stage 1 the adaptors' gradients have come through the frozen transformer. Norms and biases do not
    # decay, so that what moved them is a gradient.
    moved = {key for key in after[0] if np.abs(before[0][key] - after[0][key]).max() > 1e-4}
    undecayed = {key for key in moved if not key.endswith(("kernel", "table"))}
    assert {key.split(".")[0] for key in moved} == set(flames)
    tables = {"text_embedding", "generation_embedding", "text_head"}
    assert {key.split(".")[0] for key in undecayed} == set(flames) - tables


# The loss


def alone(model, forward, example: dict, ids: np.ndarray):
    """Token losses of one example by itself, in numpy from the hidden states on: (text, image)."""
    n, role, length = len(example["tokens"]), example["role"], 96
    x = np.asarray(model.text_embedding.table[...])[example["tokens"]]
    if (role == bt.PICTURE).any():
        pixels = tiny.row([example])["pictures"][:1]
        x[role == bt.PICTURE] = np.asarray(model.embed_pictures(jnp.asarray(bt.pixels(pixels))))[0]
    if (role == bt.IMAGE).any():
        x[role == bt.IMAGE] = np.asarray(model.embed_image_ids(jnp.asarray(ids[None])))[0]
    hidden = forward(model, np.pad(x, ((0, length - n), (0, 0)))[None])
    logp = [log_softmax(np.asarray(head(hidden))[0]) for head in (model.text_head, model.image_head)]
    text, image = [], []
    for t in range(n - 1):  # position t predicts token t + 1
        if not example["supervised"][t + 1]:
            continue
        if role[t + 1] == bt.IMAGE:
            image.append(-logp[1][t, ids[(role[: t + 1] == bt.IMAGE).sum()]])
        else:
            text.append(-logp[0][t, example["tokens"][t + 1]])
    return text, image


def log_softmax(x):
    x = x.astype(np.float64)
    return x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)


@jax.jit
def forward(model, x):
    positions = jnp.arange(x.shape[1])[None]
    return model.transformer(x, positions, jnp.ones((1, x.shape[1]), jnp.int32))


def test_a_packed_row_loses_what_its_examples_lose_alone(one_device):
    model = tiny.make_model()
    examples = [tiny.example(t, i) for t, i in (("generation", 3), ("understanding", 4), ("text", 5))]
    examples.append(tiny.example("generation", 6, dropout=1.0))
    packed = with_ids(tiny.stacked([tiny.row(examples, 224)]))
    got, metrics = jax.jit(loss.janus_loss)(model, tiny.put(packed))
    texts, images, drawn = [], [], iter(packed["image_ids"][0])
    by_task = {}
    for task, example in zip(("generation", "understanding", "text", "generation"), examples):
        text, image = alone(model, forward, example, next(drawn) if task == "generation" else None)
        assert bool(image) == (task == "generation") and bool(text) != bool(image)
        texts, images = texts + text, images + image
        by_task.setdefault(task, []).extend(text + image)
    assert len(images) == 32 and len(texts) > 40
    assert float(got) == pytest.approx(np.mean(texts + images), rel=1e-5)
    for task, values in by_task.items():
        assert float(metrics[f"{task}_loss"]) == pytest.approx(np.mean(values), rel=1e-5), task
        share = len(values) / len(texts + images)
        assert float(metrics[f"tokens_{task}"]) == pytest.approx(share, rel=1e-5)


def plain_losses(kernel, bias, hidden, targets):
    """Cross-entropy as it is written down: all logits at once."""
    logits = hidden @ kernel + bias
    hit = jax.nn.one_hot(targets, kernel.shape[1])
    losses = jax.nn.logsumexp(logits, -1) - (logits * hit).sum(-1)
    return jnp.where(targets == bt.IGNORE, 0, losses)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("supervised", [0.0, 0.3, 1.0])
def test_fused_cross_entropy_is_the_plain_one(mesh, supervised, monkeypatch):
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(8, 600, 32)).astype(np.float32)
    targets = rng.integers(0, 384, (8, 600)).astype(np.int32)
    targets[rng.random((8, 600)) >= supervised] = bt.IGNORE
    kernel, bias = rng.normal(size=(32, 384)).astype(np.float32) / 4, rng.normal(size=384).astype(np.float32)
    want_losses = plain_losses(kernel, bias, hidden, targets)
    want = jax.grad(lambda *xs: plain_losses(*xs, targets).sum(), (0, 1, 2))(kernel, bias, hidden)
    monkeypatch.setattr(loss, "LOGITS", 256 * 384 * 4)  # several chunks a device, the last one not full
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
        np.testing.assert_allclose(got, 3 * d, rtol=1e-5, atol=1e-5 * max(float(np.abs(d).max()), 1))
    np.testing.assert_array_equal(frozen, d_hidden)


def test_fused_cross_entropy_holds_a_fraction_of_the_memory(monkeypatch):
    """Stage 2's loss over a wide vocabulary, a tenth of the tokens supervised for text, as a part of its step."""
    monkeypatch.setattr(loss, "LOGITS", 256 * 16384 * 4)  # a quarter of a row's; at full size it is a twelfth
    rows, length, width, vocabulary = 8, 1024, 64, 16384
    shapes = [((width, vocabulary), sh.W_DF), ((rows, length, width), sh.ACT_BTD), ((rows, length), sh.BATCH)]
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
            return plain_losses(jax.sharding.reshard(kernel, sh.REPLICATED), 0.0, hidden, targets).sum()

        held = {}
        for name, f in (("fused", fused), ("plain", plain)):
            program = jax.jit(jax.grad(f, (0, 1))).lower(kernel, hidden, targets).compile()
            held[name] = program.memory_analysis().temp_size_in_bytes
    logits = length * vocabulary * 4  # of one device's row
    assert held["plain"] > 2 * logits
    assert held["fused"] < held["plain"] / 2, held


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)])
def test_image_ids_from_the_record_or_from_its_picture_are_one(mesh):
    with on_mesh(*mesh):
        model, batch = tiny.make_model(), tiny.rows(4)
        images = batch.pop("images")
        encode = jax.jit(lambda model, x: model.generation_encoder.encode(x))
        slots = [tiny.put({0: bt.pixels(images[:, g])})[0] for g in range(images.shape[1])]
        ids = np.stack([np.asarray(encode(model, slot)) for slot in slots], 1)
        assert len(np.unique(ids)) > 4, "pictures of one code show nothing"
        run = jax.jit(loss.janus_loss)
        a, _ = run(model, tiny.put(batch | {"images": images}))
        b, _ = run(model, tiny.put(batch | {"image_ids": ids}))
        assert float(a) == float(b)


def test_pictures_that_do_not_exist_cost_nothing_and_change_nothing():
    """Empty slots hold noise: what is read of them would show. Rows differ in how many pictures they have."""
    examples = [["understanding", "text", "generation"], ["text"], ["understanding"] * 2, ["generation"] * 2]
    batch = tiny.stacked([tiny.row([tiny.example(t, i) for t in e]) for i, e in enumerate(examples)])
    noise = np.random.default_rng(0).integers(0, 255, batch["pictures"].shape).astype(np.uint8)
    noisy = dict(batch)
    for name, slots, n in (("pictures", "picture_slots", 16), ("images", "image_slots", 16)):
        empty = np.arange(2) >= -(-batch[slots].max(1, keepdims=True) // n)
        assert empty.sum() > 3
        noisy[name] = np.where(empty[..., None, None, None], noise, batch[name])
    seen = []
    for mesh, rows in (((1, 1, 1), batch), ((1, 1, 1), noisy), ((2, 2, 2), noisy)):
        with on_mesh(*mesh):
            state, step = (
                tiny.make_state(optim.make(tiny.OPTIM, STEPS)),
                tiny.make_step(optim.make(tiny.OPTIM, STEPS)),
            )
            seen.append({name: float(x) for name, x in step(state, tiny.put(rows))[1].items()})
    assert seen[0] == seen[1]
    assert seen[2] == pytest.approx(seen[0], rel=1e-5)


def test_parts_of_rows_without_pictures():
    with on_mesh(2, 2, 1):
        pictures = tiny.put({"pictures": np.zeros((8, 0, 4, 4, 3), np.uint8)})["pictures"]
        assert sh.parts(pictures, 2).shape == (2, 4, 0, 4, 4, 3)


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


def test_a_step_in_parts_is_the_step():
    """The rows differ in supervised tokens, so a mean of the parts' means would be another loss."""
    rows = [
        tiny.row([tiny.example("text", i)] if i % 2 else [tiny.example("generation", i)]) for i in range(8)
    ]
    batch, tx = with_ids(tiny.stacked(rows)), optim.make(tiny.OPTIM, STEPS)
    with on_mesh(2, 2, 1):
        whole, want = tiny.make_step(tx)(tiny.make_state(tx), tiny.put(batch))
        parts, got = tiny.make_step(tx, accumulate=2)(tiny.make_state(tx), tiny.put(batch))
        assert want.keys() == got.keys()
        for name in want:
            assert float(got[name]) == pytest.approx(float(want[name]), rel=1e-5, abs=1e-7), name
        whole, parts = tiny.numbers(whole.trainable), tiny.numbers(parts.trainable)
    for name, x in whole.items():
        np.testing.assert_allclose(parts[name], x, atol=1e-5, rtol=0, err_msg=name)


def test_four_examples_are_learned_by_heart(one_device):
    tx = optim.make(optim.Optim(learning_rate=1e-2, warmup_steps=10), 150)
    state, step = tiny.make_state(tx), tiny.make_step(tx)
    examples = [[tiny.example("understanding", 1), tiny.example("text", 1)]]
    examples += [[tiny.example("generation", i) for i in (1, 2)]]
    batch = tiny.put(with_ids(tiny.stacked([tiny.row(e) for e in examples])))
    seen = []
    for _ in range(150):
        state, metrics = step(state, batch)
        seen.append(metrics["loss"])
    assert float(seen[0]) > 4
    assert float(seen[-1]) < 0.1
    assert all(float(metrics[f"{task}_loss"]) < 0.2 for task in bt.TASKS)


def test_bfloat16_keeps_float32_weights_and_nearly_the_loss(one_device):
    tx = optim.make(tiny.OPTIM, STEPS)
    state, batch = tiny.make_state(tx, config=tiny.small(dtype="bfloat16")), with_ids(tiny.rows(2))
    full = jax.jit(loss.janus_loss)(tiny.make_model(), tiny.put(batch))[0]
    state, metrics = tiny.make_step(tx)(state, tiny.put(batch))
    assert float(metrics["loss"]) == pytest.approx(float(full), rel=2e-2)
    assert float(metrics["loss"]) != float(full), "computed in float32 after all"
    dtypes = {x.dtype for x in jax.tree.leaves((state.params, state.opt_state)) if x.ndim}
    assert dtypes == {np.dtype("float32")}


# Table 1's optimiser


@pytest.mark.parametrize("kind, end", [("constant", 2.0), ("cosine", 0.2)])
def test_schedules_at_their_corners(kind, end):
    column = optim.Optim(learning_rate=2.0, schedule=kind, warmup_steps=10, end_factor=0.1)
    rate = optim.schedule(column, 110)
    got = [float(rate(step)) for step in (0, 5, 10, 110)]
    assert got == pytest.approx([0.0, 1.0, 2.0, end], abs=1e-6)
    assert float(rate(60)) == pytest.approx(2.0 if kind == "constant" else 1.1)
    at_once = optim.schedule(optim.Optim(learning_rate=2.0, schedule=kind), 100)
    assert float(at_once(0)) == 2.0


def test_decay_shrinks_kernels_and_tables_only(one_device):
    tx = optim.make(optim.Optim(learning_rate=0.1, weight_decay=0.5), STEPS)
    params = tiny.make_state(tx).trainable
    params = jax.tree.map(lambda x: x + 1.0, params)  # biases begin at 0, where nothing could shrink
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(params), params)
    params, updates = tiny.numbers(params), tiny.numbers(updates)
    kernels = {name for name in params if name.split(".")[-1] in ("kernel", "table", "patch_kernel")}
    for name, update in updates.items():
        want = -0.05 * params[name] if name in kernels else np.zeros_like(update)
        np.testing.assert_allclose(update, want, rtol=1e-6, err_msg=name)
    assert {name.split(".")[-1] for name in params.keys() - kernels} == {
        "scale", "bias", "patch_bias", "positions",
    }  # fmt: skip


def test_the_first_moment_may_be_bfloat16():
    """Kept in half the bytes, split as its weight is; the update is nearly the same."""
    rng, updates = np.random.default_rng(0), {}
    with on_mesh(2, 2, 2):
        put = lambda x, spec: jax.device_put(x.astype(np.float32), spec)
        params = {
            "kernel": put(rng.normal(size=(8, 16)), sh.W_DF),
            "table": put(rng.normal(size=(6, 8)), sh.W_VD),
        }
        grads = jax.tree.map(lambda x: x * 0.3, params)
        for dtype in optim.MU_DTYPES:
            tx = optim.make(optim.Optim(learning_rate=0.1, eps=1e-3, mu_dtype=dtype), STEPS)
            _, state = jax.jit(tx.update)(grads, jax.jit(tx.init)(params), params)
            updates[dtype], state = jax.jit(tx.update)(grads, state, params)  # reads the kept moments
            (adam,) = (x for x in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(x))
            assert {name: x.dtype for name, x in adam.mu.items()} == dict.fromkeys(params, dtype)
            assert {name: x.dtype for name, x in adam.nu.items()} == dict.fromkeys(params, "float32")
            assert specs(adam.mu) == specs(adam.nu) == specs(params)
    exact, rounded = (tiny.numbers(updates[dtype]) for dtype in optim.MU_DTYPES)
    for name in exact:
        assert np.abs(rounded[name] - exact[name]).max() > 0
        np.testing.assert_allclose(rounded[name], exact[name], rtol=1e-2, err_msg=name)


def test_a_huge_gradient_is_clipped_to_the_norm():
    tx = optim.make(optim.Optim(learning_rate=0.1, clip_norm=1.0, eps=1.0), STEPS)  # eps shows the size
    params = {"a": {"kernel": jnp.ones(3)}, "b": {"bias": jnp.ones(2)}}
    huge = {"a": {"kernel": jnp.array([3e6, 0.0, 4e6])}, "b": {"bias": jnp.array([12e6, 0.0])}}
    clipped = jax.tree.map(lambda x: x / 13e6, huge)
    first, _ = tx.update(huge, tx.init(params), params)
    second, _ = tx.update(clipped, tx.init(params), params)
    small, _ = tx.update(jax.tree.map(lambda x: x / 2, clipped), tx.init(params), params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), first, second)
    assert float(small["b"]["bias"][0]) != pytest.approx(float(second["b"]["bias"][0]), rel=1e-2)


def test_a_batch_is_split_over_the_rows():
    with on_mesh(2, 2, 2):
        tokens = tiny.put(tiny.rows())["tokens"]
        assert tokens.sharding.spec == sh.BATCH
        assert {s.data.shape for s in tokens.addressable_shards} == {(2, tiny.LENGTH)}
