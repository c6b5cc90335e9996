"""A batch with the examples of some kinds alone (experiments C, E and F of the paper's Table 5).

The others are drawn, read and packed as ever, and then taken out; nothing takes their place. So a
stage sees of the kinds it keeps the very examples, at the very steps, that a stage sees which keeps
them all.
"""

import numpy as np

from janus_jax.common.text import near, short
from janus_jax.data.sources import SourceError
from janus_jax.model import batch as bt

PICTURES = {
    "understanding_images": "understanding",
    "generation_images": "generation",
    "image_ids": "generation",
    "generation_sizes": "generation",
}


def kinds_kept(keep: str) -> tuple[str, ...]:
    """The kinds that an option such as "understanding+text" names; all of them where it is
    empty."""
    return tuple(kind for kind in bt.TASKS if not keep or kind in keep.split("+"))


def keep_problems(path: str, keep: str, ratio: dict[str, float]) -> list[str]:
    """What is wrong with the option.

    path: of the stage, for messages.
    keep: the option.
    ratio: examples of each kind that the stage draws.
    """
    named = keep.split("+") if keep else []
    told = f"{path}.options.keep is {short(keep)!r}"
    found = [
        f"{told}: {short(kind)!r} is no kind of example{near(kind, bt.TASKS)}; join two of them "
        f"with a plus"
        for kind in named
        if kind not in bt.TASKS
    ]
    found += [
        f"{told}: names {kind} twice; name each kind once"
        for kind in bt.TASKS
        if named.count(kind) > 1
    ]
    found += [
        f"{told}: {path}.ratio draws no {kind}, so that there is none to keep"
        for kind in bt.TASKS
        if kind in named and not ratio[kind]
    ]
    if named and not found and all(kind in named for kind in bt.TASKS if ratio[kind]):
        found.append(
            f"{told}: {path}.ratio draws nothing else, so that it removes nothing; leave it out"
        )
    return found


def only(kinds: tuple[str, ...], batch: dict, examples: np.ndarray) -> tuple[dict, np.ndarray]:
    """A batch (numpy) and its examples, as in model/batch.py, without those of other kinds.

    What stays of a row moves to its front, as packing leaves rows: examples one after the other,
    then padding. A kind's pictures, which no other kind reads, stay where they are, or the batch
    has room for none: then the step is compiled without their encoder. Raises SourceError for
    edits and conversations that draw, which are of both kinds.
    """
    if len(kinds) == len(bt.TASKS):
        return batch, examples
    drawing = batch["tasks"] == 1 + bt.TASKS.index("generation")
    if (drawing & (batch["understanding_slots"] > 0)).any() or _says(batch, drawing):
        raise SourceError(
            f"options.keep is {'+'.join(kinds)!r}, and the stage draws edits or conversations that draw, "
            "which read pictures or say words as understanding does; leave keep out, or the data set of these"
        )
    codes = [1 + bt.TASKS.index(kind) for kind in kinds]
    stays = np.isin(batch["tasks"], codes)  # [B, T]
    order = np.argsort(~stays, axis=1, kind="stable")
    stays = np.take_along_axis(stays, order, axis=1)
    out = {}
    for name, x in batch.items():
        # Inputs of further senses have slots of their name, and are read as pictures are.
        kind = PICTURES.get(name) or ("understanding" if f"{name}_slots" in batch else "")
        if kind:
            if kind in kinds:
                out[name] = x
            elif name == "image_ids":  # JAX cannot flatten none of them
                out["generation_images"] = np.zeros((len(x), 0, 1, 1, 3), np.uint8)
            else:
                out[name] = x[:, :0]
            continue
        moved = np.take_along_axis(x, order, axis=1)
        out[name] = np.where(stays, moved, bt.IGNORE if name == "text_targets" else 0)
    begins = np.diff(out["segment_ids"], axis=1, prepend=0) > 0
    segments = np.cumsum(begins, axis=1, dtype=np.int32)
    out["segment_ids"] = np.where(stays, segments, 0)
    return out, of_kinds(kinds, examples)


def _says(batch: dict, drawing: np.ndarray) -> bool:
    """Whether an example of a batch draws and has words to predict: those count as understanding's."""
    segments = batch["segment_ids"]
    number = segments + (segments.max() + 1) * np.arange(len(segments))[:, None]
    return bool(np.intersect1d(number[drawing], number[batch["tasks"] == 1]).size)


def of_kinds(kinds: tuple[str, ...], examples: np.ndarray) -> np.ndarray:
    """Those lines of a batch's examples."""
    codes = [1 + bt.TASKS.index(kind) for kind in kinds]
    return examples[np.isin(examples[:, bt.EXAMPLE_COLUMNS.index("code")] % bt.TRUNCATED, codes)]
