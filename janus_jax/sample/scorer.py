"""Scores by a function of the user's: `janus-jax data score --scorer=module:function`.

It is called `function(pictures, captions)` with a batch, a list of PIL images (RGB) and a list of
their captions, str, and returns as many numbers. A record with several captions has their mean.
"""

import importlib
import numbers
import os
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.fields import pictures
from janus_jax.data.sources import RecordError


def scorer_of(name: str) -> Callable:
    """The function that `module:function` names; the module lies where Python looks, or in the
    current folder. Raises UsageError."""
    module, colon, function = name.partition(":")
    if not (module and colon and function.isidentifier()):
        raise UsageError(f"--scorer={name}: give module:function, such as aesthetics:score")
    sys.path += [os.getcwd()] if os.getcwd() not in sys.path else []
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"--scorer={name}: {error}; name a function of a module that is here"
        ) from error
    if not callable(found):
        raise UsageError(f"--scorer={name}: is a {type(found).__name__}, needs a function")
    return found


def caption_reader(source):
    """What `label.label_share` reads: number of a record -> (its captions, its picture)."""

    def read(i: int):
        count = len([ref for ref in pictures(source.raw(i)) if ref is not None])
        if count != 1:
            raise RecordError(
                "no picture" if not count else "several pictures",
                f"{source.where(i)}: has {count} pictures, and a scorer looks at one",
            )
        record = source[i]
        if "document" in record:
            raise RecordError("a document", f"{source.where(i)}: is a document, with no caption")
        found = record.get("captions")
        if found is None:
            answer = next(turn for turn in record["messages"] if turn.role == "assistant")
            found = [" ".join(answer.texts)]
        picture = source.image(i)
        return found, picture if isinstance(picture, Image.Image) else Image.fromarray(picture)

    return read


def scored_by(function: Callable, things: list[tuple]) -> list:
    """The function's score of each record, six decimals, or the RecordError of one that is no finite
    number. things: what `caption_reader` reads. Raises UsageError for anything but a number for
    each."""
    shown = [picture for captions, picture in things for _ in captions]
    told = [caption for captions, _ in things for caption in captions]
    found = function(shown, told)
    try:
        found = [getattr(x, "item", lambda x=x: x)() for x in found]  # of numpy, JAX, torch
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"--scorer: gave {type(found).__name__}: {error}; give a number each"
        ) from error
    wrong = [x for x in found if isinstance(x, bool) or not isinstance(x, numbers.Real)]
    if wrong or len(found) != len(told):
        kind = f", a {type(wrong[0]).__name__} among them" if wrong else ""
        raise UsageError(
            f"--scorer: gave {len(found)} values for {len(told)} pictures{kind}; give a number each"
        )
    each = iter(found)
    means = [float(np.mean([next(each) for _ in captions])) for captions, _ in things]
    return [
        round(x, 6) if np.isfinite(x) else RecordError("no number", f"the scorer says {x}")
        for x in means
    ]
