"""An ablation's stage whose init lacks what its adaptors read is refused before it begins."""

import dataclasses
import pathlib

import pytest
from flax import nnx
from support import tiny
from support.configs import checked
from support.mesh import on_mesh

from janus_jax.model import config as sizes
from janus_jax.training.preflight_weights import look_at_weights
from janus_jax.weights.load import export

SEMANTIC = sizes.SemanticDecoderConfig(width=16, mlp_width=32, layers=1, heads=2)
TOKENIZER = ("generation_encoder", "semantic_decoder")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(of a language model, of a VQ tokenizer and its semantic decoder)."""
    folder = tmp_path_factory.mktemp("weights")
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(model("siglip", "embedding"))))
        export(folder / "llm", {"transformer": params["transformer"]})
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(model("semantic", "semantic"))))
        export(folder / "tokenizer", {name: params[name] for name in TOKENIZER})
    return folder / "llm", folder / "tokenizer"


def model(understanding: str, generation: str) -> sizes.JanusConfig:
    return tiny.small(understanding=understanding, generation=generation, semantic_decoder=SEMANTIC)


def told(understanding: str, generation: str, *init) -> list[str]:
    """What is wrong with the weights of a run of two stages."""
    experiment = checked()
    own = model(understanding, generation)
    stage = dataclasses.replace(
        experiment.stages["stage1"], init=tuple(map(str, init)), trainable=("transformer",)
    )
    then = dataclasses.replace(stage, init=("previous",))
    changed = dataclasses.replace(experiment, model=own, stages={"one": stage, "two": then})
    (_, _), report = look_at_weights(changed, pathlib.Path("nowhere"), pathlib.Path(), 1)
    return report.config


def test_what_an_ablation_reads_must_be_given(weights):
    llm, tokenizer = weights
    assert told("siglip", "embedding", llm) == []
    assert told("semantic", "semantic", tokenizer) == []
    found = told("semantic", "embedding", llm)
    assert len(found) == 2
    for child, line in zip(TOKENIZER, found):
        assert f"stages.one.init ({llm}) holds no {child}" in line
        assert "model.understanding is 'semantic'" in line and "task vq or semantic" in line
    (line,) = told("vq", "embedding")
    assert "stages.one.init (empty) holds no generation_encoder" in line
