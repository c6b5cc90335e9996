"""What `generate` and `understand` are asked for, checked all at once before anything runs."""

import numbers
import secrets
from collections.abc import Iterable, Mapping

import numpy as np

FLOAT32 = np.finfo(np.float32)
LAST = 2**31 - 1  # the highest number of a picture


def _within(x, low: float, high: float) -> bool:
    return isinstance(x, numbers.Real) and not isinstance(x, bool) and low <= x <= high


def _whole(x, low: int, high: int) -> bool:
    return isinstance(x, numbers.Integral) and not isinstance(x, bool) and low <= x <= high


RULES = {
    "cfg_scale": (
        lambda x: _within(x, 0, 1e30),
        "must be a finite number in float32, 0 to 1e30 (0 ignores the prompt, 1 is no guidance, 5 "
        "is the paper's)",
    ),
    "image_cfg_scale": (
        lambda x: _within(x, 0, 1e30),
        "must be a finite number in float32, 0 to 1e30 (0 ignores the pictures, 1 is no guidance by "
        "them)",
    ),
    "temperature": (
        lambda x: _within(x, 0, float(FLOAT32.max)),
        "must be a finite number in float32, 0 or more (0 takes the likeliest each time, 1 samples "
        "as the model says)",
    ),
    "top_p": (lambda x: _within(x, 0, 1) and x > 0, "must be in (0, 1]; 1 keeps every token"),
    "max_new_tokens": (
        lambda x: _whole(x, 1, 2**31 - 1),
        "must be a whole number, at least 1, and what the context has room for",
    ),
    "images_per_prompt": (
        lambda x: _whole(x, 1, 100_000),
        "must be a whole number, at least 1 (--n of the command), at most 100,000: draw more with "
        "another seed",
    ),
    "first": (lambda x: _whole(x, 0, LAST), "must be a whole number from 0 to 2147483647"),
    "seed": (lambda x: _whole(x, 0, 2**32 - 1), "must be a whole number from 0 to 4294967295"),
    "progress": (callable, "must be a function of (done, total), or None"),
    "stream": (callable, "must be a function that takes text, or None"),
}
RULES |= {"max_images": RULES["first"], "image_temperature": RULES["temperature"]}
FLOATS = {"cfg_scale", "image_cfg_scale", "temperature", "image_temperature", "top_p"}


def check(**options):
    """Raises ValueError with a line for each option outside its rule: its name, its value, and the
    rule. None is an option that is not given."""
    problems = []
    for name, x in options.items():
        if x is not None and not RULES[name][0](x):
            kind = "" if isinstance(x, numbers.Number) else f", not a {type(x).__name__}"
            # Python writes no decimal number of more than 4,300 digits
            told = f"{x:#x}" if isinstance(x, int) and x.bit_length() > 999 else str(x)
            value = " ".join(told.split())[:60]
            problems.append(f"{name} is {value}: {RULES[name][1]}{kind}")
    if problems:
        raise ValueError("\n".join(problems))


def given(value, default):
    return default if value is None else value


def _plain(x):
    """A scalar of numpy, JAX or torch as Python's number."""
    try:
        return x.item() if getattr(x, "ndim", None) == 0 else x
    except NotImplementedError:  # a key of JAX
        return x


def settled(**options) -> list:
    """The values of options, checked, in the precision that computes: float32, where a temperature
    too small to divide by is 0. Raises ValueError."""
    options = {name: _plain(x) for name, x in options.items()}
    check(**options)
    for name in FLOATS & set(options):
        x = float(np.float32(options[name]))
        least = float(FLOAT32.tiny)
        options[name] = max(x, least) if name == "top_p" else x if x >= least else 0.0
    return list(options.values())


def seeds(seed, count: int, of: str) -> list[int]:
    """One number for all, one for each of the `count` rows, or None: a new one is drawn for each.
    Raises ValueError."""
    seed = _plain(seed)
    many = isinstance(seed, Iterable) and not isinstance(seed, str | bytes | Mapping)
    many = many and getattr(seed, "ndim", 1) > 0
    seed = [_plain(x) for x in seed] if many else [seed] * count
    if len(seed) != count:
        raise ValueError(f"seed has {len(seed)} numbers for {count} {of}: give one, or as many")
    for number in seed:
        check(seed=number)
    return [secrets.randbelow(2**32) if number is None else int(number) for number in seed]


def listed(many, name: str) -> list:
    """A list of what one text, a list, a numpy array, a column or a generator holds. Raises
    ValueError, also where it holds nothing."""
    if getattr(many, "ndim", 1) > 1 or isinstance(many, set | frozenset):
        raise ValueError(f"{name} is a {type(many).__name__}: give a list, or one column of it")
    if isinstance(many, str | bytes | Mapping) or not isinstance(many, Iterable):
        return [many]
    found = list(many) if getattr(many, "ndim", 1) else [many.item()]
    found = [str(x) if isinstance(x, str) else x for x in found]  # numpy's have a type of their own
    if not found:
        raise ValueError(f"{name}: 0 {name} were given; give at least one")
    return found


def require(model, processor):
    """Raises TypeError for what is not the pair that `janus_jax.load` returns, and ValueError for a
    processor that is not of this model: other ids, other numbers of image tokens, or another
    tokenizer than that of the weights which the model was loaded from."""
    for name, value, mark in ("model", model, "transformer"), ("processor", processor, "tokenizer"):
        if not hasattr(value, mark):
            raise TypeError(
                f"{name} is a {type(value).__name__}: give both, in this order, as "
                "`model, processor = janus_jax.load(path)` returns them"
            )
    problems = processor.misfits(model.config)
    theirs = getattr(model, "tokenizer_fingerprint", processor.tokenizer.fingerprint)
    if theirs != processor.tokenizer.fingerprint:
        problems.append(f"its tokenizer is {processor.tokenizer.fingerprint}, the model's {theirs}")
    if problems:
        raise ValueError(
            f"processor: not of this model: {'; '.join(problems)}. Take both from one "
            "janus_jax.load(path)"
        )


def require_ids(config):
    """Raises ValueError for a model that does not draw one id after the other, as an engine does."""
    why = {
        "image_head is 'diffusion', which draws latents and no ids": config.image_head
        == "diffusion",
        "image_head is 'depth', several codes a token": config.image_head == "depth",
        "drawing is 'masked', all image tokens at once": config.drawing == "masked",
        "drawing is 'scales', all image tokens of a scale at once": config.drawing == "scales",
    }
    for told in (told for told, is_so in why.items() if is_so):
        raise ValueError(
            f"this model's {told}: an engine, and a server, only answers with it; draw from words with "
            "janus_jax.generate, edit with a causal model of ids"
        )
