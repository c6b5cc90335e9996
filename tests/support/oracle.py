"""A tiny random Janus of Hugging Face transformers (float32, CPU) and its copy in ours: an
independent implementation to compare against.

`build` gives (config, theirs, ours). The copy goes through `mapping`, an explicit list of (our
path, their key, transform) that must balance: every tensor of theirs is used or in `IGNORED`, and
every leaf of ours is filled with a tensor of its own shape.
"""

import jax
import numpy as np
import torch
import transformers
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.config import (
    GenerationEncoderConfig,
    JanusConfig,
    TransformerConfig,
    UnderstandingEncoderConfig,
)
from janus_jax.model.janus import Janus, abstract

assert int(transformers.__version__.split(".")[0]) >= 5, (
    f"transformers {transformers.__version__}: the oracle is Janus as of transformers 5 (parameter "
    "names and image features changed there); pip install 'transformers>=5'"
)

IMAGE_TOKEN = 120  # the placeholder's id in the tiny vocabulary
IGNORED = (
    frozenset()
)  # their tensors that we do not build: none, since position tables are not saved


def tiny_config() -> JanusConfig:
    """16 picture tokens (32 px, patch 8) and 16 image ids (16 px, stride 4)."""
    return JanusConfig(
        UnderstandingEncoderConfig(image_size=32, patch_size=8, width=32, mlp_width=96, layers=2, heads=4),
        GenerationEncoderConfig(
            image_size=16, channels=32, multipliers=(1, 1, 2), res_blocks=2, z_channels=16, norm_groups=32,
            codebook_size=64, code_dim=8,
        ),
        TransformerConfig(width=64, mlp_width=96, layers=2, heads=4, vocabulary=128),
        image_head_width=64,
        dtype="float32",
        remat="none",
    )  # fmt: skip


def their_config(c: JanusConfig) -> transformers.JanusConfig:
    tower, vq, llm = c.understanding_encoder, c.generation_encoder, c.transformer
    assert c.image_head_width == llm.width, (
        "theirs has one width for the image head and the language model"
    )
    assert vq.norm_groups == 32, "theirs fixes 32 groups"
    assert vq.tokens == tower.tokens, "theirs takes the VQ grid from the vision tower's"
    vision = transformers.JanusVisionConfig(
        hidden_size=tower.width, num_hidden_layers=tower.layers, num_attention_heads=tower.heads,
        image_size=tower.image_size, patch_size=tower.patch_size, mlp_ratio=tower.mlp_width / tower.width,
        num_image_tokens=tower.tokens, projection_dim=llm.width, depth=2,
    )  # fmt: skip
    vq = transformers.JanusVQVAEConfig(
        embed_dim=vq.code_dim, num_embeddings=vq.codebook_size, latent_channels=vq.z_channels,
        base_channels=vq.channels, channel_multiplier=list(vq.multipliers), num_res_blocks=vq.res_blocks,
        projection_dim=llm.width, image_token_embed_dim=llm.width, num_hidden_layers=2,
    )  # fmt: skip
    text = transformers.LlamaConfig(
        hidden_size=llm.width, intermediate_size=llm.mlp_width, num_hidden_layers=llm.layers,
        num_attention_heads=llm.heads, num_key_value_heads=llm.heads, vocab_size=llm.vocabulary,
        rms_norm_eps=llm.norm_eps, rope_parameters={"rope_type": "default", "rope_theta": llm.rope_theta},
        max_position_embeddings=4096, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.JanusConfig(
        text_config=text, vision_config=vision, vq_config=vq, image_token_id=IMAGE_TOKEN,
        tie_word_embeddings=False,
    )  # fmt: skip


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Every parameter at random, norms and biases included: maps keep the scale of what they
    read."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith("bias"):
            value = 0.3 * noise
        elif "norm" in name:
            value = 1.0 + 0.3 * noise
        elif "embed_tokens" in name or ("embedding" in name and p.ndim == 2):
            value = noise
        else:
            value = noise * (p.numel() / len(p)) ** -0.5  # [out, in, ...]: 1 / sqrt(fan-in)
        p.data.copy_(value)


def their_model(config: JanusConfig, seed: int = 0) -> transformers.JanusForConditionalGeneration:
    model = (
        transformers.JanusForConditionalGeneration(their_config(config))
        .eval()
        .requires_grad_(False)
    )
    assert model.lm_head.weight is not model.get_input_embeddings().weight, (
        "the text head must be untied"
    )
    randomise(model, seed)
    return model


def mapping(config: JanusConfig) -> list[tuple[str, str, callable]]:
    """(our path, their key, transform) of every tensor. A `*` in their key is the layer index:
    those tensors are stacked, each transformed first."""
    table = []

    def same(ours, theirs):
        table.append((ours, theirs, lambda x: x))

    def norm(ours, theirs, bias=True):
        same(f"{ours}.scale", f"{theirs}.weight")
        if bias:
            same(f"{ours}.bias", f"{theirs}.bias")

    def linear(ours, theirs, bias=True):
        table.append((f"{ours}.kernel", f"{theirs}.weight", lambda x: x.T))
        if bias:
            same(f"{ours}.bias", f"{theirs}.bias")

    def conv(ours, theirs):
        table.append(
            (f"{ours}.kernel", f"{theirs}.weight", lambda x: x.transpose(2, 3, 1, 0))
        )  # OIHW, HWIO
        same(f"{ours}.bias", f"{theirs}.bias")

    def res(ours, theirs, changes_width):
        for i in (1, 2):
            norm(f"{ours}.norm{i}", f"{theirs}.norm{i}")
            conv(f"{ours}.conv{i}", f"{theirs}.conv{i}")
        if changes_width:
            conv(f"{ours}.shortcut", f"{theirs}.nin_shortcut")

    def attn(ours, theirs):
        norm(f"{ours}.norm", f"{theirs}.norm")
        for a, b in (("q", "q"), ("k", "k"), ("v", "v"), ("proj", "proj_out")):
            conv(f"{ours}.{a}", f"{theirs}.{b}")

    def half(ours, theirs, multipliers, blocks, levels, resample):
        """Encoder or decoder; `multipliers` in the order of computation, led by the width that
        enters."""
        conv(f"{ours}.conv_in", f"{theirs}.conv_in")
        last = len(multipliers) - 2
        for i in range(last + 1):
            a, b = f"{ours}.levels.{i}", f"{theirs}.{levels}.{i}"
            for j in range(blocks):
                res(
                    f"{a}.res.{j}",
                    f"{b}.block.{j}",
                    j == 0 and multipliers[i] != multipliers[i + 1],
                )
                if i == (last if levels == "down" else 0):
                    attn(f"{a}.attn.{j}", f"{b}.attn.{j}")
            if i < last:
                conv(f"{a}.resample", f"{b}.{resample}.conv")
        res(f"{ours}.mid.0", f"{theirs}.mid.block_1", False)
        attn(f"{ours}.mid.1", f"{theirs}.mid.attn_1")
        res(f"{ours}.mid.2", f"{theirs}.mid.block_2", False)
        norm(f"{ours}.norm_out", f"{theirs}.norm_out")
        conv(f"{ours}.conv_out", f"{theirs}.conv_out")

    same("text_embedding.table", "model.language_model.embed_tokens.weight")

    a, b = "understanding_encoder", "model.vision_model"
    table.append((f"{a}.patch_kernel", f"{b}.embeddings.patch_embedding.weight",
                  lambda x: x.transpose(2, 3, 1, 0)))  # fmt: skip
    same(f"{a}.patch_bias", f"{b}.embeddings.patch_embedding.bias")
    same(f"{a}.positions", f"{b}.embeddings.position_embedding.weight")
    for i in (1, 2):
        norm(f"{a}.blocks.norm{i}", f"{b}.encoder.layers.*.layer_norm{i}")
        linear(f"{a}.blocks.mlp.fc{i}", f"{b}.encoder.layers.*.mlp.fc{i}")
    for p in "qkv":
        linear(f"{a}.blocks.attention.{p}", f"{b}.encoder.layers.*.self_attn.{p}_proj")
    linear(f"{a}.blocks.attention.o", f"{b}.encoder.layers.*.self_attn.projection_layer")
    norm(f"{a}.norm", f"{b}.post_layernorm")

    linear("understanding_adaptor.fc1", "model.aligner.fc1")
    linear("understanding_adaptor.fc2", "model.aligner.hidden_layers.0")

    a, b, vq = "generation_encoder", "model.vqmodel", config.generation_encoder
    m = vq.multipliers
    half(f"{a}.encoder", f"{b}.encoder", (1, *m), vq.res_blocks, "down", "downsample")
    half(f"{a}.decoder", f"{b}.decoder", (m[-1], *m[::-1]), vq.res_blocks + 1, "up", "upsample")
    conv(f"{a}.quant_conv", f"{b}.quant_conv")
    conv(f"{a}.post_quant_conv", f"{b}.post_quant_conv")
    same(f"{a}.codebook", f"{b}.quantize.embedding.weight")

    same("generation_embedding.table", "model.generation_embeddings.weight")
    linear("generation_adaptor.fc1", "model.generation_aligner.fc1")
    linear("generation_adaptor.fc2", "model.generation_aligner.hidden_layers.0")

    a, b = "transformer.blocks", "model.language_model.layers.*"
    norm(f"{a}.norm1", f"{b}.input_layernorm", bias=False)
    norm(f"{a}.norm2", f"{b}.post_attention_layernorm", bias=False)
    for p in "qkvo":
        linear(f"{a}.attention.{p}", f"{b}.self_attn.{p}_proj", bias=False)
    for p in ("gate", "up", "down"):
        linear(f"{a}.{p}", f"{b}.mlp.{p}_proj", bias=False)
    norm("transformer.norm", "model.language_model.norm", bias=False)

    linear("text_head.linear", "lm_head", bias=False)
    linear("image_head.fc1", "model.generation_head.proj_out")
    linear("image_head.fc2", "model.generation_head.vision_head")
    return table


def copy_into(ours: Janus, tensors: dict) -> None:
    """Fills `ours`, real or abstract, from their state dict; AssertionError by name unless it
    balances."""
    tensors = {name: x.detach().float().numpy() for name, x in tensors.items()}
    state = nnx.state(ours)
    leaves = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    layers = {
        "model.vision_model": ours.config.understanding_encoder.layers,
        "model.language_model": ours.config.transformer.layers,
    }
    used, filled = [], []
    for path, name, transform in mapping(ours.config):
        names = [name]
        if "*" in name:
            count = layers[".".join(name.split(".")[:2])]
            names = [name.replace("*", str(i)) for i in range(count)]
        missing = [n for n in [*names] if n not in tensors]
        assert not missing, f"{path}: {missing} not in their state dict"
        assert path in leaves, f"{path}: not a leaf of ours"
        parts = [transform(tensors[n]) for n in names]
        value, leaf = np.stack(parts) if "*" in name else parts[0], leaves[path]
        assert value.shape == leaf.shape, f"{path} {leaf.shape} from {name}: {value.shape}"
        leaf.set_value(
            jax.device_put(np.ascontiguousarray(value, leaf.dtype), leaf.get_value().sharding)
        )
        used += names
        filled.append(path)
    assert len(set(used)) == len(used) and len(set(filled)) == len(filled), (
        "a tensor is mapped twice"
    )
    assert IGNORED.issubset(tensors), f"ignored but absent: {sorted(IGNORED - set(tensors))}"
    left = sorted(set(tensors) - set(used) - IGNORED)
    assert not left, f"their tensors without a place: {left}"
    empty = sorted(set(leaves) - set(filled))
    assert not empty, f"our leaves without a tensor: {empty}"
    nnx.update(ours, state)


def build(seed: int = 0) -> tuple[JanusConfig, transformers.JanusForConditionalGeneration, Janus]:
    """(config, theirs, ours), the same weights in both; call it with a mesh set."""
    config = tiny_config()
    theirs, ours = (
        their_model(config, seed),
        sh.concrete(abstract(config)),
    )  # every leaf is filled below
    copy_into(ours, theirs.state_dict())
    return config, theirs, ours
