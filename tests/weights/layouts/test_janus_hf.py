"""transformers' layout comes in as it is, and goes out as transformers reads it."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from support import foreign, oracle, tiny
from support.foreign import convert

import janus_jax
from janus_jax.config.schema import SYSTEM, Template
from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.weights.load import export
from janus_jax.weights.source import open_source


def test_transformers_weights_come_in_as_they_are(hf, one_device):
    model, processor = janus_jax.load(hf, unrolled=False)
    ours = sh.concrete(abstract(foreign.config()))
    oracle.copy_into(ours, foreign.model().state_dict())
    assert model.config == dataclasses.replace(foreign.config(), remat="dots")
    tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), nnx.to_pure_dict(nnx.state(ours)))
    assert processor.template == Template(*foreign.ROLES, SYSTEM)
    assert (processor.understanding_tokens, processor.generation_tokens) == (16, 16)


def test_tied_embeddings_are_untied(hf, tmp_path, one_device):
    tensors = foreign.tensors_of(hf)
    del tensors["lm_head.weight"]
    values = json.loads((hf / "config.json").read_text()) | {"tie_word_embeddings": True}
    foreign.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(values))
    source = open_source(tmp_path).require()
    assert np.array_equal(
        source.read("text_head.linear.kernel"), source.read("text_embedding.table").T
    )


def test_transformers_loads_what_we_write(written):
    theirs, info = transformers.JanusForConditionalGeneration.from_pretrained(
        written, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.lm_head.weight is not theirs.get_input_embeddings().weight
    ids = torch.arange(6, 30)[None]
    with torch.no_grad():
        assert torch.equal(theirs(input_ids=ids).logits, foreign.model()(input_ids=ids).logits)
        t = foreign.tokenizer()
        prompt = torch.tensor([[t.bos, 70, 71, t.begin_of_image]])
        images = theirs.generate(
            prompt, generation_mode="image", attention_mask=torch.ones_like(prompt)
        )
    assert images.shape == (1, 16)


def test_a_model_that_transformers_cannot_be_is_refused(tmp_path, one_device):
    config = tiny.small(image_head_width=64)
    params = nnx.to_pure_dict(nnx.state(tiny.make_model(config)))
    export(tmp_path / "ours", params, config, tiny.processor())
    with pytest.raises(
        ValueError, match=r"norm_groups is 4; theirs is always 32\n.*image_head_width is 64"
    ):
        convert(tmp_path / "ours", tmp_path / "hf", "transformers")
    back = convert(
        convert(tmp_path / "ours", tmp_path / "o", "deepseek"), tmp_path / "back", "janus_jax"
    )
    foreign.same_tensors(tmp_path / "ours", back)
    assert open_source(back).config == config and not (tmp_path / "hf").exists()
