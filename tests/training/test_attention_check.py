"""A kernel that is wrong on these devices is not trained with."""

import jax.numpy as jnp
import pytest

from janus_jax.model import attention, kernels
from janus_jax.training import attention_check


def test_a_kernel_that_is_wrong_here_is_found_before_training(one_device, monkeypatch):
    """Stand-ins: cuDNN's ignores the examples, Triton's cannot run at all, blockwise is right."""
    causal = lambda q, k, v, ids: kernels.blockwise(q, k, v, jnp.ones_like(ids))

    def broken(*_):
        raise NotImplementedError("no such card")

    monkeypatch.setitem(attention.LOCAL, "cudnn", causal)
    monkeypatch.setitem(attention.LOCAL, "triton", broken)
    sizes, said = (600, 2, 32, jnp.float32), []
    monkeypatch.setattr(attention, "choose", lambda kind, *_: "cudnn" if kind == "auto" else kind)
    assert attention_check.working("auto", *sizes, said.append) == "blockwise"
    assert "cudnn does not work" in said[0] and "another result than plain attention's" in said[0]
    assert (
        "triton does not work" in said[1]
        and "no such card" in said[1]
        and "with blockwise" in said[1]
    )
    with pytest.raises(RuntimeError, match=r"cudnn does not work.*\n.*plain always works"):
        attention_check.working("cudnn", *sizes)
