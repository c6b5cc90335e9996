"""Held-out edits on the sheet of a training run: what was there, what should come out, what is drawn."""

from janus_jax.data.images import generation_image
from janus_jax.sample.edit import edit
from janus_jax.sample.edit_prompts import edit_prompt


def use(plan, processor):
    """A function of a source and a number: (what to do, with which pictures, what comes out of it,
    uint8 [S, S, 3]) of an edit, None of another record. plan: of the stage."""
    side = plan.model.generation_encoder.image_size

    def found(source, i):
        count = source[i].get("sources", 0)
        if not count or not plan.task.PACKS:
            return None
        words = source[i]["captions"][0]
        shown = [source.image(i, k) for k in range(count)]
        edit_prompt(processor, shown, words)  # ValueError: it cannot be drawn
        return words, shown, generation_image(source.image(i, count), side)

    return found


def rows(edits: list[tuple], model, processor, step: int) -> list[tuple]:
    """(pictures, captions) of each row of the sheet; of several pictures the first is shown."""
    words, shown, true = map(list, zip(*edits, strict=True))
    drawn = [
        edit(model, processor, pictures, told, seed=k)[0]
        for k, (pictures, told) in enumerate(zip(shown, words))
    ]
    first = [generation_image(pictures[0], len(true[0])) for pictures in shown]
    named = f"drawn at step {step}"
    return [
        (first, words),
        (true, ["what comes out"] * len(true)),
        (drawn, [named] * len(drawn)),
    ]
