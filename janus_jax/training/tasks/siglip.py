"""Training an understanding encoder on pairs of a picture and a text (SigLIP, arXiv 2303.15343): it
learns which text belongs to which picture of a batch.

The batch is the data: other texts of it are what a picture is told apart from, so a step takes no
microbatches. The losses of two runs compare only where their batch sizes are equal.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from janus_jax.config.schema import Experiment
from janus_jax.data.image_text_pairs import ImageTextPairs, text_ids
from janus_jax.data.images import understanding_image
from janus_jax.distributed import arrays, processes
from janus_jax.model.batch import pixels
from janus_jax.model.config import DIFFERENCES, JanusConfig, UnderstandingEncoderConfig
from janus_jax.model.keys import Keys
from janus_jax.model.pairs import hits, pair_loss
from janus_jax.model.siglip import CHILDREN, SigLIP
from janus_jax.training import attention_check, stage_data, stage_mixture
from janus_jax.training import batch_shapes as bs
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import TrainState, new_state, split, update
from janus_jax.weights.load import export as export_weights

PACKS = False
NARROWS = False
TEACHERS = ()
VALIDATES = ("loss", "image_to_text_accuracy", "text_to_image_accuracy")
OPTIONS = {"text_length": 64}  # tokens of a text, end of sentence included, as SigLIP's release


def problems(experiment: Experiment, name: str) -> list[str]:
    stage = experiment.stages[name]
    path = f"stages.{name}"
    found = _data_problems(experiment, name)
    found += [
        f"{path}.trainable has {child}: task siglip has no such part; it has {', '.join(CHILDREN)}"
        for child in stage.trainable
        if child not in CHILDREN
    ]
    unused = {
        "rows": None, "accumulate": 1, "supervise": "all", "condition_dropout": 0.1, "first_sentence": 0.25
    }  # fmt: skip
    found += [
        f"{path}.{field} is {getattr(stage, field)!r}: task siglip reads no such field; leave it out"
        for field, default in unused.items()
        if getattr(stage, field) != default
    ]
    encoder = experiment.model.understanding_encoder
    found += [
        f"model.understanding_encoder.{field} is {getattr(encoder, field)!r}: task siglip trains SigLIP as "
        "Janus has it, alone; leave it out, or take released weights of that encoder as they are"
        for field in DIFFERENCES
        if getattr(encoder, field) != getattr(UnderstandingEncoderConfig, field)
    ]
    length = stage.options.get("text_length", OPTIONS["text_length"])
    if length != int(length) or length < 2:
        found.append(
            f"{path}.options.text_length is {length:g}: a whole number of tokens, at least 2, one of "
            "them end of sentence"
        )
    if stage.batch_size == 1:
        found.append(
            f"{path}.batch_size is 1: a picture is told apart from the other texts of its batch, and "
            "there is none; give at least 2"
        )
    if name == list(experiment.stages)[-1] and experiment.evaluation.count:
        found.append(
            f"evaluation.count is {experiment.evaluation.count}: the last stage, {name}, hands on no "
            "whole Janus, which alone draws and answers; set it to 0"
        )
    return found


def _data_problems(experiment: Experiment, name: str) -> list[str]:
    """What of a stage's data has no pairs, or pictures that are too small."""
    ratio = experiment.stages[name].ratio
    path = f"stages.{name}.ratio"
    found = []
    if ratio.text > 0:
        found.append(
            f"{path}.text is {ratio.text:g}: task siglip learns from pairs of a picture and a text; "
            "set it to 0"
        )
    tower = experiment.model.understanding_encoder.image_size
    side = experiment.model.generation_encoder.image_size
    if ratio.generation > 0 and tower > side:
        found.append(
            f"{path}.generation is {ratio.generation:g}: its pictures may come as small as "
            f"model.generation_encoder.image_size, {side}, and the understanding encoder reads "
            f"{tower}; raise that size to {tower}"
        )
    return found


def without(experiment: Experiment, name: str) -> tuple[str, ...]:
    return ()  # its state has no other child in the first place


def init_state(
    key, model: JanusConfig, tx, trainable=(), without=(), options=OPTIONS
) -> TrainState:
    """Random weights of both towers and what lies between them."""
    siglip = SigLIP(model, int(options["text_length"]), Keys(key))
    return new_state(*split(siglip, trainable), tx)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw(key, model: JanusConfig, length: int) -> dict:
    return nnx.to_pure_dict(nnx.state(SigLIP(model, length, Keys(key))))


def init_random(seed: int, model: JanusConfig, names: tuple[str, ...], options=OPTIONS) -> dict:
    params = _draw(jax.random.key(seed + 2), model, int(options["text_length"]))
    return {name: params[name] for name in names}


def for_devices(plan: StagePlan, say) -> StagePlan:
    """With the attention kernel that works on these devices, the same on all processes."""
    model = plan.model
    tokens = model.understanding_encoder.patches
    kind = attention_check.working(model, tokens, say, plan.experiment.deterministic)
    processes.require_equal({"attention kernel": kind})
    return dataclasses.replace(plan, model=dataclasses.replace(model, attention=kind))


def _embeddings(model: SigLIP, batch: dict):
    """(of the images, of the texts), each float32 [B, C] of length 1."""
    images = model.embed_images(pixels(batch["images"]))
    return images, model.embed_texts(batch["tokens"])


def _loss(model: SigLIP, batch: dict):
    """batch: of `ImageTextPairs` -> (loss, metrics)."""
    t = model.contrast.t[...]
    b = model.contrast.b[...]
    loss = pair_loss(*_embeddings(model, batch), batch["tokens"], t, b)
    return loss, {"temperature": jnp.exp(t)[0], "bias": b[0]}


def siglip_step(state: TrainState, batch: dict, tx) -> tuple[TrainState, dict]:
    """Pure; jitted, with the state donated, in stages.py. batch: as for `_loss`."""
    return update(state, tx, lambda model: _loss(model, batch))


def step(plan: StagePlan):
    return functools.partial(siglip_step, tx=plan.tx)


def validate(plan: StagePlan):
    """The accuracies say how many images, and texts, of a batch are nearest to a text, or image, of
    their own: of batch_size to choose from."""

    def sums(state, batch):
        model = state.model()
        images, texts = _embeddings(model, batch)
        tokens = batch["tokens"]
        loss = pair_loss(images, texts, tokens, model.contrast.t[...], model.contrast.b[...])
        count = jnp.float32(len(tokens))
        return {
            "loss": (loss * count, count),
            "image_to_text_accuracy": (
                hits(images, texts, tokens).sum().astype(jnp.float32),
                count,
            ),
            "text_to_image_accuracy": (
                hits(texts, images, tokens).sum().astype(jnp.float32),
                count,
            ),
        }

    return sums


def batches(plan: StagePlan, sources: dict, processor, workdir, say) -> stage_data.StageData:
    """Pairs by (seed, step) alone, this process's part of each step's."""
    mixture = stage_mixture.mixture_of(plan, stage_mixture.entries_of(plan, sources))
    pairs = ImageTextPairs(
        mixture,
        processor.tokenizer,
        plan.model.understanding_encoder.image_size,
        int(plan.options["text_length"]),
        *arrays.batch_share(),
        stage_data.read_stats(plan, mixture, workdir, say),
    )
    if not plan.held_out:
        processes.all_or_none(pairs.require_differing_texts)
    part = {"images": plan.stage.batch_size / jax.process_count()}
    next_batch = lambda i: (arrays.put_batch(pairs[i]), part)
    return stage_data.StageData(next_batch, pairs.stats, mixture)


def batch_shapes(plan: StagePlan) -> dict:
    count = plan.stage.batch_size
    side = plan.model.understanding_encoder.image_size
    return bs.abstract({
        "images": ((count, side, side, 3), np.uint8),
        "tokens": ((count, int(plan.options["text_length"])), np.int32),
    })  # fmt: skip


def read_first(plan: StagePlan, processor):
    side = plan.model.understanding_encoder.image_size
    length = int(plan.options["text_length"])

    def read(line, source, index: int) -> str:
        rng = np.random.default_rng(0)
        _, count, cut = text_ids(source, index, processor.tokenizer, length, rng)
        pixels = understanding_image(source.image(index), side).shape[0]
        return f"picture of {pixels} pixels and a text of {count} tokens" + ", cut" * cut

    return read


def export(plan: StagePlan, directory, params: dict, processor):
    export_weights(directory, params, None, processor, part_of=plan.model)
