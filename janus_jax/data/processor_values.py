"""What the numbers and words of a processor can be."""

import collections
import itertools
import numbers

from janus_jax.common import float32
from janus_jax.data.messages import SPECIALS
from janus_jax.model.config import JanusConfig


def value_problems(processor) -> list[str]:
    """A line for each value of a `Processor` that cannot be: its name, the value, the rule."""
    found = [
        f"{name} is {str(getattr(processor, name))[:60]}: must be {due}"
        for names, fits, due in RULES
        for name in names
        if not fits(getattr(processor, name))
    ]
    return found + [
        f"{name} is {str(x)[:60]!r}: must be text"
        for name, x in vars(processor.template).items()
        if not isinstance(x, str) or (name != "system" and not x)
    ]


def misfits(processor, config: JanusConfig) -> list[str]:
    """In what a `Processor` is not the processor of a model of these sizes."""
    vocabulary = config.transformer.vocabulary
    found = [
        f"{box.partition('_')[0]}_tokens is {here}, the model's {getattr(config, box).tokens}"
        for box, here in (
            ("understanding_encoder", processor.understanding_tokens),
            ("generation_encoder", processor.generation_tokens),
        )
        if here != getattr(config, box).tokens
    ]
    pieces = config.understanding_encoder.pieces
    most = max(pieces * processor.understanding_tokens + 2, processor.generation_tokens)
    if processor.context <= most:
        found.append(
            f"context (or max_position_embeddings, model_max_length) is {processor.context}, and a "
            f"picture takes {most} tokens of it"
        )
    ids = {name: getattr(processor.tokenizer, name) for name in SPECIALS}
    beyond = [
        f"{name} ({SPECIALS[name]}) is {i}, beyond the model's vocabulary of {vocabulary}"
        for name, i in ids.items()
        if i >= vocabulary
    ]
    if not beyond and len(processor.tokenizer) > vocabulary:
        beyond = [f"its tokenizer has {len(processor.tokenizer)} ids, the model {vocabulary}"]
    return found + beyond


def check_room(context: int, total: int, sizes: list[int], new: int, where: str = "conversation"):
    """Refuses a prompt of `total` tokens that leaves no room for `new` ones, with the sum. sizes: the
    tokens of each of its pictures, their marks too."""
    over = total + new - context
    if over <= 0:
        return
    counts = collections.Counter(sizes).items()
    pictures = [f"{n} pictures x {each} + " for each, n in counts]
    shown = f"{''.join(pictures)}{total - sum(sizes):,} of text = " if sizes else ""
    gone = list(itertools.accumulate(sorted(sizes, reverse=True)))
    spare = next((n for n, tokens in enumerate(gone, 1) if tokens >= over), 0)
    remedy = f"leave out {spare} pictures" if spare else f"shorten the text by {over:,} tokens"
    raise ValueError(
        f"{where}: {shown}{total:,} tokens and {new:,} to come make {total + new:,}, the "
        f"context is {context:,}: {remedy}"
    )


def _whole(x) -> bool:
    return isinstance(x, numbers.Integral) and not isinstance(x, bool)


def _number(x) -> bool:
    return isinstance(x, numbers.Real) and not isinstance(x, bool) and float32.finite(x)


def channels(x):
    """A number a channel as a tuple; one number stands for all three."""
    if _number(x):
        return (x,) * 3
    return tuple(x) if isinstance(x, list | tuple) else x


def _three(fits):
    return lambda x: isinstance(x, tuple) and len(x) == 3 and all(map(fits, x))


RULES = (
    (
        ("understanding_tokens", "generation_tokens", "context"),
        lambda x: _whole(x) and x > 0,
        "a whole number, 1 or more",
    ),
    (
        ("cfg_scale", "temperature"),
        lambda x: _number(x) and x >= 0,
        "a finite number in float32, 0 or more",
    ),
    (("image_mean",), _three(_number), "3 finite numbers in float32"),
    (("image_std",), _three(lambda x: _number(x) and x > 0), "3 finite numbers above 0 in float32"),
    (
        ("background",),
        _three(lambda x: _whole(x) and 0 <= x <= 255),
        "3 whole numbers from 0 to 255",
    ),
)
