"""Other people's weights at tiny sizes: written by transformers, or in the original layout by an
independent list of renamings, with a small tokenizer beside them."""

import dataclasses
import functools
import json
import re

import numpy as np
import torch
from flax import nnx
from safetensors.torch import load_file, save_file
from support import oracle

from janus_jax.data.tokenizer import Tokenizer, train
from janus_jax.model import sharding as sh
from janus_jax.model.config import JanusConfig, TransformerConfig
from janus_jax.model.janus import abstract
from janus_jax.weights import convert as convert_
from janus_jax.weights.source import open_source

ROLES = ("<|User|>", "<|Assistant|>")


def config() -> JanusConfig:
    """The oracle's, with room for a byte-level vocabulary."""
    llm = TransformerConfig(width=64, mlp_width=96, layers=2, heads=4, vocabulary=384)
    return dataclasses.replace(oracle.tiny_config(), transformer=llm)


@functools.cache
def tokenizer(pro: bool = True) -> Tokenizer:
    learned = train(["a red circle", "what is this? a blue square"] * 4, 300)
    if pro:
        learned.backend.add_special_tokens(list(ROLES))
    return Tokenizer(learned.backend)


@functools.cache
def model(dtype: str = "float32"):
    theirs = oracle.their_model(config()).to(getattr(torch, dtype))
    theirs.config.image_token_id = tokenizer().placeholder
    return theirs


def save_transformers(directory, dtype: str = "float32", **options):
    """As transformers saves it; options: max_shard_size."""
    model(dtype).save_pretrained(directory, **options)
    tokenizer().save(directory)
    return directory


RENAMED = [  # transformers' key -> the original's
    (r"^model\.vision_model\.embeddings\.patch_embedding", "vision_model.vision_tower.patch_embed.proj"),
    (r"^model\.vision_model\.embeddings\.position_embedding\.weight", "vision_model.vision_tower.pos_embed"),
    (r"^model\.vision_model\.encoder\.layers\.(\d+)\.layer_norm", r"vision_model.vision_tower.blocks.\1.norm"),
    (r"^model\.vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection_layer",
     r"vision_model.vision_tower.blocks.\1.attn.proj"),
    (r"^model\.vision_model\.encoder\.layers\.", "vision_model.vision_tower.blocks."),
    (r"^model\.vision_model\.post_layernorm", "vision_model.vision_tower.norm"),
    (r"^model\.aligner\.fc1", "aligner.layers.0"),
    (r"^model\.aligner\.hidden_layers\.0", "aligner.layers.2"),
    (r"^model\.generation_aligner\.fc1", "gen_aligner.layers.0"),
    (r"^model\.generation_aligner\.hidden_layers\.0", "gen_aligner.layers.2"),
    (r"^model\.generation_embeddings", "gen_embed"),
    (r"^model\.generation_head\.proj_out", "gen_head.output_mlp_projector"),
    (r"^model\.generation_head", "gen_head"),
    (r"^model\.vqmodel\.(.*)\.mid\.block_1", r"gen_vision_model.\1.mid.0"),
    (r"^model\.vqmodel\.(.*)\.mid\.attn_1", r"gen_vision_model.\1.mid.1"),
    (r"^model\.vqmodel\.(.*)\.mid\.block_2", r"gen_vision_model.\1.mid.2"),
    (r"^model\.vqmodel\.(encoder|decoder)\.(?:down|up)\.(\d+)\.block", r"gen_vision_model.\1.conv_blocks.\2.res"),
    (r"^model\.vqmodel\.(encoder|decoder)\.(?:down|up)", r"gen_vision_model.\1.conv_blocks"),
    (r"^model\.vqmodel", "gen_vision_model"),
    (r"^model\.language_model", "language_model.model"),
    (r"^lm_head", "language_model.lm_head"),
]  # fmt: skip


def original_tensors(dtype: str = "float32") -> dict[str, torch.Tensor]:
    """The tiny model in DeepSeek's layout, pooling head and usage buffer included."""
    out, qkv = {}, {}
    for name, x in model(dtype).state_dict().items():
        part = re.match(
            r"model\.vision_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)", name
        )
        if part:
            layer, letter, kind = part.groups()
            qkv.setdefault(f"vision_model.vision_tower.blocks.{layer}.attn.qkv.{kind}", {})[
                letter
            ] = x
            continue
        new = next(re.sub(a, b, name) for a, b in RENAMED if re.search(a, name))
        out[new] = x[None] if new.endswith("pos_embed") else x
    out |= {name: torch.cat([parts[p] for p in "qkv"]) for name, parts in qkv.items()}
    noise = torch.Generator().manual_seed(1)
    width = config().understanding_encoder.width
    for name, shape in (
        ("latent", (1, 1, width)),
        ("kv.weight", (2 * width, width)),
        ("norm.bias", (width,)),
    ):
        key = f"vision_model.vision_tower.attn_pool.{name}"
        out[key] = torch.randn(shape, generator=noise).to(getattr(torch, dtype))
    out["gen_vision_model.quantize.codebook_used"] = torch.arange(9.0).to(getattr(torch, dtype))
    return {name: x.contiguous() for name, x in out.items()}


def original_config() -> dict:
    """config.json of the original's schema, with the sizes its fields do not carry."""
    c = config()
    tower, vq, llm = c.understanding_encoder, c.generation_encoder, c.transformer
    return {
        "model_type": "multi_modality",
        "torch_dtype": "bfloat16",
        "language_config": {
            "model_type": "llama", "hidden_size": llm.width, "intermediate_size": llm.mlp_width,
            "num_hidden_layers": llm.layers, "num_attention_heads": llm.heads, "vocab_size": llm.vocabulary,
        },
        "vision_config": {"params": {
            "image_size": tower.image_size, "model_name": "tiny", "select_feature": "same", "select_layer": -1,
            "width": tower.width, "layers": tower.layers, "heads": tower.heads, "patch_size": tower.patch_size,
            "mlp_ratio": 3.0,
        }},
        "gen_vision_config": {"params": {
            "image_token_size": vq.codebook_size, "n_embed": vq.code_dim, "ch": vq.channels,
            "ch_mult": vq.multipliers, "num_res_blocks": vq.res_blocks, "z_channels": vq.z_channels,
        }},
        "gen_head_config": {"params": {"image_token_embed": 64}},
    }  # fmt: skip


def save_original(directory, dtype: str = "float32", tensors: dict | None = None, pro: bool = True):
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors or original_tensors(dtype), directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(original_config()))
    tokenizer(pro).save(directory)
    return directory


def same_tensors(a, b):
    """Two dictionaries of torch tensors, or safetensors files, are equal in every byte."""
    a, b = (x if isinstance(x, dict) else tensors_of(x) for x in (a, b))
    assert a.keys() == b.keys()
    bits = lambda x: (x.dtype, tuple(x.shape), x.contiguous().view(torch.uint8).numpy().tobytes())
    different = [name for name in a if bits(a[name].reshape(-1)) != bits(b[name].reshape(-1))]
    assert not different and all(a[n].shape == b[n].shape for n in a), different


def tensors_of(directory) -> dict:
    return {
        k: x for f in sorted(directory.glob("model*.safetensors")) for k, x in load_file(f).items()
    }


def leaves_of(source) -> dict[str, np.ndarray]:
    return {name: source.read(name) for name in source.leaves}


def leaves(tree) -> dict:
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(tree)}


def convert(source, directory, layout, dtype=None):
    convert_.to_layout(open_source(source), directory, layout, dtype)
    return directory


def shapes():
    """The parameters of `config()`, to be filled."""
    return sh.concrete(nnx.to_pure_dict(nnx.state(abstract(config()))))
