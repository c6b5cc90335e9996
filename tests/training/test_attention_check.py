"""A kernel that is wrong on these devices is not trained with."""

import dataclasses

import jax.numpy as jnp
import pytest
from support import tiny

from janus_jax.model import attention
from janus_jax.training import attention_check


@pytest.fixture
def stand_ins(monkeypatch):
    """Triton's cannot run at all, cuDNN's is right until a test makes it wrong."""

    def broken(*_):
        raise NotImplementedError("no such card")

    cudnn = attention.local("cudnn")
    monkeypatch.setattr(attention.local("triton"), "of_rows", broken)
    right = lambda q, k, v, ids: attention.plain(q, k, v, attention.causal_mask(ids))
    monkeypatch.setattr(cudnn, "of_rows", right)
    monkeypatch.setattr(cudnn, "of_pictures", attention.plain)
    monkeypatch.setattr(attention, "choose", lambda kind, *_: "cudnn" if kind == "auto" else kind)
    return cudnn


MODEL = tiny.small(dtype="float32")
LENGTH = 100


def test_a_kernel_that_is_wrong_here_is_found_before_training(one_device, stand_ins, monkeypatch):
    right = stand_ins.of_rows
    causal = lambda q, k, v, ids: right(q, k, v, jnp.ones_like(ids))  # ignores the examples
    monkeypatch.setattr(stand_ins, "of_rows", causal)
    said = []
    assert attention_check.working(MODEL, LENGTH, said.append) == "blockwise"
    assert "cudnn does not work" in said[0] and "another result than plain attention's" in said[0]
    assert (
        "triton does not work" in said[1]
        and "no such card" in said[1]
        and "with blockwise" in said[1]
    )
    given = dataclasses.replace(MODEL, attention="cudnn")
    with pytest.raises(RuntimeError, match=r"cudnn does not work.*\n.*plain always works"):
        attention_check.working(given, LENGTH)


def test_what_adds_up_in_any_order_is_not_taken_where_runs_must_repeat(
    one_device, stand_ins, monkeypatch
):
    monkeypatch.setattr(attention.local("triton"), "of_rows", stand_ins.of_rows)
    monkeypatch.setattr(attention.local("triton"), "of_pictures", attention.plain)
    assert attention_check.working(MODEL, LENGTH, deterministic=True) == "triton"


def test_so_is_one_that_is_wrong_for_pictures(one_device, stand_ins, monkeypatch):
    assert attention_check.working(MODEL, LENGTH) == "cudnn"
    monkeypatch.setattr(stand_ins, "of_pictures", lambda q, k, v: attention.plain(q, k, 2 * v))
    said = []
    assert attention_check.working(MODEL, LENGTH, said.append) == "blockwise"
    assert "another result of pictures than plain" in said[0]
