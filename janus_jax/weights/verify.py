"""Whether two weights are one model: the same fixed input through both, the answers compared.

Catches what shapes cannot: a square matrix that was transposed, two tensors that were exchanged.
"""

import functools
import pathlib

import jax
import numpy as np

from janus_jax.model.guest import own_jax
from janus_jax.weights import files
from janus_jax.weights.load import load
from janus_jax.weights.source import open_source


def probe(
    path, dtype: str, base=None, *, allow_pickle: bool, allow_extra: bool
) -> dict[str, np.ndarray]:
    """Outputs of every box on a fixed input, float32: the logits of both heads over text, a picture
    and image ids, and the VQ tokenizer's own latents and pixels."""
    model, _ = load(
        path, dtype, unrolled=False, allow_pickle=allow_pickle, allow_extra=allow_extra, base=base
    )
    tower = model.config.understanding_encoder
    vq = model.config.generation_encoder
    rng = np.random.default_rng(0)
    picture = rng.uniform(-1, 1, (1, 1, tower.image_size, tower.image_size, 3)).astype(np.float32)
    drawn = rng.uniform(-1, 1, (1, 2 * vq.stride, 2 * vq.stride, 3)).astype(np.float32)
    ids = rng.integers(0, vq.codebook_size, (1, 4)).astype(np.int32)
    text = rng.integers(0, model.config.transformer.vocabulary, 8)
    n = 8 + tower.tokens + 4
    tokens, pictures, images = (np.zeros((1, n), np.int32) for _ in range(3))
    tokens[0, :8] = text
    pictures[0, 8 : 8 + tower.tokens] = 1 + np.arange(tower.tokens)
    images[0, 8 + tower.tokens :] = 1 + np.arange(4)
    positions = np.arange(n, dtype=np.int32)[None]
    segments = np.ones((1, n), np.int32)
    batch = {
        "tokens": tokens, "understanding_images": picture, "understanding_slots": pictures,
        "generation_slots": images, "positions": positions, "segment_ids": segments,
    }  # fmt: skip
    with own_jax(model):
        out = _run(model, batch, ids, drawn)
        return {name: np.asarray(x, np.float32) for name, x in out.items()}


@functools.partial(jax.jit)
def _run(model, batch, ids, drawn):
    hidden = model(batch, ids)[:, -16:]
    vq = model.generation_encoder
    return {
        "text_head": model.text_head(hidden),
        "image_head": model.image_head(hidden),
        "understanding_encoder": model.understanding_encoder(batch["understanding_images"][0]),
        "generation_encoder.latents": vq.latents(drawn),
        "generation_encoder.pixels": vq.decode(ids, (2, 2)),
    }


def verify(source, target, base=None, *, allow_pickle=False, allow_extra=False) -> dict[str, float]:
    """The largest difference in each output between the weights at two paths, loaded one after the
    other and both in the type that the target's are stored in, so that a cast on the way makes
    none.

    Raises ValueError with the numbers where an output differs by more than rounding explains.
    """
    allow = {"allow_pickle": allow_pickle, "allow_extra": allow_extra}
    of_target = base if files.adapter_at(pathlib.Path(target)) else None
    stored = open_source(target, base=of_target, **allow).leaves["text_head.linear.kernel"][1]
    dtype = "bfloat16" if stored == "bfloat16" else "float32"
    want = probe(source, dtype, base, **allow)
    got = probe(target, dtype, of_target, **allow)
    differences = {name: float(np.abs(want[name] - got[name]).max()) for name in want}
    wrong = [
        f"{name} differs by {differences[name]:.3g} where it reaches {np.abs(want[name]).max():.3g}"
        for name in want
        if not differences[name] <= 1e-4 * np.abs(want[name]).max()
    ]
    if wrong:
        raise ValueError(
            f"{target} does not compute what {source} computes: {'; '.join(wrong)}. The weights of "
            f"one of them are wrong (a transposed or exchanged tensor?)"
        )
    return differences
