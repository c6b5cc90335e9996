"""The contract between the data and the model: names, shapes and dtypes of everything that crosses.

A record becomes a Sequence (one example), Sequences are packed into rows, rows make a batch.
Letters: B rows, T tokens of a row, M pictures of a row to understand, G pictures of a row to generate,
N image tokens of a picture, S side in pixels.

Sequence, a dict of aligned arrays (n tokens; pixels come in after packing):
    tokens      int32 [n]   text ids; on image slots the placeholder id
    role        int8  [n]   TEXT, PICTURE (a slot of a picture to understand), IMAGE (an image id slot)
    supervised  int8  [n]   1 where the token is to be predicted (IMAGE slots always are)
    pictures    int64 [m]   which of the record's pictures fill the PICTURE slots, in order
    images      int64 [g]   likewise for the IMAGE slots
    example     int32 [1]   task code (1 understanding, 2 text, 3 generation), plus TRUNCATED if text was cut

Batch, a dict of arrays:
    tokens         int32 [B, T]
    text_targets   int32 [B, T]           the id to predict at this position, IGNORE where there is none
    image_targets  int32 [B, T]           0, or 1 + index into the row's G*N image ids to predict here
    picture_slots  int32 [B, T]           0, or 1 + index into the row's M*N picture features to read here
    image_slots    int32 [B, T]           0, or 1 + index into the row's G*N image ids to read here
    positions      int32 [B, T]           restart with each example
    segment_ids    int32 [B, T]           1, 2, ... by example, 0 for padding
    tasks          int32 [B, T]           task code of the example, 0 for padding (metrics only)
    pictures       uint8 [B, M, S, S, 3]  pictures to understand
    images         uint8 [B, G, S, S, 3]  pictures to generate, or
    image_ids      int32 [B, G, N]        their ids, when the records carry them
"""

import numpy as np

TEXT, PICTURE, IMAGE = 0, 1, 2
TASKS = ("understanding", "text", "generation")
TRUNCATED = 8
IGNORE = -1


def sequence(spans, task: str, pictures=(), images=(), truncated: bool = False) -> dict[str, np.ndarray]:
    """A Sequence from spans (ids, role, supervised), each a list of ids with one role and one flag."""
    tokens = np.concatenate([np.asarray(ids, np.int32) for ids, _, _ in spans])
    role, supervised = (
        np.concatenate([np.full(len(span[0]), span[i], np.int8) for span in spans]) for i in (1, 2)
    )
    return {
        "tokens": tokens,
        "role": role,
        "supervised": supervised,
        "pictures": np.asarray(pictures, np.int64),
        "images": np.asarray(images, np.int64),
        "example": np.asarray([1 + TASKS.index(task) + TRUNCATED * truncated], np.int32),
    }


def shapes(rows: int, length: int, pictures: int, images: int, model, precomputed: bool = False) -> dict:
    """name -> (shape, dtype) of a batch, for a `model.config.JanusConfig`."""
    s, vq = model.understanding_encoder.image_size, model.generation_encoder
    out = {
        name: ((rows, length), np.int32)
        for name in (
            "tokens", "text_targets", "image_targets", "picture_slots", "image_slots", "positions",
            "segment_ids", "tasks",
        )
    }  # fmt: skip
    out["pictures"] = ((rows, pictures, s, s, 3), np.uint8)
    if precomputed:
        out["image_ids"] = ((rows, images, vq.tokens), np.int32)
    else:
        out["images"] = ((rows, images, vq.image_size, vq.image_size, 3), np.uint8)
    return out


def pixels(images, mean=0.5, std=0.5):
    """uint8 [0, 255], numpy or JAX, to float32 (x / 255 - mean) / std: [-1, 1] unless a processor's numbers for
    pictures to understand, one a channel, say otherwise."""
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return images.astype(np.float32) / (255 * std) - mean / std
