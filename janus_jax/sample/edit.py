"""Pictures and words to a picture: `janus_jax.edit`."""

import numpy as np

from janus_jax.common.arguments import require_flags
from janus_jax.sample import decode, options
from janus_jax.sample.edit_prompts import branches_of, edit_prompt, request
from janus_jax.sample.generate import decode_ids, settings, to_pil


def edit(
    model, processor, images, instruction, *, cfg_scale=None, image_cfg_scale=None, temperature=None,
    seed=0, images_per_prompt=1, first=0, source_ids=True, progress=None,
) -> list:  # fmt: skip
    """Draws what an instruction makes of a picture, or of several: a list of PIL images.

    images: a picture (PIL, path, bytes, uint8 [H, W, 3], ...), or a list of them.
    instruction: what to do, such as "make the circle red".
    cfg_scale, image_cfg_scale: how much the words and the pictures count, as InstructPix2Pix has them
        (arXiv 2211.09800, section 3.2.1): l(none) + image_cfg_scale * (l(images) - l(none)) +
        cfg_scale * (l(images, words) - l(images)) of logits l. cfg_scale None is what the weights
        suggest; image_cfg_scale None is 1, with which l(none) is not needed. What has no weight is
        not run: 1 and 1 take one row a picture, most others two or three.
    source_ids: whether the pictures are given as VQ ids too, beside the understanding encoder's
        features.
    temperature, seed, images_per_prompt, first, progress, and a picture's `info`: as `generate` has
        them. Raises ValueError that lists what cannot be used.
    """
    ids, facts = drawn(
        model, processor, images, instruction, cfg_scale=cfg_scale, image_cfg_scale=image_cfg_scale,
        temperature=temperature, seed=seed, images_per_prompt=images_per_prompt, first=first,
        source_ids=source_ids, progress=progress,
    )  # fmt: skip
    pictures = to_pil(decode_ids(model, ids))
    for picture, fact in zip(pictures, facts):
        picture.info |= fact
    return pictures


def drawn(
    model, processor, images, instruction, *, cfg_scale=None, image_cfg_scale=None, temperature=None,
    seed=0, images_per_prompt=1, first=0, source_ids=True, progress=None,
) -> tuple[np.ndarray, list[dict]]:  # fmt: skip
    """The image ids of `edit`, int32 [images_per_prompt, N], and the facts of each."""
    options.require(model, processor)
    options.require_ids(model.config)
    given = options.given
    source_ids = given(source_ids, True)
    require_flags(source_ids=source_ids)
    scale, heat = settings(processor, cfg_scale, temperature)
    scale, image_scale, heat, count, first, _ = options.settled(
        cfg_scale=scale, image_cfg_scale=given(image_cfg_scale, 1.0), temperature=heat,
        images_per_prompt=given(images_per_prompt, 1), first=given(first, 0), progress=progress,
    )  # fmt: skip
    (seed,) = options.seeds(seed, 1, "instructions")
    spans, pictures = edit_prompt(processor, images, instruction, source_ids)
    branches = branches_of(model, processor, spans, pictures)
    n = processor.generation_tokens
    numbers = range(first, first + count)
    requests = [request(branches, scale, image_scale, seed, k, heat, n) for k in numbers]
    said = dict(
        prompt=instruction,
        seed=seed,
        cfg_scale=scale,
        image_cfg_scale=image_scale,
        temperature=heat,
    )
    return decode.ids_of(model, requests, progress), [said | {"index": k} for k in numbers]
