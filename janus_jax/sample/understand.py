"""Pictures and questions to words: `janus_jax.understand`, and the command

python -m janus_jax.sample.understand --model=DIR --image=FILE --prompt="what is this?"
"""

import base64
import binascii
import io

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax import batch as bt
from janus_jax import sharding as sh
from janus_jax.data.images import read_image, understanding_image
from janus_jax.sample import decode
from janus_jax.sample.generate import check, plainly


def understand(
    model, processor, conversation, *, max_new_tokens=512, temperature=0.0, top_p=1.0, seed=0
) -> str:
    """The assistant's next answer in a conversation.

    conversation: chat messages {"role": "user" | "assistant" | "system", "content": str or parts}, parts being
    {"type": "text", "text": ...}, {"type": "image", "image": PIL image or path} (also "path", "url" with a
    path or data URI, or OpenAI's "image_url"). temperature 0 is greedy; top_p keeps the likeliest mass.
    Raises ValueError naming the message and part that cannot be used.
    """
    options = dict(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    return understand_batch(model, processor, [conversation], **options)[0]


def understand_batch(
    model, processor, conversations, *, max_new_tokens=512, temperature=0.0, top_p=1.0, seed=0
) -> list[str]:
    """`understand` for several conversations at once; each must hold the same number of pictures."""
    check("temperature", temperature)
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}: must be in (0, 1]")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: must be at least 1")
    side = model.config.understanding_encoder.image_size
    prompts, slots, pictures = zip(*(prepare(processor, c, side) for c in conversations))
    counts = {len(p) for p in pictures}
    if len(counts) > 1:
        raise ValueError(f"conversations of {sorted(counts)} pictures in one batch: group them by number")
    sh.ensure_mesh()
    rows = decode.padded_rows(len(prompts))
    ids, starts = decode.left_pad(prompts, processor.tokenizer.pad, rows)
    slot_rows = np.zeros_like(ids)
    for row, slot in zip(slot_rows, [*slots, *[slots[-1]] * (rows - len(slots))]):
        row[len(row) - len(slot) :] = slot
    pixels = np.stack([*pictures, *[pictures[-1]] * (rows - len(pictures))])
    key = jax.random.key(seed)
    keys = jnp.stack([key] * rows)
    eos = processor.tokenizer.eos
    out = decode.text_ids(
        model, ids, bt.pixels(pixels), slot_rows, starts, keys, eos, temperature,
        None if top_p == 1.0 else jnp.float32(top_p), max_new_tokens,
    )  # fmt: skip
    answers = out[: len(prompts)]
    return [
        processor.tokenizer.decode(row[: row.tolist().index(eos)] if eos in row else row).strip()
        for row in answers
    ]


def prepare(processor, conversation, side: int):
    """A conversation's ids and picture slots (int32 [n]) and its pictures, uint8 [M, side, side, 3]."""
    if not conversation or conversation[-1]["role"] != "user":
        raise ValueError("conversation: its last message must be the user's")
    pictures = [
        understanding_image(open_picture(part, f"message {k}"), side)
        for k, message in enumerate(conversation)
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part.get("type") != "text"
    ]
    spans = processor.conversation([*conversation, {"role": "assistant", "content": ""}])
    ids = np.concatenate([span[0] for span in spans]).astype(np.int32)
    is_picture = np.concatenate([np.full(len(span[0]), span[1] == bt.PICTURE) for span in spans])
    slots = np.where(is_picture, np.cumsum(is_picture), 0).astype(np.int32)
    return ids, slots, np.stack(pictures) if pictures else np.zeros((0, side, side, 3), np.uint8)


def open_picture(part: dict, where: str):
    """The picture of a message part, RGB. Raises ValueError naming the message."""
    found = next((part[name] for name in ("image", "path", "url", "image_url") if name in part), None)
    if isinstance(found, dict):
        found = found.get("url")
    if found is None:
        raise ValueError(f"{where}: part {sorted(part)} holds no picture; give 'image' a PIL image or a path")
    if isinstance(found, str) and found.startswith("data:"):
        try:
            found = io.BytesIO(base64.b64decode(found.partition(",")[2], validate=True))
        except binascii.Error as error:
            raise ValueError(f"{where}: the data URI is not valid base64 ({error})") from None
    elif isinstance(found, str) and found.startswith(("http://", "https://")):
        raise ValueError(f"{where}: {found} is a web address; download the picture and give its path")
    return read_image(found)


def main(_):
    from absl import flags

    from janus_jax.checkpoint import load

    f = flags.FLAGS
    model, processor = load(f.model)
    parts = [{"type": "image", "image": path} for path in f.image] + [{"type": "text", "text": f.prompt}]
    options = dict(max_new_tokens=f.max_new_tokens, temperature=f.temperature, top_p=f.top_p, seed=f.seed)
    print(understand(model, processor, [{"role": "user", "content": parts}], **options))


def define_flags():
    from absl import flags

    flags.DEFINE_string("model", None, "A weights directory, such as runs/quickstart/stage3.", required=True)
    flags.DEFINE_multi_string("image", [], "A picture; may be given several times.")
    flags.DEFINE_string("prompt", None, "The question.", required=True)
    flags.DEFINE_integer("max_new_tokens", 512, "Longest answer.", lower_bound=1)
    flags.DEFINE_float("temperature", 0.0, "0 takes the likeliest token each time.")
    flags.DEFINE_float("top_p", 1.0, "Sample from the likeliest tokens of this mass.")
    flags.DEFINE_integer("seed", 0, "Same seed, same answer.")


if __name__ == "__main__":
    from absl import app

    define_flags()
    app.run(lambda argv: plainly(main, argv))
