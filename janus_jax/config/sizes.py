"""Sizes that no model can have, and how a field's value is checked."""

import importlib

from janus_jax.common import float32
from janus_jax.common.text import near
from janus_jax.model import config as model_config

REMAT = ("full", "dots", "none")  # what layers keep for the backward pass, see model/layers.py
# What the two adaptors may read (the paper's ablations, Table 5).
UNDERSTANDING = ("siglip", "vq", "semantic")
GENERATION = ("embedding", "semantic")
NORMS = ("group", "spatial")  # of the image decoder
# Of an understanding encoder, see model/vit.py.
ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "swiglu")
PIXELS = ("siglip", "clip", "imagenet")
VARIANTS = (
    "class_token", "pre_norm", "no_patch_bias", "no_qkv_bias", "no_key_bias", "qk_norm", "layer_scale",
    "rms_norm", "sub_norm", "no_final_norm",
)  # fmt: skip


def named(field: str, value: str, known) -> list[str]:
    return [] if value in known else [f"{field} is {value!r}: unknown{near(value, known)}"]


def divides(field: str, value: int, by: int, why: str, knob: str = "") -> list[str]:
    """knob: the field to change, whose value is `by`, where the weights fix `value`. Values below 1
    are refused elsewhere."""
    if by > 0 and (value % by == 0 or value < 1):
        return []
    low = value // max(by, 1) * by
    high = (value // max(by, 1) + 1) * by
    nearest = f"{low} or {high}" if low else str(high)
    if knob:
        nearest = f"{knob} = {divisors_near(value, by)} (or {field.rsplit('.', 1)[1]} {nearest})"
    return [f"{field} is {value}: {why} {by} must divide it; nearest: {nearest}"]


def divisors_near(value: int, by: int) -> str:
    """The divisors of `value` next to `by`, which is none."""
    fitting = [n for n in range(1, value + 1) if value % n == 0]
    return " or ".join(
        map(str, [n for n in fitting if n < by][-1:] + [n for n in fitting if n > by][:1])
    )


def positive(path: str, obj, names) -> list[str]:
    return [
        f"{path}.{n} is {getattr(obj, n)}: must be at least 1" for n in names if getattr(obj, n) < 1
    ]


def finite(path: str, obj, names) -> list[str]:
    return [
        f"{path}.{n} is {getattr(obj, n)}: must be a finite number in float32, 0 or more"
        for n in names
        if not (getattr(obj, n) >= 0 and float32.finite(getattr(obj, n)))
    ]


def model_problems(model: model_config.JanusConfig, at: str) -> list[str]:
    """Sizes that no model can have; `at` leads the names of the fields, with its dot."""
    tower = model.understanding_encoder
    vq = model.generation_encoder
    llm = model.transformer
    problems = positive(
        f"{at}transformer", llm, ("width", "mlp_width", "layers", "heads", "vocabulary")
    )
    problems += finite(f"{at}transformer", llm, ("rope_theta", "norm_eps"))
    if llm.rope_theta == 0:
        problems.append(f"{at}transformer.rope_theta is 0: must be above 0; Janus has 10000")
    problems += encoder_problems(tower, f"{at}understanding_encoder")
    problems += positive(
        f"{at}semantic_decoder", model.semantic_decoder, vars(model.semantic_decoder)
    )
    problems += named(f"{at}understanding", model.understanding, UNDERSTANDING)
    problems += named(f"{at}generation", model.generation, GENERATION)
    words = ("multipliers", "decoder_norm", "codebook_l2_norm", "latent", "latent_scale")
    whole = [name for name in vars(vq) if name not in words]
    problems += positive(f"{at}generation_encoder", vq, whole)
    problems += named(f"{at}generation_encoder.decoder_norm", vq.decoder_norm, NORMS)
    if min(vq.multipliers, default=0) < 1:
        problems.append(
            f"{at}generation_encoder.multipliers is {vq.multipliers}: needs at least one number, "
            "each 1 or more"
        )
    problems += positive(at[:-1] or "this model", model, ("image_head_width",))
    problems += named(f"{at}dtype", model.dtype, ("float32", "bfloat16"))
    problems += named(f"{at}remat", model.remat, REMAT)
    problems += named(f"{at}attention", model.attention, model_config.ATTENTION)
    fields = vars(model) | vars(vq)
    if any(fields.get(name, usual) != usual for name, usual in model_config.LEFT_OUT):
        problems += importlib.import_module("janus_jax.config.latents").latent_problems(model, at)
    if problems:
        return problems
    path = f"{at}understanding_encoder"
    problems += divides(f"{path}.image_size", tower.image_size, tower.patch_size, "patch_size")
    problems += divides(f"{path}.width", tower.width, tower.heads, "heads")
    if tower.rotary_grid:
        why = "2-D rotary embeddings turn pairs along two axes, 4 * heads ="
        problems += divides(f"{path}.width", tower.width, 4 * tower.heads, why)
    path = f"{at}generation_encoder"
    problems += divides(
        f"{path}.image_size", vq.image_size, vq.stride, "the stride 2 ** (levels - 1) ="
    )
    problems += divides(f"{path}.channels", vq.channels, vq.norm_groups, "norm_groups")
    problems += divides(f"{at}transformer.width", llm.width, 2 * llm.heads, "2 * heads =")
    semantic = model.semantic_decoder
    if "semantic_decoder" in model.children:
        path = f"{at}semantic_decoder"
        problems += divides(f"{path}.width", semantic.width, semantic.heads, "heads")
    sides = [(box.image_size, box.tokens) for box in (tower, vq)]
    if model.understanding != "siglip" and sides[0] != sides[1]:
        problems.append(
            f"{at}understanding is {model.understanding!r}: the VQ tokenizer reads the pictures that "
            f"are understood, and has {vq.image_size} pixels and {vq.tokens} tokens of one; set "
            f"{at}understanding_encoder.image_size and patch_size, which say {tower.image_size} and "
            f"{tower.tokens}, to {vq.image_size} and {vq.stride}"
        )
    return problems


def encoder_problems(tower: model_config.UnderstandingEncoderConfig, path: str) -> list[str]:
    """What an understanding encoder by itself cannot be; `path` leads the names of its fields."""
    numbers = ("image_size", "patch_size", "width", "mlp_width", "layers", "heads")
    problems = positive(path, tower, numbers) + finite(path, tower, ("norm_eps",))
    problems += named(f"{path}.activation", tower.activation, ACTIVATIONS)
    problems += named(f"{path}.pixels", tower.pixels, PIXELS)
    for word in tower.variant:
        problems += named(f"{path}.variant", word, VARIANTS)
    if len(set(tower.variant)) < len(tower.variant):
        problems.append(f"{path}.variant is {tower.variant}: a word stands twice; name each once")
    if not -tower.layers <= tower.feature_layer <= -1:
        problems.append(
            f"{path}.feature_layer is {tower.feature_layer}: it counts from the last of "
            f"{path}.layers = {tower.layers}; must be from {-tower.layers} to -1, the last"
        )
    if tower.rotary_grid < 0:
        problems.append(
            f"{path}.rotary_grid is {tower.rotary_grid}: must be 0, without rotary embeddings, or the "
            "side of the grid of patches whose places they were trained on, such as 16"
        )
    if {"no_qkv_bias", "no_key_bias"} <= set(tower.variant):
        problems.append(
            f"{path}.variant has no_key_bias and no_qkv_bias: the second takes all three away; leave "
            "the first out"
        )
    return problems
