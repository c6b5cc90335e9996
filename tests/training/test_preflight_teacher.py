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
        assert "model.understanding is 'semantic'" in line and "task vq, kl or semantic" in line
    (line,) = told("vq", "embedding")
    assert "stages.one.init (empty) holds no generation_encoder" in line


def test_pairs_are_not_learned_beside_a_random_transformer():
    lora = dataclasses.replace(
        checked().stages["stage1"], task="lora", init=(), trainable=("image_head",)
    )
    found, _ = look({"one": lora})
    (line,) = found
    assert "stages.one.init (empty) holds no transformer, beside which its pairs learn" in line


def look(stages: dict, own=None) -> tuple[list[str], list[str]]:
    """(what is wrong with the weights of a run of these stages, what it is warned of)."""
    experiment = dataclasses.replace(
        checked(), model=own or model("siglip", "embedding"), stages=stages
    )
    (_, _), report = look_at_weights(experiment, pathlib.Path("nowhere"), pathlib.Path(), 1)
    return report.config, report.warnings


def test_what_an_earlier_stage_has_trained_is_not_lost_on_the_way():
    stages = checked().stages
    pairs = dataclasses.replace(
        stages["stage0"], task="siglip", options={}, init=(),
        trainable=("understanding_encoder", "pooling_head", "text_tower", "contrast"),
    )  # fmt: skip
    janus = dataclasses.replace(stages["stage1"], init=("previous",))
    found, _ = look({"tokenizer": stages["stage0"], "pairs": pairs, "janus": janus})
    (line,) = found
    assert (
        "stages.janus.init (previous) holds no generation_encoder, which tokenizer trains" in line
    )
    assert "add WORKDIR/tokenizer" in line
    assert look({"tokenizer": stages["stage0"], "janus": janus})[0] == []


def test_a_frozen_part_of_siglip_must_be_given(weights):
    stage = checked().stages["stage0"]
    texts = dataclasses.replace(
        stage, task="siglip", options={}, init=(), trainable=("text_tower", "contrast")
    )
    found, _ = look({"texts": texts})
    assert [line.split(",")[0] for line in found] == [
        f"stages.texts.init (empty) holds no {child}"
        for child in ("pooling_head", "understanding_encoder")
    ]


def test_an_eye_that_stays_random_is_told(weights):
    janus = dataclasses.replace(checked().stages["stage1"], init=(str(weights[0]),))
    found, warnings = look({"janus": janus})
    assert found == []
    told = [line for line in warnings if "stays random" in line]
    assert [line.split(" is frozen")[0] for line in told] == [
        "stages.janus: understanding_encoder",
        "stages.janus: generation_encoder",
    ]
    kept = dataclasses.replace(janus, options={"keep": "understanding"})
    assert len([line for line in look({"janus": kept})[1] if "stays random" in line]) == 1
