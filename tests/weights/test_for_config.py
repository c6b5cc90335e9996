"""Sizes, template and tokenizer of a config, taken from the weights that it begins with."""

import pathlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from janus_jax.model import presets
from janus_jax.model.config import to_dict
from janus_jax.weights.for_config import values_for_config
from janus_jax.weights.table import NoWeightsError, WeightsError


def test_the_weights_tell_sizes_template_and_tokenizer(tmp_path):
    found = values_for_config("quickstart")
    same = to_dict(presets.quickstart()) | {"dtype": "bfloat16", "remat": "none"}
    assert found["model"] == same | {"attention": found["model"]["attention"]}
    assert found["template"] == {"user": "User", "assistant": "Assistant", "system": ""}
    assert found["evaluation"] == {"cfg_scale": 1.5, "temperature": 0.5}
    assert pathlib.Path(found["tokenizer"], "tokenizer.json").is_file()


def test_a_part_of_a_model_and_nothing_at_all_are_refused(tmp_path):
    with pytest.raises(NoWeightsError, match="nowhere"):
        values_for_config(tmp_path / "nowhere")
    save_file({"image_head.fc1.bias": np.zeros(4, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="a whole Janus is due"):
        values_for_config(tmp_path)
