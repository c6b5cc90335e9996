"""The loss that goes round the mesh is that of the whole matrix, on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.mesh import on_mesh

from janus_jax.model import sharding as sh
from janus_jax.model.pairs import hits, pair_loss

BATCH, WIDTH, LENGTH = 16, 12, 3
MESHES = [(1, 1, 1), (8, 1, 1), (2, 4, 1), (1, 8, 1), (2, 2, 2)]
NAMES = ["x".join(map(str, mesh)) for mesh in MESHES]


@pytest.fixture(scope="module")
def drawn():
    """Images, texts, their tokens of which several are the same, t and b."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, BATCH, WIDTH)).astype(np.float32)
    y = y + x  # so that some find theirs
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    tokens = rng.integers(0, 2, (BATCH, LENGTH)).astype(np.int32)
    return unit(x), unit(y), tokens, np.float32([1.5]), np.float32([-1.0])


def same_texts(tokens):
    return (tokens[:, None] == tokens).all(-1)


def of_whole_matrix(x, y, tokens, t, b):
    """The paper's formula (section 3.2), equal texts being positives."""
    logits = jnp.exp(t) * jnp.matmul(x, y.T, precision="highest") + b
    z = jnp.where(same_texts(tokens), 1, -1)
    return -jax.nn.log_sigmoid(z * logits).sum(1).mean()


def put(arrays):
    mesh = jax.sharding.get_mesh()
    specs = (sh.BATCH, sh.BATCH, sh.BATCH, sh.REPLICATED, sh.REPLICATED)
    return [jax.device_put(x, jax.NamedSharding(mesh, spec)) for x, spec in zip(arrays, specs)]


@pytest.mark.parametrize("mesh", MESHES, ids=NAMES)
def test_loss_and_gradients_are_those_of_the_whole_matrix(mesh, drawn):
    of = (0, 1, 3, 4)
    want = jax.jit(jax.value_and_grad(of_whole_matrix, of))(*drawn)
    with on_mesh(*mesh):
        twice = lambda *args: 2 * pair_loss(*args)  # the gradient that comes in counts too
        got = jax.jit(jax.value_and_grad(twice, of))(*put(drawn))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.abs(np.asarray(a) / 2 - b).max() < 1e-5 * max(np.abs(b).max(), 1)


@pytest.mark.parametrize("mesh", MESHES, ids=NAMES)
def test_no_device_holds_the_scores_of_all_pairs(mesh, drawn):
    with on_mesh(*mesh):
        compiled = jax.jit(jax.value_and_grad(pair_loss, (0, 1))).lower(*put(drawn)).compile()
        shares = sh.batch_shards()
    whole = f"f32[{BATCH},{BATCH}]"
    assert (whole in compiled.as_text()) == (shares == 1)
    assert f"f32[{BATCH // shares},{BATCH // shares}]" in compiled.as_text()


@pytest.mark.parametrize("mesh", MESHES, ids=NAMES)
def test_a_query_hits_where_the_nearest_key_is_of_its_own_text(mesh, drawn):
    x, y, tokens, *_ = drawn
    nearest = (x @ y.T).argmax(1)
    want = same_texts(tokens)[np.arange(BATCH), nearest]
    assert 0 < want.sum() < BATCH
    with on_mesh(*mesh):
        assert (np.asarray(jax.jit(hits)(*put(drawn)[:3])) == want).all()
