"""LlamaGen's tokenizer alone."""

import argparse

import numpy as np
import pytest
import torch
from support import foreign
from support.foreign import shapes

from janus_jax.weights import convert
from janus_jax.weights.load import import_weights
from janus_jax.weights.source import open_source


def llamagen(place: str) -> dict:
    prefix = "gen_vision_model."
    weights = {
        k.removeprefix(prefix): x
        for k, x in foreign.original_tensors().items()
        if k.startswith(prefix)
    }
    zeros = {k: torch.zeros_like(x) for k, x in weights.items()}
    training = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "discriminator": zeros, "steps": 7,
                "args": argparse.Namespace(lr=1e-4, name="VQ-16")}  # fmt: skip
    return training | ({"ema": weights, "model": zeros} if place == "ema" else {"model": weights})


@pytest.mark.parametrize("place", ["model", "ema"])
def test_llamagens_tokenizer(tmp_path, place, one_device):
    torch.save(llamagen(place), tmp_path / "vq_ds16_c2i.pt")
    source = open_source(tmp_path / "vq_ds16_c2i.pt", allow_pickle=True).require()
    assert source.kind == "llamagen_vq"
    assert {
        "optimizer",
        "discriminator",
        "args",
        "steps",
        "quantize.codebook_used",
    } <= source.ignored.keys()
    hf = foreign.save_transformers(tmp_path / "hf")
    whole = open_source(hf)
    for name, (shape, dtype) in source.leaves.items():
        assert whole.leaves[name] == (shape, dtype)
        assert np.array_equal(source.read(name), whole.read(name)), name
    convert.to_layout(source, tmp_path / "vq", "janus_jax")
    params, children = import_weights(tmp_path / "vq", shapes(), partly=True)
    assert children == ["generation_encoder"]
    codebook = params["generation_encoder"]["codebook"]
    assert np.array_equal(
        codebook, foreign.original_tensors()["gen_vision_model.quantize.embedding.weight"]
    )
    with pytest.raises(ValueError, match=r"a part \(llamagen_vq\), no whole Janus"):
        convert.to_layout(source, tmp_path / "no", "deepseek")
