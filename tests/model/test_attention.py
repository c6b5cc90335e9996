"""Attention of packed rows: every kind is plain attention, gradients included, on one device and on
eight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.mesh import on_mesh

from janus_jax.model import attention, kernels
from janus_jax.model import sharding as sh
from janus_jax.model.attentions import cudnn

ROWS, LENGTH, HEADS, SIZE = 4, 600, 4, 32  # no multiple of any tile


def packed_ids(seed: int = 0, rows: int = ROWS, length: int = LENGTH) -> np.ndarray:
    """Examples of 1 to a third of the row, padding at the end; the last row is one example."""
    rng, out = np.random.default_rng(seed), np.zeros((rows, length), np.int32)
    for row in out:
        at = 0
        for example in range(1, 1000):
            end = at + int(rng.integers(1, length // 3))
            row[at:end], at = example, end
            if at >= length * 0.9:
                break
    out[-1] = 1
    return out


@functools.cache
def inputs():
    rng = np.random.default_rng(1)
    return [rng.normal(size=(ROWS, LENGTH, HEADS, SIZE)).astype(np.float32) for _ in range(4)]


def run(kind: str, ids: np.ndarray, mesh=(1, 1, 1), dtype=jnp.float32, whole=False, masked=False):
    """The result and the gradients by q, k, v, in float32, of the last rows. ids: of as many. whole:
    each row is one picture of 130 tokens. masked: those of `pictures` are seen whole."""
    with on_mesh(*mesh):
        put = lambda x, spec: jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), spec))
        length = 130 if whole else LENGTH
        rows = slice(-len(ids), None)
        q, k, v, g = (put(x[rows, :length].astype(dtype), sh.ACT_BTHK) for x in inputs())
        ahead = put(pictures(ids), sh.BATCH) if masked else None
        ids = put(ids, sh.BATCH)

        attend = functools.partial(attention.packed, segment_ids=ids, ahead=ahead)
        if whole:
            attend = attention.full

        @jax.jit
        def both(q, k, v):
            out, back = jax.vjp(functools.partial(attend, kind=kind), q, k, v)
            return out, *back(g)

        return [np.asarray(x, np.float32) for x in both(q, k, v)]


def pictures(ids):
    """`ahead` of rows whose examples have a picture each, from their third token to before the last
    two: how many tokens of it are behind each of its own."""
    ahead = np.zeros(ids.shape, np.int32)
    for row, out in zip(np.asarray(ids), ahead):
        for example in np.unique(row[row > 0]):
            inside = np.flatnonzero(row == example)[2:-2]
            out[inside] = np.arange(len(inside))[::-1]
    return ahead


@functools.cache
def plain():
    return run("plain", packed_ids())


@pytest.fixture
def interpreted(monkeypatch):
    """The accelerators' kernels, run step by step on CPU."""
    for module, name in (("splash", "of_rows"), ("triton", "of_rows"), ("triton", "of_pictures")):
        module = attention.local(module)
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), interpret=True))


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("kind", ["blockwise", "splash", "triton"])
def test_every_kind_is_plain_attention(kind, mesh, interpreted):
    for name, got, want in zip(("out", "dq", "dk", "dv"), run(kind, packed_ids(), mesh), plain()):
        np.testing.assert_allclose(got, want, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("kind", ["blockwise", "splash", "triton"])
def test_every_kind_sees_the_rest_of_a_picture_as_plain_attention_does(kind, mesh, interpreted):
    wanted = run("plain", packed_ids(), masked=True)
    found = run(kind, packed_ids(), mesh, masked=True)
    for name, got, want in zip(("out", "dq", "dk", "dv"), found, wanted):
        np.testing.assert_allclose(got, want, atol=1e-5, err_msg=name)


def test_a_token_of_a_picture_sees_all_of_it_and_others_what_came_before():
    """In numpy, from the definition; the comparison above would not show a mistake that all share."""
    ids = packed_ids()[:1]
    q, k, v, _ = (x[-1] for x in inputs())
    ahead = pictures(ids)[0]
    at = np.arange(LENGTH)
    sees = (ids[0][:, None] == ids[0]) & (at <= (at + ahead)[:, None])
    assert ahead.max() > 8 and sees.sum() > np.tril(sees).sum()
    scores = np.where(sees, np.einsum("thk,shk->hts", q, k) * SIZE**-0.5, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    want = np.einsum("hts,shk->thk", weights / weights.sum(-1, keepdims=True), v)
    got = run("plain", ids, masked=True)[0][0]
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_the_kernel_of_the_towers_attention_is_plain_attention(mesh, interpreted):
    wanted = run("plain", packed_ids(), whole=True)
    found = run("triton", packed_ids(), mesh, whole=True)
    for name, got, want in zip(("out", "dq", "dk", "dv"), found, wanted):
        np.testing.assert_allclose(got, want, atol=1e-5, err_msg=name)


def test_examples_of_a_row_do_not_see_each_other():
    """The comparison above would not show a leak that all kinds share."""
    q, k, v, _ = inputs()
    ids = packed_ids()
    out = run("blockwise", ids)[0]
    for row, begin in ((0, int((ids[0] == 1).sum())), (3, 0)):
        end = begin + int((ids[row] == ids[row][begin]).sum())
        scores = np.einsum("thk,shk->hts", q[row, begin:end], k[row, begin:end]) * SIZE**-0.5
        scores = np.where(np.tri(end - begin, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        want = np.einsum(
            "hts,shk->thk", weights / weights.sum(-1, keepdims=True), v[row, begin:end]
        )
        np.testing.assert_allclose(out[row, begin:end], want, atol=1e-5)


@pytest.mark.parametrize("kind", ["blockwise", "triton"])
def test_bfloat16_stays_near(kind, interpreted):
    for got, want in zip(run(kind, packed_ids()[-2:], dtype=jnp.bfloat16), plain()):
        assert np.abs(got - want[-2:]).max() < 0.02 * np.abs(want[-2:]).max()


def test_the_loop_visits_only_tiles_with_a_pair():
    ids = packed_ids()
    visited = np.asarray(kernels.lowest_tiles(jnp.pad(jnp.asarray(ids), ((0, 0), (0, 40))), 64))
    for row, lower in zip(np.pad(ids, ((0, 0), (0, 40))), visited):
        for i, low in enumerate(lower):
            queries = row[i * 64 : i * 64 + 64]
            assert low == np.flatnonzero(np.isin(row, queries))[0] // 64


def test_the_layout_for_cudnn_covers_every_token_once():
    ids = packed_ids()
    lengths, begin, fits = (np.asarray(x) for x in cudnn.layout(jnp.asarray(ids)))
    assert fits and begin.shape == (ROWS, cudnn.SEGMENTS + 1)
    for row, n, at in zip(ids, lengths, begin):
        count = int((n >= 0).sum())
        assert (n[count:] == -1).all() and (at[count:] == -1).all() and n[:count].sum() == LENGTH
        for k in range(count):
            example = row[at[k] : at[k] + n[k]]
            assert (example == example[0]).all() and (k == 0 or row[at[k] - 1] != example[0])
    many = jnp.repeat(jnp.arange(LENGTH // 8), 8)[None]
    assert not cudnn.layout(many)[2]


def test_kinds_are_chosen_by_the_devices_and_the_length(one_device):
    assert attention.choose("auto", 256, jnp.float32) == "plain"
    assert attention.choose("auto", 4096, jnp.float32) == "blockwise"
    assert attention.choose("plain", 4096, jnp.float32) == "plain"
    with pytest.raises(ValueError, match=r"'flash'.*known: auto, plain"):
        attention.choose("flash", 4096, jnp.float32)
