"""Models of several codes a token that there cannot be, and what a config says of those that have one."""

import dataclasses

import pytest
from support import tiny
from support.configs import checked

from janus_jax.config.sizes import model_problems
from janus_jax.model import config as sizes
from janus_jax.training.tasks import janus, semantic

DEPTH = {"depth": 4, "codebook_l2_norm": False}


def changed(box: dict, **model) -> sizes.JanusConfig:
    vq = dataclasses.replace(tiny.CONFIG.generation_encoder, **box)
    return tiny.small(generation_encoder=vq, **model)


def test_several_codes_with_a_depth_head_are_a_model():
    config = changed(DEPTH | {"decoder_norm": "spatial"}, image_head="depth", image_head_layers=1)
    assert not model_problems(config, "model.") and not config.is_janus
    assert config.children == tiny.CONFIG.children
    assert config.generation_encoder.tokens == tiny.CONFIG.generation_encoder.tokens
    assert sizes.to_dict(config)["generation_encoder"]["depth"] == 4
    assert "depth" not in sizes.to_dict(tiny.CONFIG)["generation_encoder"]


@pytest.mark.parametrize(
    ("box", "model", "says"),
    [
        ({}, {}, "generation_encoder.depth is 4 and model.image_head 'softmax': several codes"),
        ({"depth": 1}, {"image_head": "depth"}, "generation_encoder.depth is 1: the head predicts"),
        ({"depth": 0}, {"image_head": "depth"}, "generation_encoder.depth is 0: a token is 1 to 32"),
        ({}, {"image_head": "diffusion"}, "set model.image_head to 'depth', or depth to 1"),
        ({"codebook_l2_norm": True}, {"image_head": "depth"}, "set codebook_l2_norm to False"),
        ({"latent": "kl"}, {"image_head": "depth"}, "generation_encoder.latent is 'kl' and"),
        ({"sizes": ("24x16",)}, {"image_head": "depth"}, "generation_encoder.sizes is ('24x16',) and"),
        ({}, {"image_head": "depth", "drawing": "masked"}, "model.drawing is 'masked' and"),
        ({}, {"image_head": "depth", "understanding": "vq"}, "model.understanding is 'vq' and"),
        ({}, {"image_head": "depth", "generation": "semantic"}, "generation is 'semantic' and"),
        ({}, {"image_head": "depth", "image_head_width": 30}, "image_head_width is 30: the depth head's"),
        ({}, {"image_head": "depth", "image_head_layers": 0}, "image_head_layers is 0: must be"),
        ({}, {"image_head": "depth", "denoising_steps": 9}, "denoising_steps is 9: nothing reads it"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named_with_the_remedy(box, model, says):
    problems = model_problems(changed(DEPTH | box, **model), "model.")
    assert any(says in problem for problem in problems), problems


def test_stored_ids_and_the_semantic_tokenizer_are_refused():
    experiment = checked()
    model = changed(DEPTH, image_head="depth")
    lines = dict(experiment.data.datasets)
    lines["scenes"] = dataclasses.replace(lines["scenes"], image_ids="ids.array_record")
    data = dataclasses.replace(experiment.data, datasets=lines)
    problems = janus.problems(dataclasses.replace(experiment, model=model, data=data), "stage2")
    assert any(
        "scenes.image_ids is 'ids.array_record'" in x and "depth is 4" in x for x in problems
    )
    stage = dataclasses.replace(experiment.stages["stage0"], task="semantic", options={})
    of = dataclasses.replace(experiment, model=model, stages={**experiment.stages, "stage0": stage})
    problems = semantic.problems(of, "stage0")
    assert any("task is semantic" in x and "depth 4" in x for x in problems)
