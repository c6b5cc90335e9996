"""The rows and sizes that several sources share: LLaMA in transformers' layout, LlamaGen's VQ tokenizer."""

import dataclasses

from janus_jax.convert.table import DROP, Row, conv, fused, linear, norm, same
from janus_jax.model.config import GenerationEncoderConfig, TransformerConfig, UnderstandingEncoderConfig

LLAMA = {  # class defaults of transformers' LlamaConfig: what a config.json may leave out
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "vocab_size": 32000, "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": False,
    "mlp_bias": False, "rope_theta": 10000.0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Naming:
    """What LlamaGen's and transformers' copies of the VQ network call the same boxes."""

    down: str
    up: str
    res: str
    mid: tuple[str, str, str]


LLAMAGEN = Naming("conv_blocks", "conv_blocks", "res", ("0", "1", "2"))
TRANSFORMERS = Naming("down", "up", "block", ("block_1", "attn_1", "block_2"))


def llama_config(values: dict, where: str) -> tuple[TransformerConfig, list[str]]:
    """(sizes, what in them our transformer cannot represent) of a LLaMA config.json or a section of one; `where`
    leads the names of its fields in what is said."""
    v = LLAMA | {key: value for key, value in values.items() if value is not None}
    rope = v.get("rope_parameters") or {}
    theta = rope.get("rope_theta", v["rope_theta"])
    head_dim = v["hidden_size"] / v["num_attention_heads"]
    scaling = v.get("rope_scaling") or rope
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    wrong = [
        (key, v[key], want)
        for key, want in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False))
        if v[key] != want
    ]
    checks = (
        ("num_key_value_heads", v["num_attention_heads"]),
        ("head_dim", head_dim),
        ("model_type", "llama"),
    )
    wrong += [(key, v[key], want) for key, want in checks if v.get(key, want) != want]
    wrong += [("rope_scaling", kind, "default")] if kind != "default" else []
    problems = [f"{where}{key} is {value!r}; this model can only be {want!r}" for key, value, want in wrong]
    sizes = TransformerConfig(
        width=v["hidden_size"], mlp_width=v["intermediate_size"], layers=v["num_hidden_layers"],
        heads=v["num_attention_heads"], vocabulary=v["vocab_size"], rope_theta=float(theta),
        norm_eps=float(v["rms_norm_eps"]),
    )  # fmt: skip
    return sizes, problems


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
    """theirs: the prefix of embed_tokens, layers and norm; head: their key of the text head, without
    `.weight`. tied: the head is not stored and equals the embeddings; ours is never tied, so it is copied."""
    d, f, n = c.width, c.mlp_width, c.layers
    a, b = "transformer.blocks", f"{theirs}.layers.*"
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
    a, w, n = "understanding_encoder", c.width, c.layers
    b, e = f"{theirs}encoder.layers.*", f"{theirs}embeddings"
    patch, bias, *_ = conv("", f"{e}.patch_embedding", 3, w, c.patch_size)
    rows = [
        dataclasses.replace(patch, ours=f"{a}.patch_kernel"),
        dataclasses.replace(bias, ours=f"{a}.patch_bias"),
        *same(f"{a}.positions", f"{e}.position_embedding.weight", c.tokens, w),
    ]
    for i, (d_in, d_out) in enumerate(((w, c.mlp_width), (c.mlp_width, w)), 1):
        rows += norm(f"{a}.blocks.norm{i}", f"{b}.layer_norm{i}", w, layers=n)
        rows += linear(f"{a}.blocks.mlp.fc{i}", f"{b}.mlp.fc{i}", d_in, d_out, layers=n)
    for p, name in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", out)):
        rows += linear(f"{a}.blocks.attention.{p}", f"{b}.self_attn.{name}", w, w, layers=n)
    return rows + norm(f"{a}.norm", f"{theirs}post_layernorm", w)


def timm_tower_rows(c: UnderstandingEncoderConfig, theirs: str) -> list[Row]:
    """SigLIP as DeepSeek's code writes it: timm's names, q, k and v fused."""
    a, w, n = "understanding_encoder", c.width, c.layers
    b = f"{theirs}.blocks.*"
    patch, bias, *_ = conv("", f"{theirs}.patch_embed.proj", 3, w, c.patch_size)
    rows = [
        Row(f"{a}.positions", f"{theirs}.pos_embed", (1, c.tokens, w), DROP),
        dataclasses.replace(patch, ours=f"{a}.patch_kernel"),
        dataclasses.replace(bias, ours=f"{a}.patch_bias"),
        *fused([f"{a}.blocks.attention.{p}" for p in "qkv"], f"{b}.attn.qkv", w, w, layers=n),
        *linear(f"{a}.blocks.attention.o", f"{b}.attn.proj", w, w, layers=n),
    ]
    for i, (d_in, d_out) in enumerate(((w, c.mlp_width), (c.mlp_width, w)), 1):
        rows += norm(f"{a}.blocks.norm{i}", f"{b}.norm{i}", w, layers=n)
        rows += linear(f"{a}.blocks.mlp.fc{i}", f"{b}.mlp.fc{i}", d_in, d_out, layers=n)
    return rows + norm(f"{a}.norm", f"{theirs}.norm", w)


def vq_rows(c: GenerationEncoderConfig, theirs: str, naming: Naming) -> list[Row]:
    """theirs: the prefix, with its dot. Levels and blocks stand in the order of computation in both."""
    a, m = "generation_encoder", c.multipliers
    widths = [c.channels * k for k in (1, *m)]
    rows = _half(f"{a}.encoder", f"{theirs}encoder", widths, c.res_blocks, naming, down=True)
    rows += conv(f"{a}.encoder.conv_in", f"{theirs}encoder.conv_in", 3, c.channels)
    rows += conv(f"{a}.encoder.conv_out", f"{theirs}encoder.conv_out", widths[-1], c.z_channels)
    widths = [c.channels * k for k in (m[-1], *m[::-1])]
    rows += _half(f"{a}.decoder", f"{theirs}decoder", widths, c.res_blocks + 1, naming, down=False)
    rows += conv(f"{a}.decoder.conv_in", f"{theirs}decoder.conv_in", c.z_channels, widths[0])
    rows += conv(f"{a}.decoder.conv_out", f"{theirs}decoder.conv_out", widths[-1], 3)
    rows += same(f"{a}.codebook", f"{theirs}quantize.embedding.weight", c.codebook_size, c.code_dim)
    rows += conv(f"{a}.quant_conv", f"{theirs}quant_conv", c.z_channels, c.code_dim, 1)
    return rows + conv(f"{a}.post_quant_conv", f"{theirs}post_quant_conv", c.code_dim, c.z_channels, 1)


def _half(a: str, b: str, widths: list[int], blocks: int, naming: Naming, *, down: bool) -> list[Row]:
    rows, last = [], len(widths) - 2
    for i in range(last + 1):
        level, theirs = f"{a}.levels.{i}", f"{b}.{naming.down if down else naming.up}.{i}"
        for j in range(blocks):
            w_in = widths[i] if j == 0 else widths[i + 1]
            rows += _res(f"{level}.res.{j}", f"{theirs}.{naming.res}.{j}", w_in, widths[i + 1])
            if i == (last if down else 0):
                rows += _attn(f"{level}.attn.{j}", f"{theirs}.attn.{j}", widths[i + 1])
        if i < last:
            resample = f"{theirs}.{'downsample' if down else 'upsample'}.conv"
            rows += conv(f"{level}.resample", resample, widths[i + 1], widths[i + 1])
    deepest = widths[-1] if down else widths[0]
    first, middle, second = (f"{b}.mid.{name}" for name in naming.mid)
    rows += _res(f"{a}.mid.0", first, deepest, deepest) + _attn(f"{a}.mid.1", middle, deepest)
    rows += _res(f"{a}.mid.2", second, deepest, deepest)
    return rows + norm(f"{a}.norm_out", f"{b}.norm_out", widths[-1])


def _res(a: str, b: str, w_in: int, w_out: int) -> list[Row]:
    rows = norm(f"{a}.norm1", f"{b}.norm1", w_in) + conv(f"{a}.conv1", f"{b}.conv1", w_in, w_out)
    rows += norm(f"{a}.norm2", f"{b}.norm2", w_out) + conv(f"{a}.conv2", f"{b}.conv2", w_out, w_out)
    return rows + (conv(f"{a}.shortcut", f"{b}.nin_shortcut", w_in, w_out, 1) if w_in != w_out else [])


def _attn(a: str, b: str, width: int) -> list[Row]:
    rows = norm(f"{a}.norm", f"{b}.norm", width)
    for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("proj", "proj_out")):
        rows += conv(f"{a}.{ours}", f"{b}.{theirs}", width, width, 1)
    return rows
