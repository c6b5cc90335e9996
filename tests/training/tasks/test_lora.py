"""Task lora: its step against plain task janus, what its base is kept in, and what it refuses."""

import dataclasses
import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.configs import refusal
from support.mesh import on_mesh

from janus_jax.config.read import resolve
from janus_jax.model import batch as bt
from janus_jax.model import low_rank, low_rank_layers
from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.plan import memory
from janus_jax.training.log import Log
from janus_jax.training.loss import janus_loss
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.stages import run_stage
from janus_jax.weights.adapter_facts import read_facts, weights_mark
from janus_jax.weights.load import export
from janus_jax.weights.source import open_source

FIRST = 40
EVERYWHERE = {"rank": 2, "alpha": 4, "targets": "attention,mlp,adaptors,tower,heads"}
SCALING = 2.0  # 4 / 2
TEXT = {"rank": 2, "alpha": 4, "targets": "transformer/*, text_head/linear"}


def plan_of(options=EVERYWHERE, **changes) -> StagePlan:
    rows = {"count": 8, "length": 192, "understanding_images": 2, "generation_images": 2}
    stage = {
        "task": "lora",
        "options": options,
        "trainable": (),
        "init": (),
        "steps": 8,
        "batch_size": 24,
        "rows": rows,
        "ratio": {"understanding": 1, "text": 1, "generation": 1},
        "optim": {"learning_rate": 1e-2, "eps": 1e-3},
        **changes,
    }
    lines = {kind: {"kind": kind, "path": "shapes:"} for kind in bt.TASKS}
    world = tiny.WORLD | {"data": {"datasets": lines}}
    values = {"model": dataclasses.asdict(tiny.CONFIG), **world, "stages": {"one": stage}}
    return StagePlan.of(resolve(values, {})[0], "one")


def begun(plan):
    """A state of drawn weights, pairs too, on the current mesh."""
    like = plan.state()
    params = low_rank.kept_as(tiny.drawn(low_rank.unscaled(like.params), 0), like.params)
    part = lambda names: {name: params[name] for name in names}
    zeros = jax.tree.map(
        lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), like.opt_state
    )
    return like.replace(
        step=jax.device_put(np.int32(3), like.step.sharding),
        nonfinite_updates=jax.device_put(np.int32(0), like.nonfinite_updates.sharding),
        trainable=part(like.trainable),
        frozen=part(like.frozen),
        opt_state=zeros,
    )


def texts() -> dict:
    """A batch of texts alone, of which a step compiles in no time."""
    batch = tiny.stacked([tiny.row([tiny.example("text", i)], 96) for i in range(8)])
    return {n: x[:, :0] if n.endswith("images") else x for n, x in batch.items()}


def of_all_kinds() -> dict:
    """A batch of records of whose gradients float32 tells the smallest: of others they cancel more."""
    kinds = ("understanding", "generation", "text")
    rows = [tiny.row([tiny.example(kind, i) for kind in kinds]) for i in range(FIRST, FIRST + 8)]
    return tiny.with_ids(tiny.stacked(rows))


def merged_model(state, plan):
    """(definition, weights) of the plain Janus that a state stands for, by numpy."""
    base = jax.tree.map(np.asarray, state.frozen)
    pairs = jax.tree.map(np.asarray, state.trainable["lora"])
    whole = low_rank.merged(low_rank.widened(base), pairs, SCALING)
    graphdef, like = nnx.split(abstract(plan.model))
    like = sh.concrete(nnx.to_pure_dict(like))
    put = lambda like, x: jax.device_put(x.astype(np.float32), like.sharding)
    return graphdef, jax.tree.map(put, like, whole)


def pairs_of(tree: dict, path=()):
    if low_rank.is_pair(tree):
        return {path: tree}
    return {p: x for name, below in tree.items() for p, x in pairs_of(below, (*path, name)).items()}


def at(tree: dict, path):
    return functools.reduce(dict.__getitem__, path, tree)


def require_plain_gradient(plan, batch: dict):
    """The loss is that of the plain model of merged kernels, and what a pair learns follows from
    the gradient g of its kernel: scaling * g b^T and scaling * a^T g."""
    state = begun(plan)
    put = tiny.put(batch)

    def with_pairs(trainable):
        model = nnx.merge(state.graphdef, trainable, state.frozen)
        return janus_loss(low_rank_layers.with_pairs(model), put)[0]

    loss, found = jax.jit(jax.value_and_grad(with_pairs))(state.trainable)
    graphdef, whole = merged_model(state, plan)
    plain = lambda params: janus_loss(nnx.merge(graphdef, params), put)[0]
    want, by_kernel = jax.jit(jax.value_and_grad(plain))(whole)
    assert float(loss) == pytest.approx(float(want), rel=1e-6)
    pairs = pairs_of(jax.tree.map(np.asarray, state.trainable["lora"]))
    for path, pair in pairs.items():
        g = np.asarray(at(by_kernel, path)["kernel"])
        got = at(found["lora"], path)
        for name, right in (
            ("a", SCALING * g @ pair["b"].swapaxes(-1, -2)),
            ("b", SCALING * pair["a"].swapaxes(-1, -2) @ g),
        ):
            least = 1e-4 * np.abs(right).max()
            np.testing.assert_allclose(got[name], right, rtol=1e-4, atol=least, err_msg=str(path))
    return pairs


def test_a_pairs_gradient_follows_from_that_of_its_kernel(one_device):
    pairs = require_plain_gradient(plan_of(TEXT), texts())
    assert len(pairs) == 8 and ("text_head", "linear") in pairs


@pytest.mark.slow
@pytest.mark.parametrize("base", ["float32", "int8"])
def test_pairs_on_every_linear_map_learn_as_the_merged_model_does(base, one_device):
    pairs = require_plain_gradient(plan_of(EVERYWHERE | {"base": base}), of_all_kinds())
    assert len(pairs) == len(low_rank.linears(tiny.CONFIG)) == 20


@functools.cache
def stepped(mesh: tuple, dropout: float = 0.3, accumulate: int = 1):
    options = {"rank": 2, "alpha": 4, "dropout": dropout, "targets": "transformer/*"}
    with on_mesh(*mesh):
        plan = plan_of(options, trainable=("understanding_adaptor",), accumulate=accumulate)
        state, metrics = jax.jit(plan.task.step(plan))(begun(plan), tiny.put(texts()))
        return tiny.numbers(state.trainable), float(metrics["loss"])


@pytest.mark.slow
def test_a_step_is_the_same_on_meshes_with_dropout_too():
    """Each device draws its own part of what is left out."""
    weights, loss = stepped((1, 1, 1))
    others, other = stepped((1, 2, 4))
    assert other == pytest.approx(loss, rel=1e-5)
    for name, x in weights.items():
        np.testing.assert_allclose(others[name], x, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_microbatches_take_the_same_step_and_leave_out_other_inputs():
    weights, loss = stepped((1, 1, 1), 0.0)
    others, other = stepped((1, 1, 1), 0.0, 2)
    assert other == pytest.approx(loss, rel=1e-5)
    for name, x in weights.items():
        np.testing.assert_allclose(others[name], x, atol=1e-5, err_msg=name)
    assert stepped((1, 1, 1), 0.3, 2)[1] != stepped((1, 1, 1))[1] != loss


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(1, 8, 1), (2, 2, 2)])
def test_a_gradient_is_the_same_on_meshes_with_pictures_too(mesh):
    """Of all pairs at once; the tower's go through weights that are gathered whole."""

    def found(*mesh):
        with on_mesh(*mesh):
            state = begun(plan_of(EVERYWHERE | {"base": "int8"}))
            batch = tiny.put(of_all_kinds())

            def loss(pairs):
                model = nnx.merge(state.graphdef, pairs, state.frozen)
                return janus_loss(low_rank_layers.with_pairs(model), batch)[0]

            return tiny.numbers(jax.jit(jax.grad(loss))(state.trainable))

    one = found(1, 1, 1)
    for name, x in found(*mesh).items():
        least = 1e-4 * np.abs(one[name]).max()
        np.testing.assert_allclose(x, one[name], rtol=1e-4, atol=least, err_msg=name)


def layer(rank: int = 2, dropout: float = 0.0, key=None):
    """A `Linear` of numpy's numbers, its pair, and both as one."""
    rng = np.random.default_rng(0)
    linear = low_rank_layers.Linear(8, 16, sh.W_DF, sh.ACT_BTF, "float32", nnx.Rngs(0))
    pair = low_rank_layers.Pairs()
    put = lambda x, spec: nnx.Param(
        jax.device_put(x.astype(np.float32), jax.NamedSharding(jax.sharding.get_mesh(), spec))
    )
    pair.a = put(rng.normal(size=(8, rank)), jax.P(linear.spec[0], None))
    pair.b = put(rng.normal(size=(rank, 16)), jax.P(None, linear.spec[1]))
    return linear, pair, low_rank_layers.LowRank(linear, pair, 0.5, dropout, key)


@pytest.mark.parametrize("rows", [1, 8])
def test_dropout_leaves_out_inputs_of_the_pair_alone(rows, one_device):
    key = jax.random.key_data(jax.random.key(5))
    linear, pair, both = layer(dropout=0.25, key=key)
    x = jnp.ones((rows, 1, 8))
    kept = np.asarray(jax.random.bernoulli(jax.random.key(5), 0.75, (rows, 8)))
    assert 0 < kept.sum() < kept.size
    want = np.asarray(linear(x))[:, 0] + 0.5 * (kept / 0.75) @ pair.a[...] @ pair.b[...]
    np.testing.assert_allclose(np.asarray(both(x))[:, 0], want, rtol=1e-5, atol=1e-6)


def test_dropout_leaves_out_the_same_on_every_mesh():
    key = np.asarray(jax.random.key_data(jax.random.key(5)))

    def result(*mesh):
        with on_mesh(*mesh):
            *_, both = layer(dropout=0.25, key=jnp.asarray(key))
            return np.asarray(
                jax.jit(lambda x: both(x))(jnp.ones((8, 1, 8), out_sharding=sh.BATCH))
            )

    np.testing.assert_allclose(result(1, 2, 4), result(1, 1, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 8])
def test_an_int8_map_multiplies_by_the_kernel_that_its_scale_gives_back(rows, one_device):
    linear, *_ = layer()
    narrow = low_rank_layers.ScaledLinear(linear)
    assert narrow.kernel[...].dtype == jnp.int8
    whole = low_rank.whole_kernel({"kernel": narrow.kernel[...], "scale": narrow.scale[...]})
    x = np.random.default_rng(1).normal(size=(rows, 1, 8)).astype(np.float32)
    np.testing.assert_allclose(narrow(jnp.asarray(x)), x @ np.asarray(whole), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(whole, linear.kernel[...], atol=float(narrow.scale[...].max()) / 2)


def test_each_linear_map_of_the_model_may_have_a_pair(one_device):
    """But for the VQ tokenizer's, which stays as it is."""
    model = abstract(tiny.CONFIG)
    paths = {
        ".".join(map(str, path[:-1]))
        for path, module in nnx.iter_graph(model)
        if isinstance(module, nnx.Param) and path[-1] == "kernel"
    }
    there = {p.replace(".", "/") for p in paths if not p.startswith("generation_encoder")}
    assert there == set(low_rank.linears(tiny.CONFIG))


def test_a_model_that_draws_has_the_pairs_in_its_kernels(one_device):
    plan = plan_of(EVERYWHERE | {"base": "int8"})
    state = begun(plan)
    model = low_rank_layers.whole(state.model())
    _, want = merged_model(state, plan)
    for path in low_rank.linears(tiny.CONFIG):
        kernel = low_rank_layers.of_path(model, path).kernel[...]
        right = at(want, path.split("/"))["kernel"]
        np.testing.assert_allclose(kernel, right, rtol=1e-5, atol=1e-6, err_msg=path)


def test_a_pair_begins_with_a_drawn_and_b_zero(one_device):
    """So that the model begins as its base is, and b learns: the gradient of either is a product with
    the other. Each is drawn by its path, as one of `in` inputs."""
    linear = low_rank_layers.Linear(64, 32, sh.W_DF, sh.ACT_BTF, "float32", nnx.Rngs(0))
    model = types.SimpleNamespace(head=types.SimpleNamespace(q=linear, k=linear))
    low_rank_layers.attach(model, ("head/q", "head/k"), 8, 2.0, 0.0, jax.random.key(0))
    a, other = (np.asarray(x.a[...]) for x in model.lora.paths().values())
    assert a.shape == (64, 8) and 0.12 < np.abs(a).max() <= 64**-0.5
    assert a.std() == pytest.approx((3 * 64) ** -0.5, rel=0.1)
    assert np.abs(a - other).max() > 0.1
    b = np.asarray(model.lora.head.q.b[...])
    assert b.shape == (8, 32) and not b.any()


def test_the_base_is_narrow_and_what_learns_is_not(one_device):
    options = EVERYWHERE | {"base": "int8", "targets": "attention,tower"}
    plan = plan_of(options, trainable=("image_head",))
    state = plan.state()
    assert set(state.trainable) == {"lora", "image_head"}
    assert {x.dtype for x in jax.tree.leaves(state.trainable)} == {np.dtype("float32")}
    blocks = state.frozen["transformer"]["blocks"]
    assert blocks["gate"]["kernel"].dtype == jnp.int8
    assert blocks["gate"]["scale"].shape == (2, 64)
    assert set(state.trainable["lora"]) == {"transformer", "understanding_encoder"}
    narrow = plan_of(options | {"base": "bfloat16"}).state().frozen
    assert narrow["transformer"]["blocks"]["gate"]["kernel"].dtype == jnp.bfloat16
    assert narrow["transformer"]["blocks"]["norm1"]["scale"].dtype == jnp.float32
    assert narrow["generation_encoder"]["codebook"].dtype == jnp.float32
    moments = sum(x.size for x in jax.tree.leaves(state.opt_state))
    assert moments <= 2 * sum(x.size for x in jax.tree.leaves(state.trainable)) + 4
    assert memory.parameters(state)["lora"][0] == sum(plan.adapted.values())


@pytest.mark.parametrize(
    "options, told",
    [
        ({"rank": "0"}, "rank is 0"),
        ({"rank": "2.5"}, "rank is 2.5"),
        ({"dropout": "1"}, "dropout is 1"),
        ({"base": "int4"}, "base is 'int4'"),
        ({"targets": "atention"}, "targets has 'atention', .* did you mean 'attention'"),
        ({"targets": "''"}, "targets is empty"),
        (
            {"targets": "attention,tower"},
            "targets has 'tower', all of understanding_encoder, which",
        ),
        (
            {"targets": "heads", "dropout": "0.1"},
            "targets has text_head/linear, image_head/fc2, and",
        ),
    ],
)
def test_options_that_cannot_be(options, told):
    path = "stages.stage3"
    given = {f"{path}.options.{name}": value for name, value in options.items()}
    asked = {f"{path}.task": "lora", f"{path}.trainable": "understanding_encoder"} | given
    (line,) = refusal(asked)
    assert line.startswith(f"{path}.options.") and re.search(told, line)


def test_a_head_that_learns_whole_has_no_pair_that_dropout_could_not_reach():
    options = {"targets": "heads", "dropout": "0.1"}
    given = {f"stages.stage3.options.{name}": value for name, value in options.items()}
    (line,) = refusal(
        {"stages.stage3.task": "lora", "stages.stage3.trainable": "text_head"} | given
    )
    assert "targets has image_head/fc2, and dropout is 0.1" in line


class Killed(Exception):
    pass


class Dying(Log):
    """A log that ends its run after a step."""

    def write(self, step, values):
        super().write(step, values)
        if step == 2:
            raise Killed


@pytest.mark.slow
def test_a_stage_that_was_killed_goes_on_to_the_same_bits(tmp_path):
    """With dropout, an int8 base, and a head that is trained whole."""
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(seed=0)))
        export(tmp_path / "weights", params, tiny.CONFIG, tiny.processor())
    changes = dict(
        options=TEXT | {"targets": "attention", "dropout": 0.2, "base": "int8"},
        ratio={"understanding": 0, "text": 1, "generation": 0},
        rows={"count": 8, "length": 96, "understanding_images": 0, "generation_images": 0},
        trainable=("text_head",),
        init=(str(tmp_path / "weights"),),
        steps=4,
        checkpoint_every=1,
        log_every=1,
    )

    def trained(workdir, log=Log):
        workdir.mkdir(exist_ok=True)
        tiny.processor().tokenizer.save(workdir)
        shows_nothing = lambda *_: lambda *_: {}
        with on_mesh():
            plan = plan_of(**changes)
            run_stage(plan, tiny.sources(), tiny.processor(), workdir, log(workdir), shows_nothing)

    with pytest.raises(Killed):
        trained(tmp_path / "two", Dying)
    (tmp_path / "weights").rename(tmp_path / "away")
    trained(tmp_path / "two")
    (tmp_path / "away").rename(tmp_path / "weights")
    stopped = open_source(tmp_path / "two/one").require()
    (base,) = read_facts(tmp_path / "two/one").bases
    assert base.sha256 == weights_mark(open_source(tmp_path / "weights"))
    trained(tmp_path / "one")
    whole = open_source(tmp_path / "one/one").require()
    different = [n for n in whole.leaves if whole.read(n).tobytes() != stopped.read(n).tobytes()]
    assert not different
    before = open_source(tmp_path / "weights")
    moved = {n for n in whole.leaves if np.abs(whole.read(n) - before.read(n)).max() > 0.02}
    assert "text_head.linear.kernel" in moved
    saved = open_source(tmp_path / "one/checkpoints/one").require()
    for name in saved.leaves:  # its base is int8
        np.testing.assert_allclose(saved.read(name), whole.read(name), atol=0.02, err_msg=name)
