"""Models that draw scale by scale that there cannot be, and what a config says of those that do not."""

import dataclasses
import re

import pytest
from support import tiny
from support.configs import ROOT
from support.scales import CONFIG, SCALES, N

from janus_jax.config import read
from janus_jax.config.sizes import model_problems
from janus_jax.model import config as sizes
from janus_jax.training import picture_stages
from janus_jax.training.tasks import janus

VQ = {"scales": SCALES, "codebook_l2_norm": False}


def changed(box: dict, **model) -> sizes.JanusConfig:
    vq = dataclasses.replace(tiny.CONFIG.generation_encoder, **box)
    return tiny.small(generation_encoder=vq, **model)


def test_a_picture_has_the_ids_of_all_scales():
    assert not model_problems(CONFIG, "model.")
    vq = CONFIG.generation_encoder
    assert (vq.tokens, vq.most_tokens, vq.grid) == (N, N, (4, 4)) and N == 21
    assert not CONFIG.is_janus and "generation_embedding" not in CONFIG.children


def test_a_model_without_says_nothing_of_it():
    values = sizes.to_dict(tiny.CONFIG)
    assert "scales" not in values["generation_encoder"] and "drawing" not in values
    values = sizes.to_dict(CONFIG)
    assert values["generation_encoder"]["scales"] == SCALES and values["drawing"] == "scales"


@pytest.mark.parametrize(
    ("box", "model", "says"),
    [
        (VQ, {}, r"scales is \(1, 2, 4\) and model.drawing is 'causal': its ids"),
        (VQ, {"drawing": "masked"}, "and model.drawing is 'masked': its ids are those of one grid"),
        (
            {"codebook_l2_norm": False},
            {"drawing": "scales"},
            r"scales is empty: .*such as \(1, 2, 4\)",
        ),
        (VQ | {"scales": (1, 2, 3)}, {"drawing": "scales"}, r"must end in the side .* 16 / 4 = 4"),
        (VQ | {"scales": (1, 1, 4)}, {"drawing": "scales"}, "must be larger than the one before"),
        (VQ | {"scales": (0, 4)}, {"drawing": "scales"}, "from 1 on"),
        ({"scales": SCALES}, {"drawing": "scales"}, "codebook_l2_norm is True .* set it to False"),
        (VQ | {"sizes": ("16x8",)}, {"drawing": "scales"}, "sizes is .*: the grids are squares"),
        (
            VQ | {"latent": "kl"},
            {"drawing": "scales"},
            "latent is 'kl' and model.drawing is 'scales'",
        ),
        (VQ, {"drawing": "scales", "image_head": "diffusion"}, "image_head is 'diffusion' and"),
        (VQ, {"drawing": "scales", "understanding": "vq"}, "understanding is 'vq' and"),
        (VQ, {"drawing": "scales", "generation": "semantic"}, "generation is 'semantic' and"),
        (VQ, {"drawing": "scales", "attention": "cudnn"}, "attention is 'cudnn' and"),
    ],
)
def test_what_does_not_go_together_is_named(box, model, says):
    problems = "\n".join(model_problems(changed(box, **model), "model."))
    assert re.search(says, problems), problems


def test_stored_ids_and_the_semantic_tokenizer_are_refused():
    path = str(ROOT.parent / "configs" / "quickstart_scales.py")
    changes = {"data.datasets.scenes.image_ids": "ids", "stages.stage0.task": "semantic"}
    experiment, _ = read.read(path, changes)
    (problem,) = [x for x in janus.problems(experiment, "stage3") if "image_ids" in x]
    assert (
        "data.datasets.scenes.image_ids is 'ids': ids of a VQ tokenizer of one code a token, and"
        in problem
    )
    (problem,) = picture_stages.code_problems(experiment, "stage0")
    assert "stages.stage0.task is semantic and model.drawing 'scales'" in problem
