"""The presets have as many parameters as the released files."""

import jax
import pytest
import torch
import transformers
from support import paths

from janus_jax.config.read import read
from janus_jax.config.sizes import encoder_problems
from janus_jax.config.validate import value_problems
from janus_jax.model import presets
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.model.janus import abstract
from janus_jax.model.keys import Keys
from janus_jax.model.layers import parameter_count
from janus_jax.model.understanding_encoder import encoder

NOT_BUILT = 12_595_200 + 65_536  # the tower's pooling head and the tokenizer's usage buffer
SHARED = {
    "understanding_encoder": 316_283_904 - 12_595_200,
    "generation_encoder": 71_948_939 - 65_536,
    "generation_embedding": 131_072,
}
CHILDREN_1B = {
    **SHARED,
    "text_embedding": 209_715_200,
    "understanding_adaptor": 6_295_552,
    "generation_adaptor": 4_214_784,
    "transformer": 1_652_656_128 - 2 * 209_715_200,
    "text_head": 209_715_200,
    "image_head": 37_767_168,
}
CHILDREN_7B = {
    **SHARED,
    "text_embedding": 419_430_400,
    "understanding_adaptor": 20_979_712,
    "generation_adaptor": 16_818_176,
    "transformer": 6_910_365_696 - 2 * 419_430_400,
    "text_head": 419_430_400,
    "image_head": 83_906_560,
}


@pytest.mark.parametrize(
    "config, total, children",
    [
        (presets.janus_1_3b(), 2_089_297_547, CHILDREN_1B),
        (presets.janus_pro_1b(), 2_089_297_547, CHILDREN_1B),
        (presets.janus_pro_7b(), 7_420_434_059, CHILDREN_7B),
    ],
    ids=["Janus-1.3B", "Janus-Pro-1B", "Janus-Pro-7B"],
)
def test_parameter_counts(config, total, children, one_device):
    model = abstract(config)
    assert parameter_count(model) + NOT_BUILT == total
    assert {
        name: parameter_count(getattr(model, name)) for name in model.config.children
    } == children
    assert parameter_count(model.generation_encoder.encoder) == 29_298_176
    assert parameter_count(model.generation_encoder.decoder) == 42_449_795


# Of transformers' classes at the published sizes: (class, its config), and what ours leaves out.
SO400M = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "hidden_act": "gelu_pytorch_tanh", "vision_use_head": False,
}  # fmt: skip
LARGE = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
}  # fmt: skip
NORM = 2 * 1024
LAYER = 4 * (1024 + 1) * 1024 + (4096 + 1) * 1024 + (1024 + 1) * 4096 + 2 * NORM
ENCODERS = {
    "siglip_l_384": ("Siglip", LARGE | {"image_size": 384, "patch_size": 16, "vision_use_head": False}, 0),
    "siglip2_so400m_14_384": ("Siglip", SO400M | {"image_size": 384, "patch_size": 14}, 0),
    "siglip2_so400m_16_512": ("Siglip", SO400M | {"image_size": 512, "patch_size": 16}, 0),
    "clip_l_336": ("CLIP", LARGE | {"image_size": 336, "patch_size": 14}, LAYER + NORM),
    "internvit_300m_448": ("InternVL", LARGE | {"image_size": 448, "patch_size": 14, "attention_bias": True}, 0),
}  # fmt: skip


def encoder_parameters(config) -> int:
    how = "float32", "none", "plain"
    return parameter_count(jax.eval_shape(lambda: encoder(config, *how, Keys(jax.random.key(0)))))


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_have_the_parameters_of_transformers(name, one_device):
    kind, sizes, left_out = ENCODERS[name]
    config = getattr(presets, name)()
    with torch.device("meta"):
        sizes = getattr(transformers, f"{kind}VisionConfig")(**sizes)
        theirs = getattr(transformers, f"{kind}VisionModel")(sizes)
    count = sum(p.numel() for p in theirs.parameters())
    assert encoder_parameters(config) == count - left_out
    assert not encoder_problems(config, "model.understanding_encoder")


def test_eva_02_has_the_parameters_of_timms_less_its_head(one_device):
    assert encoder_parameters(presets.eva02_clip_l_336()) == 304_432_832 - (1024 + 1) * 768


@pytest.mark.parametrize("name", ENCODERS)
def test_a_shipped_config_takes_an_encoder_by_its_fields(name):
    config = getattr(presets, name)()
    field = lambda x: ",".join(x) if isinstance(x, tuple) else str(x)
    given = {f"model.understanding_encoder.{k}": field(x) for k, x in vars(config).items()}
    experiment, wrong = read(f"{paths.ROOT}/configs/stage1.py:h100:64", given)
    assert not wrong
    assert experiment.model.understanding_encoder == config
    assert not value_problems(experiment, 64)


@pytest.mark.parametrize(
    "config, total, tokens",
    [
        (presets.vq_8(), 70_109_835, 2304),
        # What diffusers' VQModel counts at Kandinsky's sizes, and at twice the width.
        (presets.movq_67m(), 67_832_495, 2304),
        (presets.movq_270m(), 270_669_103, 2304),
    ],
    ids=["VQ-8", "MoVQGAN-67M", "MoVQGAN-270M"],
)
def test_parameter_counts_of_tokenizers(config, total, tokens, one_device):
    module = jax.eval_shape(lambda: GenerationEncoder(config, Keys(jax.random.key(0))))
    assert parameter_count(module) == total
    assert (config.stride, config.tokens) == (8, tokens)
