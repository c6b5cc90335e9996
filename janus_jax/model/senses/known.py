"""Further senses (paper section 3.5), each a folder of this package; docs/new_modality.md is the
recipe. What data and configs need of them, without JAX.

The folder's name is the sense's. Its `inputs.py` defines `Sizes`, a frozen dataclass of whole
numbers, each with a default, that `model.senses.<name>` of a config sets; and of them

    tokens      how many tokens one input becomes
    shape       of one input's array; its `dtype`
    width       of the features that its encoder gives
    suffixes    of its files
    array(file) one input: a path, the bytes of a file, or an array, as `shape` says. Raises ValueError
                with what is wrong and the remedy, OSError
    problems()  what is wrong with the sizes: (field, reason and remedy) pairs
    flops()     forward FLOPs of its encoder for one input

and its `encoder.py` an `Encoder`, see wiring.py.
"""

import functools
import importlib
import pkgutil
import sys

from janus_jax.model.batch import SLOTS


def names() -> tuple[str, ...]:
    """The senses that there are."""
    return _names(tuple(sys.modules[__package__].__path__))


@functools.cache
def _names(folders: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(x.name for x in pkgutil.iter_modules(folders) if x.ispkg))


def sizes_of(name: str, given: dict[str, int]):
    """The `Sizes` of a sense that there is, the given ones set."""
    return importlib.import_module(f"janus_jax.model.senses.{name}.inputs").Sizes(**given)


def sizes(config) -> dict:
    """name -> its `Sizes`, of the senses of a JanusConfig."""
    return {name: sizes_of(name, config.senses[name]) for name in sorted(config.senses)}


def roles(config) -> dict[str, int]:
    """kind of slot -> the role of its tokens, of a model: batch.SLOTS, then its senses by name."""
    first = 1 + max(SLOTS.values())
    return SLOTS | {name: role for role, name in enumerate(sorted(config.senses), first)}


def arrays(config, rows: int, inputs: int) -> dict[str, tuple]:
    """name -> (shape, dtype) of a batch's arrays with so many inputs of each sense in a row."""
    return {name: ((rows, inputs, *of.shape), of.dtype) for name, of in sizes(config).items()}


def told(config, children) -> dict[str, int]:
    """The sizes of those senses whose encoders are among some children, by their field of the
    config."""
    own = {name: of for name, of in sizes(config).items() if f"{name}_encoder" in children}
    return {f"senses.{name}.{size}": x for name, of in own.items() for size, x in vars(of).items()}
