"""The contract between the data and the model: names, shapes and dtypes of everything that crosses.

A record becomes a Sequence (one example), Sequences are packed into rows, rows make a batch.
Letters: B rows, T tokens of a row, M images (tiles) of a row to understand, G to generate,
N image tokens of a picture, S side in pixels.

A slot is a position that reads something else than its token. Its kind says what: a picture as the
understanding encoder sees it, or image ids; SLOTS lists the kinds, each a role of a token. Those of
a model's further senses come after them (senses/known.py), with arrays that have their names.

Sequence, a dict of aligned arrays (n tokens; pixels come in after packing):
    tokens                int32 [n]   text ids; on slots the placeholder id
    role                  int8  [n]   TEXT, UNDERSTANDING_SLOT or GENERATION_SLOT
    supervised            int8  [n]   1 where the token, or a GENERATION_SLOT's image id, is to be
                                      predicted
    understanding_images  int64 [m]   which of the record's images fill its UNDERSTANDING_SLOTs, in
                                      order, a number again for each tile of an image that is cut
    generation_images     int64 [g]   likewise for its GENERATION_SLOTs
    example               int32 [1]   task code (1 understanding, 2 text, 3 generation), plus
                                      TRUNCATED if text was cut, plus CONTINUED if the rest of its
                                      text comes in a later row

Batch, a dict of arrays:
    tokens                int32 [B, T]
    text_targets          int32 [B, T]  the id to predict at this position, IGNORE where there is
                                        none
    image_targets         int32 [B, T]  0, or 1 + index into the row's G*N image ids to predict here
    understanding_slots   int32 [B, T]  0, or 1 + index into the row's M*N picture features to read
    generation_slots      int32 [B, T]  0, or 1 + index into the row's G*N image ids to read here
    positions             int32 [B, T]  restart with each example
    segment_ids           int32 [B, T]  1, 2, ... by example, 0 for padding
    tasks                 int32 [B, T]  code of the example, 1 at words beside drawings, 0: padding (metrics)
    ahead                 int32 [B, T]  of a model that draws `masked` or `scales` alone: how many
                                        tokens behind itself a token sees; then image_targets are
                                        predicted at their own slots (data/masked.py, data/scales.py)
    understanding_images  uint8 [B, M, S, S, 3]
    generation_images     uint8 [B, G, S, S, 3], or
    image_ids             int32 [B, G, N]  their ids, when the records carry them
    generation_sizes      int32 [B, G]  of a model that draws several sizes alone: 1 + the number of
                                        the picture's, in the upper left of [B, G, H, W, 3]; 0: none
    noise                 uint32 [B]    for a diffusion head: says which noise a row draws

Beside a batch stands which examples are in it, int64 [n, 6], an example a line, the columns
EXAMPLE_COLUMNS: its row among all hosts' rows, the number of its data set, its position in the data
set's order and the record found there, its code (`example` above) and its tokens.
"""

import importlib

import numpy as np

TEXT = 0
UNDERSTANDING_SLOT = 1
GENERATION_SLOT = 2
SLOTS = {"understanding": UNDERSTANDING_SLOT, "generation": GENERATION_SLOT}
TASKS = ("understanding", "text", "generation")
TRUNCATED = 8
CONTINUED = 16
GIVEN = 2  # the flag of a span of words that are read and not predicted; 0: of the template
IGNORE = -1
EXAMPLE_COLUMNS = ("row", "dataset", "position", "record", "code", "tokens")


def sequence(
    spans, task: str, understanding_images=(), generation_images=(), truncated: bool = False
) -> dict[str, np.ndarray]:
    """A Sequence from spans (ids, role, supervised), each a list of ids with one role and one
    flag, of which 1 alone says that they are to be predicted."""
    tokens = np.concatenate([np.asarray(ids, np.int32) for ids, _, _ in spans])
    role, supervised = (
        np.concatenate([np.full(len(span[0]), span[i], np.int8) for span in spans]) for i in (1, 2)
    )
    return {
        "tokens": tokens,
        "role": role,
        "supervised": (supervised == 1).astype(np.int8),
        "understanding_images": np.asarray(understanding_images, np.int64),
        "generation_images": np.asarray(generation_images, np.int64),
        "example": np.asarray([1 + TASKS.index(task) + TRUNCATED * truncated], np.int32),
    }


def shapes(rows, length, understanding_images, generation_images, model, precomputed=False) -> dict:
    """name -> (shape, dtype) of a batch, for a `model.config.JanusConfig`; the first four are a
    `Rows`. precomputed: pictures to generate come as ids."""
    slots = (f"{kind}_slots" for kind in (*SLOTS, *model.senses))
    names = "tokens", "text_targets", "image_targets", *slots, "positions", "segment_ids", "tasks"
    if model.drawing != "causal":
        names = *names, "ahead"
    images = image_shapes(rows, understanding_images, generation_images, model, precomputed)
    return dict.fromkeys(names, ((rows, length), np.int32)) | images


def image_shapes(rows, understanding_images, generation_images, model, precomputed=False) -> dict:
    """Of `shapes`, those of what slots read."""
    s = model.understanding_encoder.image_size
    vq = model.generation_encoder
    width, height = (max(sides) for sides in zip(*vq.all_sizes))
    drawn = (rows, generation_images, height, width, 3)
    found = {"understanding_images": ((rows, understanding_images, s, s, 3), np.uint8)} | (
        {"image_ids": ((*drawn[:2], vq.tokens), np.int32)}
        if precomputed
        else {"generation_images": (drawn, np.uint8)}
        | ({"generation_sizes": (drawn[:2], np.int32)} if vq.sizes else {})
    )
    if model.senses:
        known = importlib.import_module("janus_jax.model.senses.known")
        found |= known.arrays(model, rows, understanding_images)
    return found


def image_slots(batch):
    """1 + index into the row's G*N image ids, of those that a position reads or that are masked
    there, else 0."""
    slots = batch["generation_slots"]
    return slots if "ahead" not in batch else slots | batch["image_targets"]


def pixels(images, mean=0.5, std=0.5):
    """uint8 [0, 255], numpy or JAX, to float32 (x / 255 - mean) / std: [-1, 1] unless a processor's
    numbers for pictures to understand, one a channel, say otherwise."""
    mean = np.asarray(mean, np.float32)
    std = np.asarray(std, np.float32)
    return images.astype(np.float32) / (255 * std) - mean / std


def count_examples(examples: np.ndarray) -> dict[str, int]:
    """How many of a batch's examples (columns EXAMPLE_COLUMNS) are of each task, and how many were
    truncated."""
    codes = examples[:, EXAMPLE_COLUMNS.index("code")]
    counts = {task: int((codes % TRUNCATED == i + 1).sum()) for i, task in enumerate(TASKS)}
    return counts | {"truncated": int((codes & TRUNCATED > 0).sum())}
