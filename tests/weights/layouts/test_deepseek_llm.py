"""A language model alone."""

import numpy as np
import pytest
import torch
import transformers
from support import foreign
from support.foreign import shapes

import janus_jax
from janus_jax.weights import convert
from janus_jax.weights.load import import_weights
from janus_jax.weights.source import open_source


def test_a_language_model_alone(tmp_path, one_device):
    llama = foreign.model().model.language_model
    config = foreign.model().config.text_config
    alone = transformers.LlamaForCausalLM(config)
    alone.model.load_state_dict(llama.state_dict())
    alone.save_pretrained(tmp_path / "llm")
    (tmp_path / "llm" / "tokenizer.json").write_text("{}")  # a part's tokenizer is not Janus's
    source = open_source(tmp_path / "llm")
    convert.to_layout(source, tmp_path / "ours", "janus_jax")
    foreign.same_tensors(
        tmp_path / "ours", {k: torch.from_numpy(x) for k, x in foreign.leaves_of(source).items()}
    )
    assert source.kind == "deepseek_llm" and source.unshaped["transformer.heads"] == 4
    params, children = import_weights(tmp_path / "llm", shapes(), partly=True)
    assert children == ["text_embedding", "text_head", "transformer"]
    want = alone.state_dict()["model.layers.1.mlp.up_proj.weight"].numpy().T
    assert np.array_equal(params["transformer"]["blocks"]["up"]["kernel"][1], want)
    assert np.array_equal(
        params["text_head"]["linear"]["kernel"], alone.lm_head.weight.detach().numpy().T
    )
    with pytest.raises(
        ValueError, match=r"no whole model but text_embedding, text_head, transformer"
    ):
        janus_jax.load(tmp_path / "llm")
