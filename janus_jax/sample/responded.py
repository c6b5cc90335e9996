"""The work of `respond`: an answer of words and pictures, told as it comes, its pictures written."""

from janus_jax.sample import drawing, options
from janus_jax.sample.edit_prompts import marks
from janus_jax.sample.files import Gallery
from janus_jax.sample.generate import settings
from janus_jax.sample.respond import require_between, respond


def answer(f, source, load):
    """Answers what is asked, and prints words and the paths of pictures.

    f: the flags of a command.
    source: the opened weights.
    load: load(**work) -> (model, processor), `work` as in `memory.Plan`.

    Raises ValueError for what cannot be answered, before anything is loaded.
    """
    require_between(source.config)
    scales = {"cfg_scale": f.cfg_scale, "image_temperature": f.image_temperature}
    options.check(max_images=f.max_images, **scales)
    scale, heat = settings(source.processor(), f.cfg_scale, f.image_temperature)
    parts = [{"type": "image", "image": path} for path in f.image]
    messages = [{"role": "user", "content": [*parts, f.prompt]}]
    source.processor().question(messages)  # whether the context has room
    model, processor = load(
        rows=2, text=len(f.prompt) // 3 + 64 + f.max_new_tokens, drawings=1,
        pictures=max(1, len(f.image)) + f.max_images,
    )  # fmt: skip
    gallery = Gallery(f.out, **drawing.facts(f, source, scale, heat))
    write = lambda words: print(words, end="", flush=True)
    tell(model, processor, messages, gallery, write, f, cfg_scale=scale, image_temperature=heat)


def tell(model, processor, messages, gallery: Gallery, write, f, **how) -> list:
    """Answers a conversation: each stretch of words is written, a line each, and of each picture where
    it was saved. Returns the answer as parts of a message.

    gallery: takes the pictures.
    write: takes text.
    f: the flags of a command.
    how: of the pictures, as `respond` takes it.
    """

    def done(part):
        if isinstance(part, str):
            write(f"{part}\n")
        else:
            prompt = messages[-1]["content"][-1]
            words = prompt if isinstance(prompt, str) else prompt["text"]
            path = gallery.add(part, words, part.info["index"], pixels=marks([part]))
            write(f"{path}\n")

    parts = respond(
        model, processor, messages, stream=done, max_new_tokens=f.max_new_tokens,
        max_images=f.max_images, temperature=f.temperature, top_p=f.top_p, seed=f.seed, **how,
    )  # fmt: skip
    return [part if isinstance(part, str) else {"type": "image", "image": part} for part in parts]
