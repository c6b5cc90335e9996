"""Models of continuous latents that there cannot be, and what a config says of those that have none."""

import dataclasses

import pytest
from support import tiny
from support.configs import checked

from janus_jax.config.sizes import model_problems
from janus_jax.model import config as sizes
from janus_jax.training.tasks import janus

KL = {"latent": "kl", "code_dim": 4, "z_channels": 4}


def changed(box: dict | None = None, **model) -> sizes.JanusConfig:
    vq = dataclasses.replace(tiny.CONFIG.generation_encoder, **(box or {}))
    return tiny.small(generation_encoder=vq, **model)


def test_latents_with_a_diffusion_head_are_a_model():
    config = changed(KL | {"latent_scale": 0.5}, image_head="diffusion", denoising_steps=1000)
    assert not model_problems(config, "model.")
    assert config.read_widths == (32, 4) and not config.is_janus


def test_a_model_without_says_nothing_of_it():
    values = sizes.to_dict(tiny.CONFIG)
    new = {"latent", "latent_scale", "image_head", "image_head_layers", "denoising_steps"}
    assert not new & {*values, *values["generation_encoder"]}
    values = sizes.to_dict(changed(KL, image_head="diffusion", denoising_steps=50))
    assert values["generation_encoder"]["latent"] == "kl" and values["denoising_steps"] == 50


@pytest.mark.parametrize(
    ("box", "model", "says"),
    [
        (KL, {}, "model.image_head is 'softmax' and model.generation_encoder.latent is 'kl': a KL"),
        ({}, {"image_head": "diffusion"}, "would round to codes; set model.generation_encoder.latent"),
        ({"latent": "k1"}, {}, "model.generation_encoder.latent is 'k1': unknown"),
        ({}, {"image_head": "difusion"}, "model.image_head is 'difusion': unknown; did you mean"),
        (KL, {"image_head": "diffusion", "denoising_steps": 1001}, "denoising_steps is 1001: the noise"),
        (KL, {"image_head": "diffusion", "denoising_steps": 0}, "denoising_steps is 0: must be at"),
        (KL, {"image_head": "diffusion", "image_head_layers": 0}, "image_head_layers is 0: must be"),
        (KL | {"latent_scale": 0.0}, {"image_head": "diffusion"}, "latent_scale is 0.0: latents are"),
        ({"latent_scale": 0.5}, {}, "latent_scale is 0.5: nothing reads it with image_head 'softmax'"),
        ({}, {"denoising_steps": 50}, "model.denoising_steps is 50: nothing reads it"),
        (KL, {"image_head": "diffusion", "understanding": "vq"}, "model.understanding is 'vq' and"),
        (KL, {"image_head": "diffusion", "generation": "semantic"}, "model.generation is 'semantic'"),
        (KL | {"decoder_norm": "spatial"}, {"image_head": "diffusion"}, "decoder_norm is 'spatial' and"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named_with_the_remedy(box, model, says):
    problems = model_problems(changed(box, **model), "model.")
    assert any(says in problem for problem in problems), problems


def test_stored_ids_and_a_table_of_them_are_refused():
    experiment = checked()
    model = changed(KL, image_head="diffusion")
    lines = dict(experiment.data.datasets)
    lines["scenes"] = dataclasses.replace(lines["scenes"], image_ids="ids.array_record")
    data = dataclasses.replace(experiment.data, datasets=lines)
    problems = janus.problems(dataclasses.replace(experiment, model=model, data=data), "stage2")
    assert any(
        x.startswith("data.datasets.scenes.image_ids is 'ids.array_record'") for x in problems
    )
    assert any("trainable has generation_embedding" in x and "'diffusion'" in x for x in problems)
