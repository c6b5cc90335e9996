"""Pictures and questions to words: `janus_jax.understand`."""

import functools
import importlib
from collections.abc import Iterable, Mapping

import numpy as np

from janus_jax.common.arguments import require_flags
from janus_jax.data.image_parts import open_picture
from janus_jax.data.image_pixels import ImageError
from janus_jax.data.images import understanding_image
from janus_jax.model import batch as bt
from janus_jax.sample import options
from janus_jax.sample.answer import Answer
from janus_jax.sample.decode import features, text_ids
from janus_jax.sample.reading import Prompt


def understand(
    model, processor, conversation, *, max_new_tokens=512, temperature=0.0, top_p=1.0, seed=0, stop=(),
    stream=None,
) -> str:  # fmt: skip
    """The assistant's next answer in a conversation.

    conversation: chat messages {"role": "user" | "assistant" | "system", "content": str or parts},
        parts being {"type": "text", "text": ...}, {"type": "image", "image": PIL image or path}
        (also "path", "url" with a path or data URI, or OpenAI's "image_url"), and of a further sense
        of the model {"type": "points", "points": path, bytes or numbers}; or the original
        code's form, content with `<image_placeholder>` for each entry of the message's "images".
    max_new_tokens, temperature, top_p, seed, stop: None is the default. temperature 0 is greedy;
        top_p keeps the likeliest mass; a seed None is drawn.
    The answer ends at the end of sentence, where the model begins another turn by the id of a role,
        at a string of `stop`, and at the latest where the processor's context is full. stream(text)
        is called with each new stretch of the answer. Raises ValueError that lists what cannot be
        used, by option, message and part.
    """
    numbers = dict(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed, stop=stop
    )
    options.check(stream=stream)
    tell = None if stream is None else lambda row, text: stream(text)
    return understand_batch(model, processor, [conversation], stream=tell, **numbers)[0]


def understand_batch(
    model, processor, conversations, *, max_new_tokens=512, temperature=0.0, top_p=1.0, seed=0, stop=(),
    stream=None, return_exceptions=False,
) -> list:  # fmt: skip
    """`understand` for several conversations at once, of any lengths and numbers of pictures: each
    answer is what it would be alone. seed: one number, or one a conversation. stream(row, text).
    return_exceptions: a conversation that cannot be used, as for a picture that is not there, has
    its ValueError in place of its answer, and the others are answered."""
    options.require(model, processor)
    given = options.given
    require_flags(return_exceptions=given(return_exceptions, False))
    max_new_tokens, temperature, top_p, _ = options.settled(
        max_new_tokens=given(max_new_tokens, 512), temperature=given(temperature, 0.0),
        top_p=given(top_p, 1.0), stream=stream,
    )  # fmt: skip
    stop = stops(stop)
    conversations = options.listed(conversations, "conversations")
    seed = options.seeds(seed, len(conversations), "conversations")
    found = _prepare_all(processor, conversations, model.config, return_exceptions)
    usable = [i for i, prepared in enumerate(found) if isinstance(prepared, tuple)]
    if not usable:
        return found
    asked = [found[i] for i in usable]
    most = [min(max_new_tokens, processor.context - len(ids)) for ids, *_ in asked]
    answers = [
        answer_of(processor, stop, n, stream and functools.partial(stream, row))
        for row, n in zip(usable, most)
    ]

    def tell(i, ids):
        answers[i].add(ids)
        return answers[i].done

    text_ids(
        model, prompts_of(model, processor, asked), [seed[i] for i in usable], processor.tokenizer.eos,
        temperature, top_p, most, tell, often=stream is not None,
    )  # fmt: skip
    for i, answer in zip(usable, answers):
        found[i] = answer.text
    return found


def answer_of(processor, stop: tuple[str, ...], most: int, emit=None) -> Answer:
    """An `Answer` that ends also where the model begins another turn by the id of a role."""
    tokenizer = processor.tokenizer
    roles = map(tokenizer.control, (processor.template.user, processor.template.assistant))
    return Answer(tokenizer, {tokenizer.eos, *roles} - {None}, stop, most, emit)


def prompts_of(model, processor, asked: list[tuple]) -> list[Prompt]:
    """What `prepare` made of each conversation, its pictures seen."""
    pictures = [picture for _, _, own, *_ in asked for picture in own]
    seen = iter(())
    if pictures:
        shown = bt.pixels(np.stack(pictures), processor.image_mean, processor.image_std)
        seen = iter(features(model, shown))
    prompts = []
    for ids, slots, own, *more in asked:
        prompt = Prompt(ids)
        if len(own):
            rows = np.concatenate([next(seen) for _ in own])
            prompt.is_shown = slots > 0
            prompt.shown = rows[np.maximum(slots - 1, 0)]
        if more:
            senses().show(model, prompt, *more)
        prompts.append(prompt)
    return prompts


def senses():
    """Loaded for models that have any."""
    return importlib.import_module("janus_jax.sample.senses")


def stops(stop) -> tuple[str, ...]:
    """The strings that end an answer: None, one, or several. Raises ValueError."""
    if stop is None or isinstance(stop, str):
        found = () if stop is None else (stop,)
    else:
        plain = isinstance(stop, Iterable) and not isinstance(stop, bytes | Mapping)
        found = tuple(stop) if plain else (stop,)
    for one in found:
        if not isinstance(one, str) or not one:
            raise ValueError(
                f"stop is {str(stop)[:60]!r}: must be a string that is not empty, a list of them, "
                "or None"
            )
    return found


def _prepare_all(processor, conversations: list, config, return_exceptions: bool) -> list:
    """`prepare` of each, or its ValueError, as return_exceptions asks for; else one ValueError
    lists the problems of all, by conversation where there are several."""
    out = []
    problems = []
    for i, conversation in enumerate(conversations):
        try:
            if config.senses:
                out.append(senses().prepared(processor, conversation, config))
            else:
                out.append(prepare(processor, conversation, config.understanding_encoder))
        except ValueError as error:
            if len(conversations) == 1 and not return_exceptions:
                raise
            out.append(error)
            problems += [f"conversations[{i}]: {line}" for line in str(error).splitlines()]
    if problems and not return_exceptions:
        raise ValueError("\n".join(problems))
    return out


def prepare(processor, conversation, tower):
    """A conversation's ids and picture slots (int32 [n]) and its pictures, or their tiles, uint8 [M,
    side, side, 3].

    tower: the UnderstandingEncoderConfig that says how large they are, and how they are cut.
    Raises ValueError; of pictures that cannot be read, it lists all.
    """
    conversation, tiles = counted(conversation, tower)
    return opened_pictures(processor, *processor.question(conversation, tiles), tower, tiles)


def counted(conversation, tower) -> tuple:
    """A conversation whose pictures are ready to be read, and how many tiles each of them has; as it
    is, and (), where pictures are not cut."""
    if tower.tiles == 1:
        return conversation, ()
    return importlib.import_module("janus_jax.data.tiled_chat").opened(conversation, tower)


def opened_pictures(processor, spans: list[tuple], sources: list, tower, tiles=()):
    """`prepare` of a conversation's spans and of its pictures' sources, see Processor.question; tiles:
    as of `counted`."""
    side = tower.image_size
    tiled = importlib.import_module("janus_jax.data.tiled_chat") if tiles else None
    pictures = []
    problems = []
    for k, (source, where) in enumerate(sources):
        try:
            if tiles:
                pictures += list(
                    tiled.tiles_of(source, where, tower, processor.background, tiles[k])
                )
            else:
                picture = open_picture(source, where)
                pictures.append(understanding_image(picture, side, processor.background))
        except ImageError as error:
            problems.append(str(error))
    if problems:
        raise ImageError("\n".join(problems))
    ids = np.concatenate([span[0] for span in spans]).astype(np.int32)
    is_picture = np.concatenate(
        [np.full(len(span[0]), span[1] == bt.UNDERSTANDING_SLOT) for span in spans]
    )
    slots = np.where(is_picture, np.cumsum(is_picture), 0).astype(np.int32)
    return ids, slots, np.stack(pictures) if pictures else np.zeros((0, side, side, 3), np.uint8)
