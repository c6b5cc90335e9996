"""The original's layout: a table that balances, a config that is read as the original reads it."""

import dataclasses
import gzip
import json

import numpy as np
import pytest
from flax import nnx
from support import foreign, oracle
from support.foreign import convert, leaves
from support.paths import TESTS

import janus_jax
from janus_jax.model import presets
from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.weights import table as tb
from janus_jax.weights.layouts import janus_hf, janus_torch
from janus_jax.weights.source import open_source

DATA = TESTS / "support"


@pytest.mark.parametrize("name, config", [
    ("janus_1b_class", presets.janus_1_3b()), ("janus_pro_7b", presets.janus_pro_7b()),
])  # fmt: skip
def test_the_table_covers_every_key_of_the_released_files(name, config):
    lines = gzip.decompress((DATA / f"{name}.tsv.gz").read_bytes()).decode().split("\n")
    released = dict(line.split("\t") for line in lines if line)
    written = {
        key: rows[0][0].stored for key, rows in tb.by_their_key(janus_torch.rows(config)).items()
    }
    ignored = {k for k in released if "attn_pool" in k or k.endswith("codebook_used")}
    assert (
        len(ignored) == 14 and len(released) == {"janus_1b_class": 882, "janus_pro_7b": 936}[name]
    )
    assert {k: "x".join(map(str, shape)) for k, shape in written.items()} == {
        k: shape for k, shape in released.items() if k not in ignored
    }


def test_the_original_layout_comes_in(original, one_device):
    source = open_source(original)
    assert source.kind == "deepseek" and source.problems() == []
    assert source.config == dataclasses.replace(foreign.config(), dtype="bfloat16", remat="dots")
    assert len(source.ignored) == 4 and sorted(source.kept) == sorted(source.ignored)
    ours = sh.concrete(abstract(foreign.config()))
    oracle.copy_into(ours, foreign.model("bfloat16").state_dict())
    want = leaves(nnx.state(ours))
    assert want.keys() == source.leaves.keys()
    for name, leaf in want.items():
        got = source.read(name)
        assert got.dtype == "bfloat16" and (got.shape, got.dtype) == source.leaves[name]
        assert np.array_equal(got.astype(np.float32), leaf.get_value()), name
        if tb.stacked(name):
            assert np.array_equal(source.read(name, 1), got[1]), name
    source.raise_if_damaged()
    model, _ = janus_jax.load(original)
    dtypes = {name: str(x.get_value().dtype) for name, x in leaves(nnx.state(model)).items()}
    assert {dtypes.pop(n) for n in list(dtypes) if n.startswith("generation_encoder.")} == {
        "float32"
    }
    assert set(dtypes.values()) == {"bfloat16"} and model.config.dtype == "bfloat16"
    assert janus_jax.load(original, dtype="float32")[0].text_head.linear.kernel.dtype == np.float32


@pytest.mark.parametrize("select_layer, depth", [(-1, 24), (-2, 23), (0, 24), (5, 5), (30, 24)])
def test_the_selected_layer_sets_the_towers_depth(select_layer, depth):
    """The original builds no more blocks than it uses."""
    values = foreign.original_config() | {
        "vision_config": {"params": {"select_layer": select_layer}}
    }
    assert janus_torch.layout(values, {}).config.understanding_encoder.layers == depth


def test_what_a_config_leaves_out_is_llamas_default():
    values = {
        "model_type": "multi_modality",
        "language_config": {"num_hidden_layers": 30, "vocab_size": 102400},
    }
    values["gen_head_config"] = {"params": {"image_token_embed": 4096}}
    plan = janus_torch.layout(values | {"torch_dtype": "bfloat16"}, {})
    assert plan.config == presets.janus_pro_7b() and plan.problems == ()


def test_a_config_that_our_model_cannot_be_is_refused_in_words():
    llm = {"num_attention_heads": 8, "num_key_value_heads": 2, "attention_bias": True, "hidden_act": "gelu",
           "rope_scaling": {"type": "linear", "factor": 2}, "head_dim": 64, "hidden_size": 64}  # fmt: skip
    values = {"language_config": llm, "aligner_config": {"params": {"projector_type": "linear"}},
              "vision_config": {"params": {"select_feature": "patch", "model_name": "other",
              "pixel_mean": [0.5] * 3, "select_layer": -30}}}  # fmt: skip
    text = "\n".join(janus_torch.layout(values, {}).problems)
    for word in (
        "num_key_value_heads is 2", "attention_bias is True", "hidden_act is 'gelu'", "rope_scaling is 'linear'",
        "head_dim is 64", "projector_type is 'linear'", "select_feature is 'patch'", "model_name is 'other'",
        "pixel_mean and pixel_std are set", "select_layer is -30, of a tower of 24 layers",
    ):  # fmt: skip
        assert word in text
    text = "\n".join(
        janus_hf.layout(
            {"vision_config": {"use_qk_norm": True}, "vq_config": {"double_latent": True}}, {}
        ).problems
    )
    assert "use_qk_norm is True" in text and "double_latent is True" in text


def test_the_originals_small_files(original, tmp_path):
    back = convert(original, tmp_path / "back", "deepseek")
    read = lambda name: json.loads((back / name).read_text())
    assert read("processor_config.json")["sft_format"] == "deepseek"
    assert read("preprocessor_config.json")["image_size"] == 32
    assert read("config.json")["language_config"]["bos_token_id"] == foreign.tokenizer().bos
    released = janus_torch.config_values(presets.janus_pro_7b(), "bfloat16", {})
    assert released["vision_config"]["params"] == {
        "image_size": 384, "model_name": "siglip_large_patch16_384", "select_feature": "same", "select_layer": -1
    }  # fmt: skip
    assert released["gen_vision_config"]["params"] == {"image_token_size": 16384, "n_embed": 8}
    assert janus_torch.layout(released, {}).config == presets.janus_pro_7b()


@pytest.mark.parametrize(
    "section, field, value, says",
    [
        ("language_config", "num_attention_heads", 3, "is 3: hidden_size, 64,"),
        ("language_config", "hidden_size", "64", "is '64': must be a whole number"),
        ("language_config", "vocab_size", 384.5, "is 384.5: must be a whole number"),
        ("language_config", "rms_norm_eps", -1, "is -1: must be a finite number"),
        ("language_config", "rms_norm_eps", 1e300, "is 1e+300: must be a finite number in float32"),
        ("language_config", "rope_theta", 1e-320, "is 1e-320: must be a finite number in float32"),
        ("language_config", "attention_multiplier", 0.2, "is 0.2: a field that is not honoured"),
        ("language_config", "rope_parameters", 5, "is 5: must be a section"),
        (
            "language_config",
            "num_hidden_layers",
            20_000_000,
            "is 20000000: must be a whole number from 1 to 1,000",
        ),
        (
            "language_config",
            "hidden_size",
            2**30,
            "is 1073741824: must be a whole number from 1 to 1,048,576",
        ),
        ("vision_config.params", "mlp_ratio", 1e30, "is 1e+30: must be a number above 0"),
        (
            "vision_config.params",
            "layers",
            10**6,
            "is 1000000: must be a whole number from 1 to 1,000",
        ),
        ("gen_vision_config.params", "num_res_blocks", 10**6, "is 1000000: must be a whole"),
        ("gen_vision_config.params", "ch_mult", [10**6], "is [1000000]: must be whole numbers"),
        ("vision_config.params", "heads", 5, "is 5: width, 32,"),
        ("vision_config.params", "patch_size", 7, "is 7: it does not divide image_size, 32"),
        ("gen_vision_config.params", "ch_mult", [1, "2"], "is [1, '2']: must be whole numbers"),
        ("gen_vision_config.params", "ch", 40, "is 40: 32 norm groups"),
        ("gen_head_config.params", "image_token_size", 5, "is 5; this model can only be 64"),
        ("aligner_config.params", "input_dim", 5, "is 5; this model can only be 32"),
    ],
)
def test_a_size_that_cannot_be_is_named_as_its_file_does(section, field, value, says):
    values = foreign.original_config()
    inner = values
    for name in section.split("."):
        inner = inner.setdefault(name, {})
    inner[field] = value
    assert any(
        problem.startswith(f"{section}.{field} {says[:3]}") and says in problem
        for problem in janus_torch.layout(values, {}).problems
    )


def test_what_other_programs_write_into_a_config_is_known():
    values = foreign.original_config()
    values["language_config"] |= {
        "use_cache": True,
        "_attn_implementation": "sdpa",
        "unsloth_version": "1",
    }
    values |= {"transformers_version": "4.33.1", "auto_map": {"AutoModel": "x.Y"}}
    assert janus_torch.layout(values, {}).problems == ()
