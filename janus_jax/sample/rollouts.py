"""Pictures and answers of reinforcement learning: many a prompt, each with the log-probabilities of
its ids, and the pictures that ids show."""

import copy

import jax
import numpy as np
from flax import nnx

from janus_jax.data.messages import PICTURE, Turn, laid_out
from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax
from janus_jax.model.serving import serving
from janus_jax.sample.decode import drawing
from janus_jax.sample.engine import Request
from janus_jax.sample.generate import decode_ids, to_pil
from janus_jax.sample.reading import Prompt
from janus_jax.sample.reported import ids_with_log_probabilities
from janus_jax.sample.understand import answer_of, prepare, prompts_of, understand_batch
from janus_jax.weights.load import CAST
from janus_jax.weights.table import VQ

# What a token reads, drawn or written.
READ = (
    "text_embedding", "generation_embedding", "generation_adaptor", "transformer", "text_head",
    "image_head",
)  # fmt: skip


def drawings(
    model, prompts: list[np.ndarray], seeds: list[int], count: int, unconditional, *,
    cfg_scale: float, temperature: float, rows: int = 0,
) -> list:  # fmt: skip
    """`count` drawings of each prompt: (image ids int32 [N], log-probabilities float32 [N]) of each,
    row-major by prompt. Equal prompts are read once.

    prompts: ids up to begin_of_image, see Processor.request; seeds: one a prompt; drawing k of a
        prompt depends on its seed and k alone.
    unconditional: ids -> those of the prompt without its words.
    cfg_scale, temperature: as of `generate`; temperature above 0.
    rows: see `ids_with_log_probabilities`.
    """
    tokens = model.config.generation_encoder.tokens
    requests = []
    for ids, seed in zip(prompts, seeds, strict=True):
        pair = Prompt(ids), Prompt(unconditional(ids))
        requests += [drawing(pair, seed, k, cfg_scale, temperature, tokens) for k in range(count)]
    return ids_with_log_probabilities(model, requests, rows)


def answers(
    model, processor, asked: list[tuple], seeds: list[int], count: int, *, temperature: float,
    most: int, rows: int = 0,
) -> list:  # fmt: skip
    """`count` answers to each question, as `drawings`; of at most `most` ids, the last of them the end of
    sentence, or a role's tag, where the answer ended by itself.

    asked: of each (ids, slots, pictures), see `question`.
    """
    eos = processor.tokenizer.eos
    requests = [
        Request((prompt,), False, most, seed, k, temperature, eos=eos)
        for prompt, seed in zip(prompts_of(model, processor, asked), seeds, strict=True)
        for k in range(count)
    ]
    ends = {eos, *answer_of(processor, (), 1).stop_ids}
    cut = lambda ids: next((k + 1 for k, i in enumerate(ids.tolist()) if i in ends), len(ids))
    found = ids_with_log_probabilities(model, requests, rows)
    return [(ids[: cut(ids)], told[: cut(ids)]) for ids, told in found]


def question(processor, config, picture, words: str) -> tuple:
    """(ids int32 [n], slots int32 [n], pictures uint8 [1, S, S, 3]) of a question about a picture, as
    `understand` prepares it."""
    turn = Turn("user", laid_out([PICTURE, words]), pictures=[picture])
    return prepare(processor, [turn], config.understanding_encoder)


def text_of(processor, ids: np.ndarray) -> str:
    """The words of an answer's ids."""
    answer = answer_of(processor, (), len(ids) + 1)
    answer.add(ids)
    return answer.text


def painted(model, ids: np.ndarray) -> list:
    """The PIL pictures that image ids [B, N] show."""
    return to_pil(decode_ids(model, ids)) if len(ids) else []


def ask(model, processor, pictures: list, questions: list[str], most: int = 16) -> list[str]:
    """The likeliest answer to a question about each picture."""
    parts = lambda picture, words: [
        {"type": "image", "image": picture}, {"type": "text", "text": words}
    ]  # fmt: skip
    asked = [
        [{"role": "user", "content": parts(picture, words)}]
        for picture, words in zip(pictures, questions, strict=True)
    ]
    return understand_batch(model, processor, asked, max_new_tokens=most) if asked else []


def decoding(model):
    """The model in the form that decodes, once for all that a step draws and answers: its weights in
    the type that it computes in, as `load` has them, so that a token reads half of what a trainer's
    float32 weights would be."""
    graphdef, state = nnx.split(model)

    def narrowed(path, x):
        cast = path[0].key != VQ and path[-1].key.endswith(CAST)
        return x.astype(model.config.dtype) if cast else x

    params = jax.tree.map_with_path(narrowed, nnx.to_pure_dict(state))
    with own_jax(model):
        return serving(nnx.merge(graphdef, params))


def on_each(model, put=jax.device_put):
    """A model in the form that decodes with what a token reads whole along `fsdp` on every device. Such
    a token moves activations between devices and no weights.

    put: (array, sharding) -> the array there.
    """
    whole = lambda x: put(x, x.sharding.update(spec=sh.gathered(x.sharding.spec)))
    out = copy.copy(model)
    for name in READ:
        if hasattr(model, name):
            setattr(out, name, jax.tree.map(whole, getattr(model, name)))
    return out
