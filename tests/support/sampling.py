"""A sharpened tiny model, what it is asked, and a loop without a cache beside it."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from support import tiny

from janus_jax.data.images import understanding_image
from janus_jax.model.batch import pixels
from janus_jax.sample.generate import generate_ids

N = tiny.CONFIG.generation_encoder.tokens
LENGTH = 96  # of the reference loops' rows
WORDS = 12  # of an answer
PROMPTS = [
    "a red circle",
    "two blue squares",
    "a cross",
    "a yellow triangle to the left of a green circle, and a blue cross below both of them",
]


def make(config=tiny.CONFIG):
    model = tiny.make_model(config)
    model.text_embedding.table[...] = model.text_embedding.table[...] * 4
    model.generation_adaptor.fc2.kernel[...] = model.generation_adaptor.fc2.kernel[...] * 4
    model.understanding_adaptor.fc2.kernel[...] = model.understanding_adaptor.fc2.kernel[...] * 4
    return model


def draw(model, prompts, cfg_scale=5.0, temperature=1.0, **options):
    options |= dict(cfg_scale=cfg_scale, temperature=temperature)
    return generate_ids(model, tiny.processor(), prompts, **options)


@jax.jit
def forward(model, x):
    """Embedded rows [B, T, D], no cache, no padding on the left -> hidden states."""
    b, t, _ = x.shape
    positions = jnp.broadcast_to(jnp.arange(t), (b, t))
    return model.transformer(x, positions, jnp.ones((b, t), jnp.int32))


def picture(seed: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    )


def said(text: str, *pictures) -> list[dict]:
    parts = [{"type": "image", "image": p} for p in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def answer_by_hand(model, conversation, steps: int = WORDS) -> list[int]:
    """Greedy ids, the whole row run anew for each; the picture's features stand on its
    placeholders."""
    processor = tiny.processor()
    spans = processor.conversation([*conversation, {"role": "assistant", "content": ""}])
    ids = np.concatenate([span[0] for span in spans])
    table = np.asarray(model.text_embedding.table[...])
    x = np.zeros((1, LENGTH, table.shape[1]), np.float32)
    x[0, : len(ids)] = table[ids]
    shown = [p["image"] for m in conversation for p in m["content"] if p["type"] == "image"]
    if shown:
        images = pixels(np.stack([understanding_image(image, 16) for image in shown]))
        features = np.asarray(model.embed_images(jnp.asarray(images)))
        x[0, : len(ids)][ids == processor.tokenizer.placeholder] = features.reshape(
            -1, table.shape[1]
        )
    out, n = [], len(ids)
    for i in range(steps):
        hidden = forward(model, x)[:, n + i - 1 : n + i]
        out.append(int(np.asarray(model.text_head(hidden))[0, 0].argmax()))
        x[0, n + i] = table[out[-1]]
    return out


CONVERSATIONS = {
    "text": said("how many circles are there?"),
    "picture": said("what color is the cross?", picture(3)),
    "turns": [
        *said("what is it?", picture(2)),
        {"role": "assistant", "content": "a cross"},
        {"role": "user", "content": [{"type": "text", "text": "where is it?"}]},
    ],
}
CONVERSATIONS["turns"][1]["content"] = [{"type": "text", "text": "a cross"}]
