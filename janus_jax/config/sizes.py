"""Sizes that no model can have, and how a field's value is checked."""

import importlib

from janus_jax.common import float32
from janus_jax.common.text import near
from janus_jax.model import config as model_config

REMAT = ("full", "dots", "none")  # what layers keep for the backward pass, see model/layers.py
# What the two adaptors may read (the paper's ablations, Table 5).
UNDERSTANDING = ("siglip", "vq", "semantic")
GENERATION = ("embedding", "semantic")
DRAWING = ("causal", "masked", "scales")
OF_LATENTS = ("latent", "latent_scale", "image_head", "image_head_layers", "denoising_steps")
NORMS = ("group", "spatial")  # of the image decoder
# Of an understanding encoder, see model/vit.py.
ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "swiglu")
PIXELS = ("siglip", "clip", "imagenet")
TILINGS = ("internvl", "llava_hd")  # see data/tiles.py
MOST_TILES = 36  # of a picture
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
    problems += tokenizer_problems(vq, f"{at}generation_encoder")
    problems += positive(at[:-1] or "this model", model, ("image_head_width",))
    problems += named(f"{at}dtype", model.dtype, ("float32", "bfloat16"))
    problems += named(f"{at}remat", model.remat, REMAT)
    problems += named(f"{at}attention", model.attention, model_config.ATTENTION)
    problems += extension_problems(model, at)
    if problems:
        return problems
    path = f"{at}understanding_encoder"
    problems += divides(f"{path}.image_size", tower.image_size, tower.patch_size, "patch_size")
    problems += divides(f"{path}.width", tower.width, tower.heads, "heads")
    problems += tile_problems(model, at)
    if tower.rotary_grid:
        why = "2-D rotary embeddings turn pairs along two axes, 4 * heads ="
        problems += divides(f"{path}.width", tower.width, 4 * tower.heads, why)
    path = f"{at}generation_encoder"
    problems += divides(
        f"{path}.image_size", vq.image_size, vq.stride, "the stride 2 ** (levels - 1) ="
    )
    problems += divides(f"{path}.channels", vq.channels, vq.norm_groups, "norm_groups")
    problems += size_problems(model, path)
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


def extension_problems(model: model_config.JanusConfig, at: str) -> list[str]:
    """What the fields of section 3.5 cannot be; the files of what is not used are not loaded."""
    problems = named(f"{at}drawing", model.drawing, DRAWING)
    if model.drawing == "masked" and (model.attention == "cudnn" or model.generation == "semantic"):
        problems.append(
            f"{at}drawing is 'masked': {at}attention = 'cudnn' and {at}generation = 'semantic' see what "
            "came before alone; take 'auto' and 'embedding'"
        )
    if model.drawing == "scales" or model.generation_encoder.scales:
        problems += importlib.import_module("janus_jax.config.scales").scale_problems(model, at)
    if model.senses:
        problems += importlib.import_module("janus_jax.config.senses").problems(model, at)
    fields = vars(model) | vars(model.generation_encoder)
    usual = model_config.LEFT_OUT[""] | model_config.LEFT_OUT["generation_encoder"]
    if fields["depth"] != 1 or fields["image_head"] == "depth":
        problems += importlib.import_module("janus_jax.config.depth").depth_problems(model, at)
    elif any(fields[name] != usual[name] for name in OF_LATENTS):
        problems += importlib.import_module("janus_jax.config.latents").latent_problems(model, at)
    return problems


def tokenizer_problems(vq: model_config.GenerationEncoderConfig, path: str) -> list[str]:
    """Values that no generation encoder can have; `path` leads the names of its fields."""
    words = (
        "multipliers",
        "decoder_norm",
        "codebook_l2_norm",
        "sizes",
        "latent",
        "latent_scale",
        "scales",
    )
    problems = positive(path, vq, [name for name in vars(vq) if name not in words])
    problems += named(f"{path}.decoder_norm", vq.decoder_norm, NORMS)
    if min(vq.multipliers, default=0) < 1:
        problems.append(
            f"{path}.multipliers is {vq.multipliers}: needs at least one number, each 1 or more"
        )
    return problems


def size_problems(model: model_config.JanusConfig, path: str) -> list[str]:
    """Sizes of pictures that the tokenizer's stride does not divide, or that stand twice; `path` leads
    the names of its fields."""
    vq = model.generation_encoder
    if vq.sizes and not model.is_janus:
        return [
            f"{path}.sizes is {vq.sizes}: a model that reads the tokenizer's features knows squares of "
            f"{path}.image_size alone; leave sizes out"
        ]
    wrong = [size for size in vq.sizes if not is_size(size, vq.stride)]
    if not wrong and len({*vq.sizes, f"{vq.image_size}x{vq.image_size}"}) > len(vq.sizes):
        return []
    said = f"{wrong[0]!r} is no width and height" if wrong else "a size stands twice"
    return [
        f"{path}.sizes is {vq.sizes}: {said}; each must be like '512x384', both of them multiples of "
        f"the stride {vq.stride}, and another than image_size"
    ]


def is_size(size: str, stride: int) -> bool:
    """Whether it is "WxH", both multiples of the stride."""
    sides = size.split("x")
    whole = len(sides) == 2 and all(side.isascii() and side.isdigit() for side in sides)
    return whole and all(int(side) > 0 and int(side) % stride == 0 for side in sides)


def tile_problems(model: model_config.JanusConfig, at: str) -> list[str]:
    """How pictures cannot be cut, or their patches not be joined; the sizes are possible else."""
    tower = model.understanding_encoder
    path = f"{at}understanding_encoder"
    problems = []
    side = tower.image_size // tower.patch_size
    if side % tower.pixel_shuffle:
        problems.append(
            f"{path}.pixel_shuffle is {tower.pixel_shuffle}: must divide the grid's {side} patches a "
            f"side, image_size / patch_size; nearest: {divisors_near(side, tower.pixel_shuffle)}"
        )
    if tower.tiles == 1 and tower.tiling != model_config.UnderstandingEncoderConfig.tiling:
        problems.append(
            f"{path}.tiling is {tower.tiling!r}: no picture is cut, since {path}.tiles is 1; set that, "
            "or leave tiling out"
        )
    if model.understanding != "siglip":
        problems += [
            f"{path}.{n} is {getattr(tower, n)}: the pictures of {at}understanding = "
            f"{model.understanding!r} are read by another encoder, whole; set it to 1"
            for n in ("tiles", "pixel_shuffle")
            if getattr(tower, n) > 1
        ]
    return problems


def encoder_problems(tower: model_config.UnderstandingEncoderConfig, path: str) -> list[str]:
    """What an understanding encoder by itself cannot be; `path` leads the names of its fields."""
    numbers = ("image_size", "patch_size", "width", "mlp_width", "layers", "heads", "pixel_shuffle")
    problems = positive(path, tower, numbers) + finite(path, tower, ("norm_eps",))
    problems += named(f"{path}.activation", tower.activation, ACTIVATIONS)
    problems += named(f"{path}.pixels", tower.pixels, PIXELS)
    problems += named(f"{path}.tiling", tower.tiling, TILINGS)
    if not 1 <= tower.tiles <= MOST_TILES:
        problems.append(
            f"{path}.tiles is {tower.tiles}: must be from 1, a picture as a whole, to {MOST_TILES}; "
            "InternVL and LLaVA train with 4 to 12"
        )
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
