"""The presets have as many parameters as the released files."""

import jax
import pytest

from janus_jax.model import presets
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.model.janus import abstract
from janus_jax.model.keys import Keys
from janus_jax.model.layers import parameter_count

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
