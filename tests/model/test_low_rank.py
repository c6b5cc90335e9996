"""model/low_rank.py against plain numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from janus_jax.model import low_rank
from janus_jax.model import sharding as sh


def arrays(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def trees():
    base = {
        "transformer": {"q": {"kernel": arrays(3, 4, 6)}, "o": {"kernel": arrays(3, 6, 4)}},
        "head": {"kernel": arrays(4, 5), "bias": arrays(5)},
    }
    pair = {"a": arrays(3, 4, 2, seed=1), "b": arrays(3, 2, 6, seed=2)}
    return base, {"transformer": {"q": pair}}


def test_a_merged_kernel_is_the_base_plus_the_scaled_product_and_all_else_is_shared():
    base, pairs = trees()
    found = low_rank.merged(base, pairs, 0.5)
    pair = pairs["transformer"]["q"]
    want = base["transformer"]["q"]["kernel"] + 0.5 * np.einsum(
        "lir,lro->lio", pair["a"], pair["b"]
    )
    np.testing.assert_allclose(found["transformer"]["q"]["kernel"], want, rtol=1e-6, atol=1e-6)
    assert found["transformer"]["o"]["kernel"] is base["transformer"]["o"]["kernel"]
    assert found["head"] is base["head"]


def test_a_merged_kernel_of_jax_arrays_equals_that_of_numpy():
    base, pairs = trees()
    want = low_rank.merged(base, pairs, 2.0)["transformer"]["q"]["kernel"]
    with sh.mesh_context(sh.make_mesh(fsdp=1, devices=[jnp.zeros(()).device])):
        on_device = {"q": {"kernel": jnp.asarray(base["transformer"]["q"]["kernel"])}}
        pair = {"q": {n: jnp.asarray(x) for n, x in pairs["transformer"]["q"].items()}}
        found = low_rank.merged(on_device, pair, 2.0)["q"]["kernel"]
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-6)


def test_a_pair_merges_into_an_int8_kernel_as_into_the_kernel_that_it_stands_for():
    _, pairs = trees()
    int8 = np.random.default_rng(3).integers(-127, 128, (3, 4, 6)).astype(np.int8)
    scale = np.abs(arrays(3, 6, seed=4))
    kept = {"transformer": {"q": {"kernel": int8, "scale": scale}}}
    plain = {"transformer": {"q": {"kernel": int8.astype(np.float32) * scale[:, None]}}}
    found = low_rank.merged(kept, pairs, 1.0)["transformer"]["q"]
    assert set(found) == {"kernel"}
    np.testing.assert_array_equal(
        found["kernel"], low_rank.merged(plain, pairs, 1.0)["transformer"]["q"]["kernel"]
    )


@pytest.mark.parametrize("change", ["other width", "unknown name"])
def test_a_pair_of_another_model_is_refused_with_its_place(change):
    base, pairs = trees()
    if change == "other width":
        pairs["transformer"]["q"]["b"] = arrays(3, 2, 7)
        place = "lora/transformer/q"
    else:
        pairs["transformer"]["query"] = pairs["transformer"].pop("q")
        place = "lora/transformer/query"
    with pytest.raises(ValueError, match=place):
        low_rank.merged(base, pairs, 1.0)


def test_scaling_is_alpha_by_rank_and_with_rslora_by_its_root():
    assert low_rank.scaling(16, 32, False) == 2.0
    assert low_rank.scaling(16, 32, True) == 8.0
