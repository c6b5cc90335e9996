"""The whole model against transformers': pictures inside text, images to generate, both in a row."""

import jax.numpy as jnp
import numpy as np
import torch
from support import oracle
from support.outputs import integers, long, nchw, pictures, run, same

NAMES = (
    "tokens", "understanding_images", "image_ids", "understanding_slots", "generation_slots", "positions",
    "segment_ids",
)  # fmt: skip


def both_heads(m, *arrays):  # in the order of NAMES
    batch = dict(zip(NAMES, arrays, strict=True))
    h = m(batch, batch.pop("image_ids"))
    return jnp.concatenate([m.text_head(h), m.image_head(h)], -1)


def slots_of(mask):
    """0 outside the mask; inside, 1, 2, ... along each row."""
    return (np.cumsum(mask, 1) * mask).astype(np.int32)


def test_pictures_inside_text(theirs, ours):
    """Two pictures in row 0; one in row 1, whose second picture is a filler."""
    tokens = integers(13, 100, 2, 40)
    tokens[0, 2:18] = tokens[0, 21:37] = tokens[1, 7:23] = oracle.IMAGE_TOKEN
    images = pictures(14, 4, 32, 32).reshape(2, 2, 32, 32, 3)
    images[1, 1] = 0
    want = theirs(
        input_ids=long(tokens), pixel_values=nchw(images.reshape(4, 32, 32, 3)[:3])
    ).logits

    slots = slots_of(tokens == oracle.IMAGE_TOKEN)
    positions = np.tile(np.arange(40, dtype=np.int32), (2, 1))
    none, ids = np.zeros_like(tokens), np.zeros((2, 0), np.int32)
    got = run(both_heads, ours, tokens, images, ids, slots, none, positions, np.ones_like(tokens))
    same(got[..., :128], want)


def test_images_to_generate(theirs, ours):
    """Two images of 16 ids in row 0, one in row 1; both heads at every position."""
    tokens, ids = integers(15, 100, 2, 44), integers(16, 64, 2, 32)
    mask = np.zeros((2, 44), bool)
    mask[0, 6:22] = mask[0, 25:41] = mask[1, 11:27] = True
    embeds = theirs.get_input_embeddings()(long(tokens))
    embeds[torch.from_numpy(mask)] = theirs.prepare_embeddings_for_image_generation(
        torch.cat([long(ids[0]), long(ids[1, :16])])
    )
    hidden = theirs.model(inputs_embeds=embeds).last_hidden_state

    positions = np.tile(np.arange(44, dtype=np.int32), (2, 1))
    none, images = np.zeros_like(tokens), np.zeros((2, 0, 32, 32, 3), np.float32)
    got = run(
        both_heads, ours, tokens, images, ids, none, slots_of(mask), positions, np.ones_like(tokens)
    )
    same(got[..., :128], theirs.lm_head(hidden))
    same(got[..., 128:], theirs.model.generation_head(hidden))


def test_a_packed_row_of_everything(theirs, ours):
    """One row: a picture with its answer, then a prompt with its image; each equals itself
    alone."""
    tokens, ids, images = integers(17, 100, 1, 44), integers(18, 64, 1, 16), pictures(19, 1, 32, 32)
    tokens[0, 1:17] = oracle.IMAGE_TOKEN
    image_mask = np.zeros((1, 44), bool)
    image_mask[0, 26:42] = True
    first = theirs(input_ids=long(tokens[:, :21]), pixel_values=nchw(images)).logits
    embeds = theirs.get_input_embeddings()(long(tokens[:, 21:]))
    embeds[:, 5:21] = theirs.prepare_embeddings_for_image_generation(long(ids))
    second = theirs.model.generation_head(theirs.model(inputs_embeds=embeds).last_hidden_state)

    positions = np.concatenate([np.arange(21), np.arange(23)]).astype(np.int32)[None]
    segments = np.repeat(np.array([1, 2], np.int32), [21, 23])[None]
    slots = slots_of(tokens == oracle.IMAGE_TOKEN), slots_of(image_mask)
    got = run(both_heads, ours, tokens, images[None], ids, *slots, positions, segments)
    same(got[:, :21, :128], first)
    same(got[:, 21:, 128:], second)
