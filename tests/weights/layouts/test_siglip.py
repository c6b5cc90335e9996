"""SigLIP in big_vision's and transformers' layouts."""

import collections
import dataclasses
import re

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from support import foreign, vision
from support.foreign import shapes
from support.outputs import nchw, pictures, same

from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.weights.load import import_weights
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError

TOWER = "understanding_encoder"


def big_vision(model) -> dict[str, np.ndarray]:
    """The same weights as big_vision writes them (its modules' names and shapes), layer by
    layer."""
    t = {k.removeprefix("vision_model."): x.numpy() for k, x in model.state_dict().items()}
    heads = model.config.num_attention_heads
    out = {
        "embedding/kernel": t["embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": t["embeddings.patch_embedding.bias"],
        "pos_embedding": t["embeddings.position_embedding.weight"][None],
        "MAPHead_0/probe": t["head.probe"],
    }
    head = "MAPHead_0/MultiHeadDotProductAttention_0"
    width = model.config.hidden_size
    for k, a in enumerate(("query", "key", "value")):
        rows = slice(k * width, (k + 1) * width)
        w, bias = (t[f"head.attention.in_proj_{x}"][rows] for x in ("weight", "bias"))
        out[f"{head}/{a}/kernel"] = w.T.reshape(width, heads, -1)
        out[f"{head}/{a}/bias"] = bias.reshape(heads, -1)
    out[f"{head}/out/kernel"] = t["head.attention.out_proj.weight"].T.reshape(heads, -1, width)
    out[f"{head}/out/bias"] = t["head.attention.out_proj.bias"]
    for a, b in (("scale", "weight"), ("bias", "bias")):
        out[f"MAPHead_0/LayerNorm_0/{a}"] = t[f"head.layernorm.{b}"]
    for j in (0, 1):
        out[f"MAPHead_0/MlpBlock_0/Dense_{j}/kernel"] = t[f"head.mlp.fc{j + 1}.weight"].T
        out[f"MAPHead_0/MlpBlock_0/Dense_{j}/bias"] = t[f"head.mlp.fc{j + 1}.bias"]
    for a, b in (("scale", "weight"), ("bias", "bias")):
        out[f"Transformer/encoder_norm/{a}"] = t[f"post_layernorm.{b}"]
    for i in range(model.config.num_hidden_layers):
        ours, theirs = f"Transformer/encoderblock_{i}", f"encoder.layers.{i}"
        for j in (0, 1):
            for a, b in (("scale", "weight"), ("bias", "bias")):
                out[f"{ours}/LayerNorm_{j}/{a}"] = t[f"{theirs}.layer_norm{j + 1}.{b}"]
            out[f"{ours}/MlpBlock_0/Dense_{j}/kernel"] = t[f"{theirs}.mlp.fc{j + 1}.weight"].T
            out[f"{ours}/MlpBlock_0/Dense_{j}/bias"] = t[f"{theirs}.mlp.fc{j + 1}.bias"]
        for a, b in (
            ("query", "q_proj"),
            ("key", "k_proj"),
            ("value", "v_proj"),
            ("out", "out_proj"),
        ):
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
    return (
        {f"params/img/{name}": x for name, x in arrays.items()} | more | {"params/b": np.float32(0)}
    )


def in_bfloat16(arrays: dict) -> dict:
    """As numpy stores it: void of two bytes."""
    return {
        name: np.ascontiguousarray(x).astype(ml_dtypes.bfloat16).view("V2")
        for name, x in arrays.items()
    }


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
    assert {name.split(".")[0] for name in source.leaves} == {TOWER, "pooling_head"}
    assert source.unshaped == {f"{TOWER}.heads": 4} and "tanh" in source.notes[0]
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
    tensors |= (
        {"text_model.head.weight": torch.zeros(2), "logit_scale": torch.zeros(1)} if root else {}
    )
    foreign.save_file(tensors, tmp_path / "model.safetensors")
    params, children = import_weights(tmp_path, shapes(), partly=True)
    assert children == [TOWER]
    graphdef, _ = nnx.split(abstract(foreign.config()).understanding_encoder)
    tower = nnx.merge(graphdef, params[TOWER])
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    want = siglip(torch.from_numpy(images.transpose(0, 3, 1, 2))).last_hidden_state.numpy()
    got = np.asarray(tower(jax.device_put(images, sh.BATCH)))
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("sides", [(28, 14), (32, 16)], ids=["patch14", "patch16"])
def test_siglip_2_computes_the_same(tmp_path, sides, one_device):
    size, patch = sides
    theirs = vision.theirs(
        "SiglipVisionModel", image_size=size, patch_size=patch, intermediate_size=52,
        hidden_act="gelu_pytorch_tanh", vision_use_head=False,
    )  # fmt: skip
    theirs.save_pretrained(tmp_path)
    config = vision.config(image_size=size, patch_size=patch, mlp_width=52, activation="gelu_tanh")
    images = pictures(1, 2, size, size)
    out = theirs(nchw(images), output_hidden_states=True)
    same(vision.features(vision.ours(tmp_path, config), images), out.last_hidden_state)
    earlier = {"feature_layer": -2, "variant": ("no_final_norm",)}
    encoder = dataclasses.replace(config.understanding_encoder, **earlier)
    config = dataclasses.replace(config, understanding_encoder=encoder)
    same(vision.features(vision.ours(tmp_path, config), images), out.hidden_states[-2])


def test_a_siglip_of_fewer_layers_is_not_taken_for_one_of_more(siglip, tmp_path, one_device):
    siglip.save_pretrained(tmp_path)
    whole = foreign.config().understanding_encoder
    fewer = dataclasses.replace(
        foreign.config(), understanding_encoder=dataclasses.replace(whole, layers=1)
    )
    with pytest.raises(WeightsError, match=r"understanding_encoder\.layers is 2 there, 1 here"):
        vision.ours(tmp_path, fewer)


def test_siglip_2_for_pictures_of_any_size_is_refused(tmp_path):
    theirs = transformers.Siglip2VisionModel(
        transformers.Siglip2VisionConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, patch_size=4,
            num_patches=16,
        )
    )  # fmt: skip
    theirs.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"NaFlex.*take one for a single size"):
        open_source(tmp_path)
