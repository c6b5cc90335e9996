"""Words to pictures: `janus_jax.generate`."""

import functools
import importlib

import numpy as np
from PIL import Image

from janus_jax.common.arguments import require_flags
from janus_jax.sample import decode, options
from janus_jax.sample.reading import Prompt


def generate_ids(model, processor, prompts, **how) -> np.ndarray:
    """The image ids of `generate`: int32 [prompts * images_per_prompt, N], row-major by prompt, or
    [.., N, d] of tokens with several. Raises ValueError for a model whose image head draws latents."""
    if model.config.image_head == "diffusion":
        raise ValueError(
            "generate_ids: this model's image_head is 'diffusion', which draws latents and no ids; take "
            "generate, which gives pictures"
        )
    return _drawn(model, processor, prompts, **how)[0]


def generate(
    model, processor, prompts, *, negative_prompt=None, cfg_scale=None, temperature=None, seed=0,
    images_per_prompt=1, first=0, progress=None, return_exceptions=False, steps=None,
    size=None,
) -> list:  # fmt: skip
    """Draws `images_per_prompt` pictures for each prompt: a list of PIL images, row-major by
    prompt.

    prompts: one, or several: a list, a numpy array, a column, a generator.
    negative_prompt: words that guidance leads away from, in place of a prompt without its words.
    cfg_scale: classifier-free guidance, 1 is the conditional branch alone, 0 the unconditional;
        temperature: 0 takes the likeliest id each time. By default both are what the weights
        directory says its model draws best with: 5.0 and 1.0 (paper section 3.4) unless its config
        said otherwise.
    seed: one number, or one a prompt; None draws one for each. The draw of picture k of a prompt
        depends on its seed, k and the prompt only, not on its neighbours.
    first: the number of each prompt's first picture, for many pictures in several calls.
    progress: progress(done, total) is called as image tokens are drawn.
    return_exceptions: a prompt that cannot be drawn has its ValueError in place of its pictures,
        and the others are drawn.
    steps: of a model that draws `masked` pictures, in how many passes, 1 to its image tokens; by
        default 12. Others have no such number, and refuse one.
    size: (width, height) or "WxH", of those that the model draws (`generation_encoder.sizes`); by
        default its square.
    A picture's `info` says how it was drawn: prompt, index, seed, cfg_scale, temperature. Raises
        ValueError that lists the options or prompts that cannot be used.
    """
    ids, facts = _drawn(
        model, processor, prompts, negative_prompt=negative_prompt, cfg_scale=cfg_scale,
        temperature=temperature, seed=seed, images_per_prompt=images_per_prompt, first=first,
        progress=progress, return_exceptions=return_exceptions, steps=steps, size=size,
    )  # fmt: skip
    pictures = iter(to_pil(decode_ids(model, ids, size)) if len(ids) else ())
    out = [fact if isinstance(fact, ValueError) else next(pictures) for fact in facts]
    for picture, fact in zip(out, facts):
        if isinstance(fact, dict):
            picture.info |= fact
    return out


def _drawn(
    model, processor, prompts, *, negative_prompt=None, cfg_scale=None, temperature=None, seed=0,
    images_per_prompt=1, first=0, progress=None, return_exceptions=False, steps=None,
    size=None,
) -> tuple[np.ndarray, list]:  # fmt: skip
    """The ids of `generate`, or latents, and for each of its pictures the facts or the ValueError."""
    options.require(model, processor)
    require_flags(return_exceptions=options.given(return_exceptions, False))
    guidance, heat = settings(processor, cfg_scale, temperature)
    cfg_scale, temperature, count, first, _ = options.settled(
        cfg_scale=guidance, temperature=heat, images_per_prompt=options.given(images_per_prompt, 1),
        first=options.given(first, 0), progress=progress,
    )  # fmt: skip
    vq = model.config.generation_encoder
    (height, width), words = vq.grid, []
    if size is not None:
        (height, width), words = _sized().grid_and_words(size, vq, processor)
    n = vq.tokens if (height, width) == vq.grid else height * width
    draw = _way(model, processor, steps, n)
    if first + count - 1 > options.LAST:
        raise ValueError(
            f"first is {first}, images_per_prompt {count}: their sum is at most {options.LAST + 1}; "
            "begin at a lower number, or ask for fewer"
        )
    prompts = options.listed(prompts, "prompts")
    seeds = options.seeds(seed, len(prompts), "prompts")
    facts = []
    rows = []
    other = unconditional(processor, negative_prompt, cfg_scale)
    for i, (prompt, number) in enumerate(zip(prompts, seeds)):
        try:
            ids = processor.request(prompt, f"prompts[{i}]", n + len(words))
        except ValueError as error:
            facts += [error] * count
            continue
        pair = Prompt(ids), other(ids)
        if words:
            pair = tuple(Prompt(np.append(x.ids, words).astype(np.int32)) for x in pair)
        rows += [pair] * count
        said = {"prompt": prompt}
        if negative_prompt is not None:
            said["negative_prompt"] = negative_prompt
        if size is not None:
            said["size"] = size if isinstance(size, str) else "{}x{}".format(*size)
        facts += [
            dict(**said, index=k, seed=number, cfg_scale=cfg_scale, temperature=temperature)
            for k in range(first, first + count)
        ]
    problems = dict.fromkeys(str(fact) for fact in facts if isinstance(fact, ValueError))
    if problems and not return_exceptions:
        raise ValueError("\n".join(problems))
    numbers = zip(*((x["seed"], x["index"]) for x in facts if isinstance(x, dict)))
    if not rows:
        return np.zeros((0, n), np.int32), facts
    return draw(rows, *numbers, cfg_scale, temperature, n, progress=progress), facts


def _sized():
    """What pictures of several sizes need, loaded where one is asked for."""
    return importlib.import_module("janus_jax.data.sizes")


def _way(model, processor, steps: int | None, tokens: int):
    """What draws, as `decode.image_ids` does. Raises ValueError for steps of a model that takes none."""
    if model.config.image_head != "softmax" and steps is None:
        name = {"diffusion": "latents", "depth": "codes"}[model.config.image_head]
        found = importlib.import_module(f"janus_jax.sample.{name}")
        return functools.partial(getattr(found, name), model)
    if steps is None and model.config.drawing == "causal":
        return functools.partial(decode.image_ids, model)
    if steps is None and model.config.drawing == "scales":
        return functools.partial(
            importlib.import_module("janus_jax.sample.scales").image_ids_by_scale, model
        )
    masked = importlib.import_module("janus_jax.sample.masked")
    steps = masked.require_steps(model, steps, tokens)
    holder = processor.tokenizer.placeholder
    return functools.partial(masked.image_ids_in, model, holder, steps=steps)


def unconditional(processor, negative_prompt: str | None, cfg_scale: float):
    """A function from a prompt's ids to the prompt that guidance leads away from. Raises ValueError
    for a negative prompt that cannot be used."""
    if negative_prompt is None:
        return lambda ids: Prompt(processor.unconditional(ids))
    if cfg_scale == 1:
        raise ValueError(
            "negative_prompt: does nothing at cfg_scale 1, which is no guidance; leave it out, or give "
            "a larger cfg_scale"
        )
    words = Prompt(processor.request(negative_prompt, "negative_prompt"))
    return lambda ids: words


def settings(processor, cfg_scale, temperature) -> tuple:
    """Guidance and temperature, the processor's where None."""
    given = options.given
    return given(cfg_scale, processor.cfg_scale), given(temperature, processor.temperature)


def decode_ids(model, ids, size=None) -> np.ndarray:
    """Image ids [B, N], or latents [B, N, C], to float32 pixels [B, H, W, 3], through the tokenizer's
    decoder, one by one; size: as of `generate`."""
    vq = model.config.generation_encoder
    grid = vq.grid if size is None else _sized().drawn_grid(size, vq)
    kind = np.float32 if model.config.image_head == "diffusion" else np.int32
    return decode.pixels(model, np.asarray(ids, kind), grid)


def to_pil(images) -> list:
    """Decoded pictures, float [B, H, W, 3] in [-1, 1] -> a list of B RGB pictures.

    Clipped, then truncated to uint8 as in the original. Raises ValueError for another shape or for
    NaN.
    """
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images: shape {images.shape}, needs [B, H, W, 3]; one picture is images[None]"
        )
    bad = np.flatnonzero(np.isnan(images).any(axis=(1, 2, 3)))
    if bad.size:
        raise ValueError(
            f"images: NaN in picture {bad[0]} ({bad.size} of {len(images)}); check the decoder's "
            f"weights"
        )
    return [Image.fromarray(x) for x in ((np.clip(images, -1, 1) + 1) / 2 * 255).astype(np.uint8)]
