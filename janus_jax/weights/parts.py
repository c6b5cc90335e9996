"""The rows and sizes that several sources share: LLaMA in transformers' layout, SigLIP; the VQ
tokenizer's are in vq_parts.py."""

import dataclasses

from janus_jax.model.config import (
    LEFT_OUT,
    JanusConfig,
    TransformerConfig,
    UnderstandingEncoderConfig,
)
from janus_jax.weights.settings import Section
from janus_jax.weights.table import DROP, Row, conv, fused, linear, norm, same


def llama_config(v: Section) -> TransformerConfig:
    """The sizes in a LLaMA config.json or a section of one. What it leaves out is as in
    transformers' LlamaConfig."""
    theta = v.number("rope_theta", 10000.0, above=True)
    for name in ("rope_parameters", "rope_scaling"):  # transformers 5's name, and 4's
        rope = v.section(name)
        theta = rope.number("rope_theta", theta, above=True)
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            v.problems.append(f"{v.where}{name} is {kind!r}; this model can only be 'default'")
        else:
            rope.only("factor", 1)
            rope.rest()
    sizes = TransformerConfig(
        width=v.whole("hidden_size", 4096), mlp_width=v.whole("intermediate_size", 11008),
        layers=v.count("num_hidden_layers", 32), heads=v.whole("num_attention_heads", 32),
        vocabulary=v.whole("vocab_size", 32000), rope_theta=theta,
        norm_eps=v.number("rms_norm_eps", 1e-6),
    )  # fmt: skip
    for name, want in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        v.only(name, want)
    v.only("model_type", "llama")
    known_dtype(v)
    v.only("partial_rotary_factor", 1)
    if sizes.width % (2 * sizes.heads):
        v.problems.append(
            f"{v.where}num_attention_heads is {sizes.heads}: hidden_size, {sizes.width}, does not "
            "fall into so many heads of an even size"
        )
    else:
        v.only("num_key_value_heads", sizes.heads)
        v.only("head_dim", sizes.width // sizes.heads)
    v.taken |= {"num_key_value_heads", "head_dim"}
    v.flag("tie_word_embeddings", False)
    v.rest("max_position_embeddings", "rope_interleaved")
    return sizes


def known_dtype(v: Section):
    """Refuses a type of numbers that no such config can mean; `table.compute_dtype` takes it."""
    for name in ("dtype", "torch_dtype"):
        v.only(name, "float32", "bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2")


def tower_problems(c: UnderstandingEncoderConfig, v: Section, width: str, heads: str) -> None:
    """Tells of sizes that do not go together. width, heads: their names of these fields."""
    if c.width % c.heads:
        v.problems.append(
            f"{v.where}{heads} is {c.heads}: {width}, {c.width}, does not fall into so many heads"
        )
    if c.image_size % c.patch_size:
        v.problems.append(
            f"{v.where}patch_size is {c.patch_size}: it does not divide image_size, {c.image_size}"
        )


def ablated(c: JanusConfig) -> list[str]:
    """Why only this project's own layout has a place for such a model."""
    usual = [
        ("understanding", c.understanding, "siglip"),
        ("generation", c.generation, "embedding"),
    ]
    for box, fields in LEFT_OUT.items():
        of = getattr(c, box) if box else c
        usual += [(f"{box}.{x}".lstrip("."), getattr(of, x), known) for x, known in fields.items()]
    return [
        f"{field} is {value!r}: other programs' Janus knows {known!r} alone; keep it in this "
        "project's layout"
        for field, value, known in usual
        if value != known
    ]


def llama_values(c: TransformerConfig, ids: dict, dtype: str) -> dict:
    """The section of a config.json that `llama_config` reads; ids: bos, eos and pad."""
    return {
        "model_type": "llama", "hidden_size": c.width, "intermediate_size": c.mlp_width,
        "num_hidden_layers": c.layers, "num_attention_heads": c.heads, "num_key_value_heads": c.heads,
        "vocab_size": c.vocabulary, "rms_norm_eps": c.norm_eps, "hidden_act": "silu",
        "max_position_embeddings": 16384, "attention_bias": False, "tie_word_embeddings": False,
        "torch_dtype": dtype, **ids,
    }  # fmt: skip


def llama_rows(c: TransformerConfig, theirs: str, head: str, tied: bool) -> list[Row]:
    """theirs: the prefix of embed_tokens, layers and norm; head: their key of the text head,
    without `.weight`. tied: the head is not stored and equals the embeddings; ours is never tied,
    so it is copied."""
    d = c.width
    f = c.mlp_width
    n = c.layers
    a = "transformer.blocks"
    b = f"{theirs}.layers.*"
    rows = same("text_embedding.table", f"{theirs}.embed_tokens.weight", c.vocabulary, d)
    rows += norm(f"{a}.norm1", f"{b}.input_layernorm", d, bias=False, layers=n)
    for p in "qkvo":
        rows += linear(f"{a}.attention.{p}", f"{b}.self_attn.{p}_proj", d, d, bias=False, layers=n)
    rows += norm(f"{a}.norm2", f"{b}.post_attention_layernorm", d, bias=False, layers=n)
    for p, d_in, d_out in (("gate", d, f), ("up", d, f), ("down", f, d)):
        rows += linear(f"{a}.{p}", f"{b}.mlp.{p}_proj", d_in, d_out, bias=False, layers=n)
    rows += norm("transformer.norm", f"{theirs}.norm", d, bias=False)
    head = f"{theirs}.embed_tokens" if tied else head
    return rows + linear("text_head.linear", head, d, c.vocabulary, bias=False)


def tower_rows(c: UnderstandingEncoderConfig, theirs: str, out: str) -> list[Row]:
    """SigLIP as transformers writes it; out: its name of the attention's last linear map."""
    a = "understanding_encoder"
    w = c.width
    n = c.layers
    b = f"{theirs}encoder.layers.*"
    e = f"{theirs}embeddings"
    patch, bias, *_ = conv("", f"{e}.patch_embedding", 3, w, c.patch_size)
    rows = [
        dataclasses.replace(patch, ours=f"{a}.patch_kernel"),
        dataclasses.replace(bias, ours=f"{a}.patch_bias"),
        *same(f"{a}.positions", f"{e}.position_embedding.weight", c.patches, w),
    ]
    for i, (d_in, d_out) in enumerate(((w, c.mlp_width), (c.mlp_width, w)), 1):
        rows += norm(f"{a}.blocks.norm{i}", f"{b}.layer_norm{i}", w, layers=n)
        rows += linear(f"{a}.blocks.mlp.fc{i}", f"{b}.mlp.fc{i}", d_in, d_out, layers=n)
    for p, name in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", out)):
        rows += linear(f"{a}.blocks.attention.{p}", f"{b}.self_attn.{name}", w, w, layers=n)
    return rows + norm(f"{a}.norm", f"{theirs}post_layernorm", w)


def timm_tower_rows(c: UnderstandingEncoderConfig, theirs: str) -> list[Row]:
    """SigLIP as DeepSeek's code writes it: timm's names, q, k and v fused."""
    a = "understanding_encoder"
    w = c.width
    n = c.layers
    b = f"{theirs}.blocks.*"
    patch, bias, *_ = conv("", f"{theirs}.patch_embed.proj", 3, w, c.patch_size)
    rows = [
        Row(f"{a}.positions", f"{theirs}.pos_embed", (1, c.patches, w), DROP),
        dataclasses.replace(patch, ours=f"{a}.patch_kernel"),
        dataclasses.replace(bias, ours=f"{a}.patch_bias"),
        *fused([f"{a}.blocks.attention.{p}" for p in "qkv"], f"{b}.attn.qkv", w, w, layers=n),
        *linear(f"{a}.blocks.attention.o", f"{b}.attn.proj", w, w, layers=n),
    ]
    for i, (d_in, d_out) in enumerate(((w, c.mlp_width), (c.mlp_width, w)), 1):
        rows += norm(f"{a}.blocks.norm{i}", f"{b}.norm{i}", w, layers=n)
        rows += linear(f"{a}.blocks.mlp.fc{i}", f"{b}.mlp.fc{i}", d_in, d_out, layers=n)
    return rows + norm(f"{a}.norm", f"{theirs}.norm", w)


def semantic_rows(c: JanusConfig) -> list[Row]:
    """The semantic decoder, which only this project's own layout has."""
    a = "semantic_decoder"
    s = c.semantic_decoder
    w = s.width
    rows = same(f"{a}.code_kernel", f"{a}.code_kernel", c.generation_encoder.code_dim, w)
    rows += same(f"{a}.code_bias", f"{a}.code_bias", w)
    rows += same(f"{a}.positions", f"{a}.positions", c.generation_encoder.tokens, w)
    for i, (d_in, d_out) in enumerate(((w, s.mlp_width), (s.mlp_width, w)), 1):
        rows += norm(f"{a}.blocks.norm{i}", "", w, layers=s.layers)
        rows += linear(f"{a}.blocks.mlp.fc{i}", "", d_in, d_out, layers=s.layers)
    for p in "qkvo":
        rows += linear(f"{a}.blocks.attention.{p}", "", w, w, layers=s.layers)
    return rows + norm(f"{a}.norm", "", w)
