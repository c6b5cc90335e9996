"""Words to pictures: `janus_jax.generate`, and the command

python -m janus_jax.sample.generate --model=DIR --prompt="a red circle" --out=DIR
"""

import functools
import math
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax import sharding as sh
from janus_jax.data.images import contact_sheet, to_pil
from janus_jax.sample import decode


def generate_ids(
    model, processor, prompts, *, cfg_scale=None, temperature=None, seed=0, images_per_prompt=1
) -> np.ndarray:
    """The image ids of `generate`: int32 [len(prompts) * images_per_prompt, N], row-major by prompt.

    The draw of picture k of a prompt depends on its seed, k and the prompt only, not on its neighbours.
    seed: one number, or one a prompt. Raises ValueError for an empty prompt, guidance or temperature below 0
    or not finite, or fewer than one image.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    cfg_scale = processor.cfg_scale if cfg_scale is None else cfg_scale
    temperature = processor.temperature if temperature is None else temperature
    check("cfg_scale", cfg_scale)
    check("temperature", temperature)
    if images_per_prompt < 1 or not prompts:
        raise ValueError(
            f"{len(prompts)} prompts, images_per_prompt={images_per_prompt}: both must be at least 1"
        )
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"prompts[{i}] is {prompt!r}: give it some words to draw")
    seeds = [seed] * len(prompts) if isinstance(seed, int | np.integer) else list(seed)
    if len(seeds) != len(prompts):
        raise ValueError(
            f"seed has {len(seeds)} numbers for {len(prompts)} prompts: give one, or one a prompt"
        )
    rows, keys = [], []
    for prompt, number in zip(prompts, seeds):
        ids = np.concatenate([span[0] for span in processor.drawing(prompt)]).astype(np.int32)
        rows += [ids] * images_per_prompt
        keys += [jax.random.fold_in(jax.random.key(number), k) for k in range(images_per_prompt)]
    sh.ensure_mesh()
    count = decode.padded_rows(len(rows))
    pad = processor.tokenizer.pad
    conditional, starts = decode.left_pad(rows, pad, count)
    unconditional, _ = decode.left_pad([processor.unconditional(row) for row in rows], pad, count)
    keys = jnp.stack([*keys, *[keys[-1]] * (count - len(rows))])
    ids = decode.image_ids(
        model, conditional, unconditional, starts, keys, cfg_scale, temperature, processor.generation_tokens
    )
    return ids[: len(rows)]


def generate(
    model, processor, prompts, *, cfg_scale=None, temperature=None, seed=0, images_per_prompt=1
) -> list:
    """Draws `images_per_prompt` pictures for each prompt: a list of PIL images, row-major by prompt.

    cfg_scale: classifier-free guidance, 1 is the conditional branch alone, 0 the unconditional; temperature: 0
    takes the likeliest id each time. By default both are what the weights directory says its model draws best
    with: 5.0 and 1.0 (paper section 3.4) unless its config said otherwise. See `generate_ids` for seeds and
    errors.
    """
    ids = generate_ids(
        model, processor, prompts, cfg_scale=cfg_scale, temperature=temperature, seed=seed,
        images_per_prompt=images_per_prompt,
    )  # fmt: skip
    return to_pil(decode_ids(model, ids))


def decode_ids(model, ids: np.ndarray) -> np.ndarray:
    """Image ids [B, N] to float32 pixels [B, H, W, 3], through the VQ decoder."""
    sh.ensure_mesh()
    grid, count = model.config.generation_encoder.grid, decode.padded_rows(len(ids))
    padded = np.concatenate([ids, np.repeat(ids[-1:], count - len(ids), 0)])
    return np.asarray(_render(model.generation_encoder, jax.device_put(padded, sh.BATCH), grid))[: len(ids)]


@functools.partial(jax.jit, static_argnums=2)
def _render(encoder, ids, grid):
    return encoder.decode(ids, grid)


def check(name: str, value: float):
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value}: must be a finite number, 0 or more")


def plainly(main, argv):
    """Runs a command; what a user can mend is one line on stderr, not a stack trace."""
    from absl import logging

    logging.set_verbosity(logging.WARNING)
    try:
        main(argv)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def main(_):
    from absl import flags

    from janus_jax.checkpoint import load

    f = flags.FLAGS
    model, processor = load(f.model)
    prompts = f.prompt
    pictures = generate(
        model, processor, prompts, cfg_scale=f.cfg_scale, temperature=f.temperature, seed=f.seed,
        images_per_prompt=f.n,
    )  # fmt: skip
    out = pathlib.Path(f.out)
    out.mkdir(parents=True, exist_ok=True)
    captions = [prompt for prompt in prompts for _ in range(f.n)]
    for i, (picture, caption) in enumerate(zip(pictures, captions)):
        name = (
            out / f"{re.sub(r'[^a-z0-9]+', '-', caption.lower()).strip('-')[:60] or 'picture'}-{i % f.n}.png"
        )
        picture.save(name)
        print(f"{name}  {caption!r}, {picture.width} x {picture.height}")
    contact_sheet(
        pictures, captions, columns=min(len(pictures), 6), scale=max(1, 192 // pictures[0].width)
    ).save(out / "sheet.png")
    print(out / "sheet.png")


def define_flags():
    from absl import flags

    flags.DEFINE_string("model", None, "A weights directory, such as runs/quickstart/stage3.", required=True)
    flags.DEFINE_multi_string("prompt", None, "What to draw; may be given several times.", required=True)
    flags.DEFINE_string("out", "pictures", "Folder for the PNG files.")
    flags.DEFINE_integer("n", 1, "Pictures per prompt.", lower_bound=1)
    flags.DEFINE_float("cfg_scale", None, "Classifier-free guidance; by default what the weights suggest.")
    flags.DEFINE_float("temperature", None, "0 takes the likeliest id; by default what the weights suggest.")
    flags.DEFINE_integer("seed", 0, "Same seed, same pictures.")


if __name__ == "__main__":
    from absl import app

    define_flags()
    app.run(lambda argv: plainly(main, argv))
