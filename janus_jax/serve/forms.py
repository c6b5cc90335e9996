"""What the forms of all requests share. Types are strict; a field that is not known is refused, and
so is one of OpenAI's that nothing here reads, unless its value asks for what is done anyway.
"""

import dataclasses
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo

from janus_jax.sample.options import RULES
from janus_jax.serve.errors import told

LEAST = 1e-37  # a share of the mass that no second token fits in, and a normal number of float32


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a form is checked against, as pydantic's context. context: tokens of prompt and answer;
    size: "WIDTHxHEIGHT" of a drawing, sizes: those that the model draws besides; max_n, max_pictures:
    see Settings."""

    context: int
    size: str
    max_n: int
    max_pictures: int
    sizes: tuple[str, ...] = ()


class Form(BaseModel):
    """A JSON object of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def unread(reason: str, *allowed):
    """The type of a field that nothing reads. allowed: the values besides null that ask for what is
    done anyway."""

    def check(value):
        if value is None or any(type(value) is type(x) and value == x for x in allowed):
            return None
        but = f", or give {' or '.join(map(repr, allowed))}" if allowed else ""
        raise ValueError(f"{told(value)} cannot be followed: {reason}; leave it out{but}")

    return Annotated[Any, BeforeValidator(check)]


def ruled(name: str):
    """The check of an option by its rule in `sample.options`."""
    fits, rule = RULES[name]

    def check(value):
        if value is not None and not fits(value):
            raise ValueError(f"is {told(value)}: {rule}")
        return value

    return AfterValidator(check)


def _drawn_size(value, info: ValidationInfo):
    limits = info.context
    if value not in (None, "auto", limits.size, *limits.sizes):
        known = ", ".join((limits.size, *limits.sizes))
        give = "one of these" if limits.sizes else "it"
        raise ValueError(
            f"is {told(value)}: this model draws {known}; give {give}, or leave it out"
        )
    return value


def _likeliest(value):
    """top_p 0 keeps the likeliest token alone, as in OpenAI's form; harnesses send it."""
    return LEAST if value == 0 else value


def _count(value, info: ValidationInfo):
    most = info.context.max_n
    if value is not None and not 1 <= value <= most:
        raise ValueError(
            f"is {told(value)}: must be 1 to {most} (--max_n); send several requests for more"
        )
    return value


Scale = Annotated[float | None, ruled("cfg_scale")]
Temperature = Annotated[float | None, ruled("temperature")]
TopP = Annotated[float | None, AfterValidator(_likeliest), ruled("top_p")]
Seed = Annotated[int | None, ruled("seed")]
Count = Annotated[int | None, AfterValidator(_count)]
Size = Annotated[str | None, AfterValidator(_drawn_size)]  # of a drawing of words
