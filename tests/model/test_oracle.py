"""Weights are copied from transformers only where every tensor and every leaf has its place."""

import jax.numpy as jnp
import pytest
import torch
from flax import nnx
from support import oracle


def test_a_tensor_without_a_place_is_an_error(theirs, ours):
    with pytest.raises(AssertionError, match=r"without a place: \['extra'\]"):
        oracle.copy_into(ours, {**theirs.state_dict(), "extra": torch.zeros(1)})


def test_a_missing_tensor_is_an_error(theirs, ours):
    tensors = theirs.state_dict()
    del tensors["model.aligner.fc1.bias"]
    with pytest.raises(AssertionError, match=r"understanding_adaptor\.fc1\.bias"):
        oracle.copy_into(ours, tensors)


def test_a_leaf_without_a_tensor_is_an_error(theirs, ours):
    model = nnx.clone(ours)
    model.extra = nnx.Param(jnp.zeros(1))
    with pytest.raises(AssertionError, match=r"without a tensor: \['extra'\]"):
        oracle.copy_into(model, theirs.state_dict())
