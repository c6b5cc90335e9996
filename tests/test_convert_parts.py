"""Parts of a Janus: SigLIP in big_vision's and transformers' layouts, a language model, LlamaGen's tokenizer."""

import argparse
import collections
import dataclasses
import re

import foreign
import jax
import ml_dtypes
import numpy as np
import pytest
import tiny
import torch
import transformers
from flax import nnx

import janus_jax
from janus_jax import sharding as sh
from janus_jax.convert import target
from janus_jax.convert.source import open_source
from janus_jax.model.janus import abstract
from janus_jax.weights import import_weights

TOWER = "understanding_encoder"


def shapes():
    return sh.concrete(nnx.to_pure_dict(nnx.state(abstract(foreign.config()))))


@pytest.fixture(scope="module")
def siglip():
    """transformers' tower at the tiny sizes, exact GELU as Janus computes it."""
    c = foreign.config().understanding_encoder
    config = transformers.SiglipVisionConfig(
        hidden_size=c.width, intermediate_size=c.mlp_width, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, image_size=c.image_size, patch_size=c.patch_size, hidden_act="gelu",
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.SiglipVisionModel(config).eval().requires_grad_(False)
    for p in model.parameters():
        p.copy_(torch.randn_like(p) * 0.2)
    return model


def big_vision(model) -> dict[str, np.ndarray]:
    """The same weights as big_vision writes them (its modules' names and shapes), layer by layer."""
    t = {k.removeprefix("vision_model."): x.numpy() for k, x in model.state_dict().items()}
    heads = model.config.num_attention_heads
    out = {
        "embedding/kernel": t["embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": t["embeddings.patch_embedding.bias"],
        "pos_embedding": t["embeddings.position_embedding.weight"][None],
        "MAPHead_0/probe": t["head.probe"],
    }
    for a, b in (("scale", "weight"), ("bias", "bias")):
        out[f"Transformer/encoder_norm/{a}"] = t[f"post_layernorm.{b}"]
    for i in range(model.config.num_hidden_layers):
        ours, theirs = f"Transformer/encoderblock_{i}", f"encoder.layers.{i}"
        for j in (0, 1):
            for a, b in (("scale", "weight"), ("bias", "bias")):
                out[f"{ours}/LayerNorm_{j}/{a}"] = t[f"{theirs}.layer_norm{j + 1}.{b}"]
            out[f"{ours}/MlpBlock_0/Dense_{j}/kernel"] = t[f"{theirs}.mlp.fc{j + 1}.weight"].T
            out[f"{ours}/MlpBlock_0/Dense_{j}/bias"] = t[f"{theirs}.mlp.fc{j + 1}.bias"]
        for a, b in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
            w, bias = t[f"{theirs}.self_attn.{b}.weight"].T, t[f"{theirs}.self_attn.{b}.bias"]
            shape = (heads, -1, len(w)) if a == "out" else (len(w), heads, -1)
            name = f"{ours}/MultiHeadDotProductAttention_0/{a}"
            out[f"{name}/kernel"] = w.reshape(shape)
            out[f"{name}/bias"] = bias if a == "out" else bias.reshape(heads, -1)
    return out


def scanned(arrays: dict) -> dict:
    layers = collections.defaultdict(list)
    for name in sorted(arrays):
        layers[re.sub(r"encoderblock_\d+", "encoderblock", name)].append(arrays[name])
    return {name: np.stack(xs) if "encoderblock" in name else xs[0] for name, xs in layers.items()}


def prefixed(arrays: dict) -> dict:
    more = {"params/txt/Embed_0/embedding": np.zeros((3, 2), np.float32), "params/t": np.float32(1)}
    return {f"params/img/{name}": x for name, x in arrays.items()} | more | {"params/b": np.float32(0)}


def in_bfloat16(arrays: dict) -> dict:
    """As numpy stores it: void of two bytes."""
    return {name: np.ascontiguousarray(x).astype(ml_dtypes.bfloat16).view("V2") for name, x in arrays.items()}


FORMS = {
    "plain": lambda a: a,
    "scanned": scanned,
    "both towers": prefixed,
    "optimizer state": lambda a: {f"opt/target/img/{k}": x for k, x in scanned(a).items()} | {"opt/count": np.int32(1)},
    "bfloat16": in_bfloat16,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_siglip_of_big_vision(siglip, tmp_path, form, save, one_device):
    save(tmp_path / "siglip.npz", **FORMS[form](big_vision(siglip)))
    source = open_source(tmp_path / "siglip.npz").require()
    assert source.kind == "siglip" and source.config is None and source.processor() is None
    assert {name.split(".")[0] for name in source.leaves} == {TOWER} and source.facts == {f"{TOWER}.heads": 4}
    assert any("MAPHead" in name for name in source.ignored) and "tanh" in source.notes[0]
    siglip.save_pretrained(tmp_path / "hf")
    want = open_source(tmp_path / "hf")
    dtype = ml_dtypes.bfloat16 if form == "bfloat16" else np.float32
    for name, (shape, _) in want.leaves.items():
        got = source.read(name)
        assert (got.shape, got.dtype) == (shape, dtype)
        assert (
            np.ascontiguousarray(got).tobytes()
            == np.ascontiguousarray(want.read(name).astype(dtype)).tobytes()
        )


@pytest.mark.parametrize("root", ["", "vision_model."])
def test_siglip_of_transformers_computes_the_same(siglip, tmp_path, root, one_device):
    tensors = {root + k.removeprefix("vision_model."): x for k, x in siglip.state_dict().items()}
    tensors |= {"text_model.head.weight": torch.zeros(2), "logit_scale": torch.zeros(1)} if root else {}
    foreign.save_file(tensors, tmp_path / "model.safetensors")
    params, children = import_weights(tmp_path, shapes(), partly=True)
    assert children == [TOWER]
    graphdef, _ = nnx.split(abstract(foreign.config()).understanding_encoder)
    tower = nnx.merge(graphdef, params[TOWER])
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    want = siglip(torch.from_numpy(images.transpose(0, 3, 1, 2))).last_hidden_state.numpy()
    got = np.asarray(tower(jax.device_put(images, sh.BATCH)))
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


def test_a_language_model_alone(tmp_path, one_device):
    llama = foreign.model().model.language_model
    config = foreign.model().config.text_config
    alone = transformers.LlamaForCausalLM(config)
    alone.model.load_state_dict(llama.state_dict())
    alone.save_pretrained(tmp_path / "llm")
    (tmp_path / "llm" / "tokenizer.json").write_text("{}")  # a part's tokenizer is not Janus's
    source = open_source(tmp_path / "llm")
    target.convert(source, tmp_path / "ours", "janus_jax")
    foreign.same_tensors(
        tmp_path / "ours", {k: torch.from_numpy(x) for k, x in foreign.leaves_of(source).items()}
    )
    assert source.kind == "deepseek_llm" and source.facts["transformer.heads"] == 4
    params, children = import_weights(tmp_path / "llm", shapes(), partly=True)
    assert children == ["text_embedding", "text_head", "transformer"]
    want = alone.state_dict()["model.layers.1.mlp.up_proj.weight"].numpy().T
    assert np.array_equal(params["transformer"]["blocks"]["up"]["kernel"][1], want)
    assert np.array_equal(params["text_head"]["linear"]["kernel"], alone.lm_head.weight.detach().numpy().T)
    with pytest.raises(ValueError, match=r"no whole model but text_embedding, text_head, transformer"):
        janus_jax.load(tmp_path / "llm")


def llamagen(place: str) -> dict:
    prefix = "gen_vision_model."
    weights = {
        k.removeprefix(prefix): x for k, x in foreign.original_tensors().items() if k.startswith(prefix)
    }
    zeros = {k: torch.zeros_like(x) for k, x in weights.items()}
    training = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "discriminator": zeros, "steps": 7,
                "args": argparse.Namespace(lr=1e-4, name="VQ-16")}  # fmt: skip
    return training | ({"ema": weights, "model": zeros} if place == "ema" else {"model": weights})


@pytest.mark.parametrize("place", ["model", "ema"])
def test_llamagens_tokenizer(tmp_path, place, one_device):
    torch.save(llamagen(place), tmp_path / "vq_ds16_c2i.pt")
    source = open_source(tmp_path / "vq_ds16_c2i.pt", allow_pickle=True).require()
    assert source.kind == "llamagen_vq"
    assert {"optimizer", "discriminator", "args", "steps", "quantize.codebook_used"} <= source.ignored.keys()
    hf = foreign.save_transformers(tmp_path / "hf")
    whole = open_source(hf)
    for name, (shape, dtype) in source.leaves.items():
        assert whole.leaves[name] == (shape, dtype)
        assert np.array_equal(source.read(name), whole.read(name)), name
    target.convert(source, tmp_path / "vq", "janus_jax")
    params, children = import_weights(tmp_path / "vq", shapes(), partly=True)
    assert children == ["generation_encoder"]
    codebook = params["generation_encoder"]["codebook"]
    assert np.array_equal(codebook, foreign.original_tensors()["gen_vision_model.quantize.embedding.weight"])
    with pytest.raises(ValueError, match=r"a part \(llamagen_vq\), no whole Janus"):
        target.convert(source, tmp_path / "no", "deepseek")


def test_a_part_of_other_sizes_names_the_fields(siglip, tmp_path, one_device):
    siglip.save_pretrained(tmp_path)
    params = sh.concrete(nnx.to_pure_dict(nnx.state(abstract(tiny.CONFIG))))
    with pytest.raises(ValueError, match=r"understanding_encoder\.patch_size is 8 there, 4 here"):
        import_weights(tmp_path, params, partly=True)


def test_sizes_that_no_shape_tells_are_compared_with_the_models(siglip, tmp_path, one_device):
    siglip.save_pretrained(tmp_path / "tower")
    config = foreign.config()
    import_weights(tmp_path / "tower", shapes(), partly=True, config=config)
    other = dataclasses.replace(
        config,
        understanding_encoder=dataclasses.replace(config.understanding_encoder, heads=8),
        transformer=dataclasses.replace(config.transformer, rope_theta=5e5),
    )
    with pytest.raises(ValueError, match=r"understanding_encoder\.heads is 4 there, 8 here"):
        import_weights(tmp_path / "tower", shapes(), partly=True, config=other)
    whole = foreign.save_transformers(tmp_path / "hf")
    with pytest.raises(ValueError, match=r"rope_theta is 10000\.0 there, 500000\.0 here"):
        import_weights(whole, shapes(), config=other)
