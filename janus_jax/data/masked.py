"""Pictures to draw as masked ones (MaskGIT, arXiv 2202.04200; beside text as in Show-o, arXiv
2408.12528).

A part of a picture's ids is masked: there the model reads the placeholder's embedding and predicts
the id, at its own position, from the whole picture. The part is cos(u * pi / 2), u uniform in [0, 1):
all of them at first when a picture is drawn, few in its last step.
"""

import numpy as np

from janus_jax.model import batch as bt


def mask(example: dict, rng: np.random.Generator) -> dict:
    """A Sequence whose GENERATION_SLOTs are to be predicted as far as they are masked, at least
    one."""
    slots = np.flatnonzero(example["supervised"] & (example["role"] == bt.GENERATION_SLOT))
    count = max(1, round(len(slots) * np.cos(rng.random() * np.pi / 2)))
    known = rng.permutation(slots)[count:]
    supervised = example["supervised"].copy()
    supervised[known] = 0
    return example | {"supervised": supervised}


def drawn_row(row: dict, model) -> dict:
    """What `packing.assemble` makes of such examples, as the model reads it (see model/batch.py):
    targets at their own slots, which read no id, and `ahead` of the pictures that have any."""
    slots = row["generation_slots"]
    targets = np.where(np.append(0, row["image_targets"][:-1]) > 0, slots, 0)
    here = slots > 0
    ends = np.flatnonzero(here & ~np.append(here[1:], False))  # text stands between two pictures
    at = np.arange(len(slots))
    left = np.append(ends, 0)[np.searchsorted(ends, at)] - at
    picture = np.where(here, np.searchsorted(ends, at), -1)
    drawn = here & np.isin(picture, picture[targets > 0])
    return row | {
        "image_targets": targets,
        "generation_slots": np.where(targets > 0, 0, slots),
        "ahead": np.where(drawn, left, 0).astype(np.int32),
    }
