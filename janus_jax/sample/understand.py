"""Pictures and questions to words: `janus_jax.understand`, and the command

python -m janus_jax.sample.understand --model=DIR --image=FILE --prompt="what is this?"

Without --prompt it is a chat in the terminal.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax import batch as bt
from janus_jax import sharding as sh
from janus_jax.data.images import ImageError, understanding_image
from janus_jax.data.messages import open_picture
from janus_jax.sample import chat, decode, memory, options, terminal
from janus_jax.sample.answer import Answer
from janus_jax.sample.generate import file_name, generate, save


def understand(
    model, processor, conversation, *, max_new_tokens=512, temperature=0.0, top_p=1.0, seed=0, stop=(),
    stream=None,
) -> str:  # fmt: skip
    """The assistant's next answer in a conversation.

    conversation: chat messages {"role": "user" | "assistant" | "system", "content": str or parts}, parts being
    {"type": "text", "text": ...}, {"type": "image", "image": PIL image or path} (also "path", "url" with a
    path or data URI, or OpenAI's "image_url"); or the original code's form, content with `<image_placeholder>`
    for each entry of the message's "images". temperature 0 is greedy; top_p keeps the likeliest mass. The
    answer ends at the end of sentence, where the model begins the user's next turn, at a string of `stop`, and
    at the latest where the processor's context is full. stream(text) is called with each new stretch of the
    answer. Raises ValueError that lists what cannot be used, by option, message and part.
    """
    numbers = dict(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed, stop=stop)
    tell = None if stream is None else lambda row, text: stream(text)
    return understand_batch(model, processor, [conversation], stream=tell, **numbers)[0]


def understand_batch(
    model, processor, conversations, *, max_new_tokens=512, temperature=0.0, top_p=1.0, seed=0, stop=(),
    stream=None,
) -> list[str]:  # fmt: skip
    """`understand` for several conversations at once, of any lengths and numbers of pictures: each answer is
    what it would be alone. seed: one number, or one a conversation. stream(row, text)."""
    options.check(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
    conversations = list(conversations)
    seed = options.seeds(seed, len(conversations), "conversations")
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    if not conversations or "" in stop:
        raise ValueError(f"{len(conversations)} conversations, stop {stop}: give one or more, no empty stop")
    tokenizer, side = processor.tokenizer, model.config.understanding_encoder.image_size
    prompts, slots, pictures = zip(*_prepare_all(processor, conversations, side))
    tag = processor.template.user
    stop_ids = {tokenizer.eos, tokenizer.control(tag)} - {None}
    most = [min(max_new_tokens, processor.context - len(prompt)) for prompt in prompts]
    answers = [
        Answer(
            tokenizer, stop_ids, (tag + ":", *stop), n, stream and (lambda text, row=row: stream(row, text))
        )
        for row, n in enumerate(most)
    ]

    def tell(ids):
        for answer, row in zip(answers, ids):
            answer.add(row)
        return all(answer.done for answer in answers)

    sh.ensure_mesh()
    rows = decode.padded_rows(len(prompts))
    fill = lambda values: [*values, *[values[-1]] * (rows - len(values))]
    ids, starts = decode.left_pad(prompts, tokenizer.pad, rows)
    slot_rows = np.zeros_like(ids)
    for row, slot in zip(slot_rows, fill(slots)):
        row[len(row) - len(slot) :] = slot
    shown = np.zeros((rows, max(map(len, pictures)), side, side, 3), np.uint8)
    for row, own in zip(shown, fill(pictures)):
        row[: len(own)] = own  # the rest stays black, and no slot points there
    shown = bt.pixels(shown, processor.image_mean, processor.image_std)
    keys = jnp.stack(fill([jax.random.key(number) for number in seed]))
    live = tell if stream or stop else None  # an accelerator is asked less often where nobody waits for text
    ids = decode.text_ids(
        model, ids, shown, slot_rows, starts, keys, tokenizer.eos, temperature,
        None if top_p == 1 else jnp.float32(top_p), max(most), live,
    )  # fmt: skip
    if live is None:
        tell(ids)
    return [answer.text for answer in answers]


def _prepare_all(processor, conversations: list, side: int) -> list[tuple]:
    """`prepare` of each; where there are several, ValueError lists the problems of all by conversation."""
    if len(conversations) == 1:
        return [prepare(processor, conversations[0], side)]
    out, problems = [], []
    for i, conversation in enumerate(conversations):
        try:
            out.append(prepare(processor, conversation, side))
        except ValueError as error:
            problems += [f"conversations[{i}]: {line}" for line in str(error).splitlines()]
    if problems:
        raise ValueError("\n".join(problems))
    return out


def prepare(processor, conversation, side: int):
    """A conversation's ids and picture slots (int32 [n]) and its pictures, uint8 [M, side, side, 3].

    Raises ValueError; of pictures that cannot be read, it lists all.
    """
    spans, sources = processor.question(conversation)
    pictures, problems = [], []
    for source, where in sources:
        try:
            pictures.append(understanding_image(open_picture(source, where), side, processor.background))
        except ImageError as error:
            problems.append(str(error))
    if problems:
        raise ImageError("\n".join(problems))
    ids = np.concatenate([span[0] for span in spans]).astype(np.int32)
    is_picture = np.concatenate([np.full(len(span[0]), span[1] == bt.PICTURE) for span in spans])
    slots = np.where(is_picture, np.cumsum(is_picture), 0).astype(np.int32)
    return ids, slots, np.stack(pictures) if pictures else np.zeros((0, side, side, 3), np.uint8)


def main(_):
    from absl import flags

    from janus_jax.convert.source import open_source
    from janus_jax.weights import load

    f = flags.FLAGS
    numbers = dict(max_new_tokens=f.max_new_tokens, temperature=f.temperature, top_p=f.top_p, seed=f.seed)
    options.check(**numbers)
    for path in f.image:
        open_picture(path, "--image")  # a wrong name is told before minutes of loading
    source = open_source(f.model, allow_pickle=f.allow_pickle)
    words = len(f.prompt) if f.prompt else 2000  # a chat grows
    text = words // 3 + 64 + f.max_new_tokens
    work = dict(rows=1 if f.prompt else 2, pictures=max(1, len(f.image)), drawings=0 if f.prompt else 1)
    memory.announce(f.model, source, f.dtype, text=text, **work)
    model, processor = load(f.model, dtype=f.dtype, allow_pickle=f.allow_pickle)

    def ask(messages, stream):
        return understand(model, processor, messages, stream=stream, **numbers)

    drawn = itertools.count()

    def draw(text):
        k = next(drawn)  # asked again, it draws another
        with terminal.Progress(1) as bar:
            (picture,) = generate(model, processor, text, seed=f.seed + k, progress=bar)
        facts = dict(cfg_scale=processor.cfg_scale, temperature=processor.temperature)
        facts |= dict(prompt=text, index=0, seed=f.seed + k, model=f.model)
        return picture, save(picture, f.out, f"{file_name(text)}-{k}", **facts)

    if f.prompt is None:
        chat.run(ask, draw, f.image)
        return
    parts = [{"type": "image", "image": path} for path in f.image] + [{"type": "text", "text": f.prompt}]
    ask([{"role": "user", "content": parts}], lambda text: print(text, end="", flush=True))
    print()


def define_flags():
    from absl import flags

    flags.DEFINE_string(
        "model", None, "A weights directory or hub id, such as runs/quickstart/stage3.", required=True
    )
    flags.DEFINE_multi_string("image", [], "A picture; may be given several times.")
    flags.DEFINE_string("prompt", None, "The question; without one, a chat in the terminal.")
    flags.DEFINE_string("dtype", None, "float32, bfloat16 or int8; by default as the weights are stored.")
    flags.DEFINE_bool("allow_pickle", False, "Read PyTorch's .bin files, tensors only.")
    flags.DEFINE_string("out", "pictures", "Folder for what /draw draws.")
    flags.DEFINE_integer("max_new_tokens", 512, "Longest answer.")
    flags.DEFINE_float("temperature", 0.0, "0 takes the likeliest token each time.")
    flags.DEFINE_float("top_p", 1.0, "Sample from the likeliest tokens of this mass.")
    flags.DEFINE_integer("seed", 0, "Same seed, same answer.")


if __name__ == "__main__":
    from absl import app

    define_flags()
    app.run(lambda argv: terminal.plainly(main, argv))
