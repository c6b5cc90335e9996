"""Model FLOPs of a step by part, from the shapes: the numerator of MFU.

Conventions: 2 FLOPs a weight and token forwards; backwards as many again for the gradient of a
matrix's input, where something trainable lies below it, and for that of the matrix itself, where it
is trainable. Attention is
causal and inside its example: a (query, key) pair counts once. Heads count supervised tokens only,
pictures those that fill a slot. Recomputation, padding, norms, softmax and the optimiser count
nothing.

Letters: D width, N tokens of a picture.
"""

import dataclasses
import importlib
import math

import numpy as np

from janus_jax.model.batch import IGNORE, TASKS, image_slots
from janus_jax.model.config import GenerationEncoderConfig, JanusConfig

# Mean lengths of an example, for plans before the data is there. The paper gives none; these are
# ours, from captions of about 110 tokens with their question (ShareGPT4V), prompts of 40, and
# documents of 1000.
UNDERSTANDING_TEXT = 110
GENERATION_TEXT = 40
DOCUMENT = 1000
ANSWER_SHARE = 0.5  # of the text of a dialogue, where only answers are supervised

MASKED_SHARE = 2 / math.pi  # of a picture's ids, see data/masked.py: the mean of cos(u * pi / 2)

# What the input of each box depends on: its matrices pass gradients down only for these.
_PICTURES = ("understanding_encoder", "understanding_adaptor")
_IMAGES = ("generation_embedding", "generation_adaptor")
_BELOW_TRANSFORMER = (*_PICTURES, *_IMAGES, "text_embedding")
_BELOW_HEADS = (*_BELOW_TRANSFORMER, "transformer")


@dataclasses.dataclass(frozen=True)
class Work:
    """What a step has to do, whatever its shape. All are counts over the global batch.

    tokens: not padding; pairs: (query, key) attended to, causal counted once; text, image:
        supervised text and image tokens; understanding_images, tiles one by one, and generation_images
        that the VQ encoder encodes; senses: inputs of each further one.
    """

    tokens: float
    pairs: float
    text: float
    image: float
    understanding_images: float
    generation_images: float
    senses: dict[str, float] = dataclasses.field(default_factory=dict)


def senses(model: JanusConfig) -> dict:
    """name -> the `Sizes` of each of a model's further senses, whose files are loaded here."""
    if not model.senses:
        return {}
    return importlib.import_module("janus_jax.model.senses.known").sizes(model)


def of_batch(batch: dict, model: JanusConfig) -> Work:
    """The work of a batch of numpy arrays (see batch.py); pictures count by the slots that read
    them."""
    real = np.asarray(batch["segment_ids"]) > 0
    filled = lambda slots, box: float((np.asarray(slots) > 0).sum()) / box.tokens
    seen = np.asarray(batch["positions"]).astype(np.int64) + 1 + np.asarray(batch.get("ahead", 0))
    return Work(
        tokens=float(real.sum()),
        pairs=float(seen[real].sum()),
        text=float((np.asarray(batch["text_targets"]) != IGNORE).sum()),
        image=float((np.asarray(batch["image_targets"]) > 0).sum()),
        understanding_images=filled(batch["understanding_slots"], model.understanding_encoder),
        generation_images=0.0
        if "image_ids" in batch
        else filled(image_slots(batch), model.generation_encoder),
        senses={n: filled(batch[f"{n}_slots"], of) for n, of in senses(model).items()},
    )


def lengths(stage, model: JanusConfig) -> dict[str, float]:
    """Assumed mean tokens of an example by task; none is longer than a row."""
    return {
        "understanding": min(seen_tokens(model) + UNDERSTANDING_TEXT, stage.rows.length),
        "text": min(DOCUMENT, stage.rows.length),
        "generation": min(model.generation_encoder.tokens + GENERATION_TEXT, stage.rows.length),
    }


def seen_tokens(model: JanusConfig) -> float:
    """Of what an example of understanding shows: a picture, with all the tiles that it may have, or
    an input of a further sense, each equally often."""
    tower = model.understanding_encoder
    found = [tower.pieces * tower.tokens, *(of.tokens for of in senses(model).values())]
    return sum(found) / len(found)


def examples(stage, model: JanusConfig, kept=TASKS) -> dict[str, float]:
    """Examples of each task that fill the stage's rows, at its ratio and the assumed lengths. kept:
    tasks of which they are not taken out again."""
    shares = dataclasses.asdict(stage.ratio)
    mean = lengths(stage, model)
    draws = stage.rows.count * stage.rows.length / sum(shares[task] * mean[task] for task in shares)
    return {task: share * draws if task in kept else 0.0 for task, share in shares.items()}


def expected(stage, model: JanusConfig, precomputed: bool = False, kept=TASKS) -> Work:
    """The work of a step of a `Stage` whose rows are full, every example of its task's mean length.
    precomputed: its pictures to generate come as ids. kept: see `examples`."""
    count = examples(stage, model, kept)
    mean = lengths(stage, model)
    share = 1.0 if stage.supervise == "all" else ANSWER_SHARE
    predicted = MASKED_SHARE if model.drawing == "masked" else 1.0
    text = count["understanding"] * max(mean["understanding"] - seen_tokens(model), 0)
    each = count["understanding"] / (1 + len(model.senses))
    return Work(
        tokens=sum(n * mean[task] for task, n in count.items()),
        pairs=sum(n * mean[task] * (mean[task] + 1) / 2 for task, n in count.items()),
        text=share * (text + count["text"] * mean["text"]),
        image=count["generation"] * model.generation_encoder.tokens * predicted,
        understanding_images=each * model.understanding_encoder.pieces,
        generation_images=0.0 if precomputed else count["generation"],
        senses=dict.fromkeys(senses(model), each),
    )


def count(
    model: JanusConfig,
    trainable: tuple[str, ...],
    work: Work,
    adapted: dict[str, int] | None = None,
) -> dict[str, float]:
    """Model FLOPs of one step: the children with matrices, and the transformer's `attention`.

    model: the sizes.
    trainable: the children that learn whole.
    work: of the step.
    adapted: child -> numbers of the low-rank pairs beside its matrices, which themselves do not learn.
    """
    adapted = adapted or {}
    found = _count(model, trainable, {*trainable, *adapted}, work)
    return found | {
        name: found[name] + 6 * n * read_by(name, model, work) for name, n in adapted.items()
    }


def _count(model: JanusConfig, trainable: tuple[str, ...], moving: set, work: Work) -> dict:
    """`count` without the pairs. moving: the children of which anything learns."""
    llm = model.transformer
    tower = model.understanding_encoder
    d = llm.width
    learns = lambda *names: not moving.isdisjoint(names)

    def passes(name, *below):  # 1 forwards, 1 for the input's gradient, 1 for the matrix's
        return 1 + learns(*below) + (name in trainable)

    def two_layers(first, second, name, *below):  # one under the second learns when the first does
        return 2 * (first * passes(name, *below) + second * passes(name, name, *below))

    more = model.children[-2 * len(model.senses) :] if model.senses else ()
    inside = passes("transformer", "transformer", *_BELOW_TRANSFORMER, *more)
    attended = 1 + 2 * learns("transformer", *_BELOW_TRANSFORMER, *more)
    through_tower = passes("understanding_encoder", "understanding_encoder")
    patches = 2 * 3 * tower.patch_size**2 * tower.width * tower.patches
    hidden = model.image_head_width
    codes = model.generation_encoder.codebook_size
    seen = work.understanding_images if model.understanding == "siglip" else 0
    coded = work.understanding_images - seen
    read = coded if model.understanding == "semantic" else 0
    if model.generation == "semantic":
        read += work.image / model.generation_encoder.tokens
    semantic = model.semantic_decoder
    blocks = encoder_blocks(semantic, semantic.layers, model.generation_encoder.tokens)
    patch_tokens = tower.patches + ("class_token" in tower.variant)
    tower_blocks = encoder_blocks(tower, tower.depth, patch_tokens, tower.activation == "swiglu")
    sensed = {}
    for name, of in senses(model).items():
        encoder, adaptor = f"{name}_encoder", f"{name}_adaptor"
        read_here = work.senses.get(name, 0.0)
        sensed[encoder] = read_here * of.flops() * passes(encoder, encoder)
        maps = two_layers(of.width * d, d * d, adaptor, encoder)
        sensed[adaptor] = read_here * of.tokens * maps
    return sensed | {
        "understanding_encoder": seen
        * (tower_blocks * through_tower + patches * passes("understanding_encoder")),
        "understanding_adaptor": work.understanding_images
        * tower.tokens
        * two_layers(
            model.read_widths[0] * d, d * d, "understanding_adaptor", "understanding_encoder"
        ),
        "generation_encoder": (work.generation_images + coded)
        * vq_encode(model.generation_encoder),
        **({"semantic_decoder": read * blocks} if read else {}),
        "generation_adaptor": work.image
        * two_layers(
            model.read_widths[1] * d,
            d * d,
            "generation_adaptor",
            "generation_embedding",
        ),
        "transformer": work.tokens * 2 * llm.layers * (4 * d * d + 3 * d * llm.mlp_width) * inside,
        "attention": work.pairs * 4 * d * llm.layers * attended,
        "text_head": work.text * 2 * d * llm.vocabulary * passes("text_head", *_BELOW_HEADS, *more),
        "image_head": work.image
        * two_layers(d * hidden, hidden * codes, "image_head", *_BELOW_HEADS, *more)
        if model.image_head == "softmax"
        else other_head(model, work.image)
        * passes("image_head", "image_head", *_BELOW_HEADS, *more),
    }


def other_head(model: JanusConfig, tokens: float) -> float:
    """Forward FLOPs of the loss of so many tokens, by a head of another kind; its file is loaded here."""
    heads = importlib.import_module("janus_jax.model.head_flops")
    return tokens * heads.A_TOKEN[model.image_head](model)


def read_by(child: str, model: JanusConfig, work: Work) -> float:
    """Tokens that the linear maps of a child read."""
    tower = model.understanding_encoder
    return {
        "understanding_encoder": work.understanding_images * tower.patches,
        "understanding_adaptor": work.understanding_images * tower.tokens,
        "generation_adaptor": work.image,
        "transformer": work.tokens,
        "text_head": work.text,
        "image_head": work.image,
    }[child]


def encoder_blocks(box, layers: int, n: int, gated: bool = False) -> float:
    """Forward FLOPs of some layers of the tower or of the semantic decoder for one picture of n
    tokens; all of its attention is computed. gated: its MLPs have a gate."""
    c = box.width
    return layers * n * (2 * (4 * c * c + (2 + gated) * c * box.mlp_width) + 4 * c * n)


def vq_encode(vq: GenerationEncoderConfig) -> float:
    """Forward FLOPs of encoding one picture to ids: convolutions, attention at the lowest
    resolution, and the distances to the codebook (the layout of model/generation_encoder.py); or to
    latents, with attention in the middle alone."""
    side = vq.image_size
    width = vq.channels
    last = len(vq.multipliers) - 1
    codes = vq.codebook_size if vq.latent == "vq" else 0
    moments = 1 if codes else 2  # numbers for each latent

    def conv(c_in, c_out, size=3):
        return 2 * side * side * size * size * c_in * c_out

    def attention(c):
        return 4 * conv(c, c, 1) + 4 * side**4 * c

    def residual(c_in, c_out):
        return (
            conv(c_in, c_out) + conv(c_out, c_out) + (conv(c_in, c_out, 1) if c_in != c_out else 0)
        )

    total = conv(3, width)
    for i, multiplier in enumerate(vq.multipliers):
        out = vq.channels * multiplier
        for _ in range(vq.res_blocks):
            total += residual(width, out) + (attention(out) if i == last and codes else 0)
            width = out
        if i < last:
            side //= 2
            total += conv(out, out)
    total += 2 * residual(width, width) + attention(width)
    total += conv(width, moments * vq.z_channels)
    total += conv(moments * vq.z_channels, moments * vq.code_dim, 1)
    total += len(vq.scales) * conv(vq.code_dim, vq.code_dim)
    return total + vq.depth * 2 * vq.tokens * vq.code_dim * codes
