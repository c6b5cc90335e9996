"""Pictures to draw scale by scale (VAR, arXiv 2404.02905): what a row says of their ids."""

import numpy as np


def drawn_row(row: dict, model) -> dict:
    """What `packing.assemble` makes of examples, as the model reads it (see model/batch.py): every id
    is a target at its own slot, and `ahead` is the rest of its scale.

    A slot says which picture, scale and place it is; what is read there is made of the coarser scales
    alone (model/next_scale.py).
    """
    sizes = np.square(model.generation_encoder.scales)
    left = np.repeat(np.cumsum(sizes), sizes) - 1 - np.arange(sizes.sum())
    slots = row["generation_slots"]
    predicted = np.append(0, row["image_targets"][:-1]) > 0
    return row | {
        "image_targets": np.where(predicted, slots, 0),
        "ahead": np.where(slots > 0, left[(slots - 1) % len(left)], 0).astype(np.int32),
    }
