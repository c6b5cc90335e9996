"""The work of `edit`: pictures drawn of pictures, a few at a time, and written."""

from janus_jax.sample import drawing, options
from janus_jax.sample.batches import AT_ONCE, Drawing
from janus_jax.sample.edit import edit
from janus_jax.sample.edit_prompts import edit_prompt, marks
from janus_jax.sample.files import Gallery
from janus_jax.sample.generate import settings

ROWS = 4  # of a picture, at most


def draw(f, source, load):
    """Draws and writes what is asked for, and prints each path.

    f: the flags of a command.
    source: the opened weights.
    load: load(**work) -> (model, processor), `work` as in `memory.Plan`.

    Raises ValueError for what cannot be edited, before anything is loaded.
    """
    options.require_ids(source.config)
    scale, heat = settings(source.processor(), f.cfg_scale, f.temperature)
    _, pictures = edit_prompt(source.processor(), f.image, f.prompt, f.source_ids)
    each = min(f.n, AT_ONCE)
    model, processor = load(
        rows=ROWS * each, text=len(f.prompt) // 3 + 64, drawings=each,
        pictures=(1 + f.source_ids) * len(pictures),
    )  # fmt: skip
    more = {"image_cfg_scale": f.image_cfg_scale, "source_ids": f.source_ids}
    facts = drawing.facts(f, source, scale, heat) | more
    gallery = Gallery(f.out, images=marks(pictures), **facts)
    for first in range(0, f.n, AT_ONCE):
        count = min(AT_ONCE, f.n - first)
        with Drawing(count) as bar:
            drawn = edit(
                model, processor, pictures, f.prompt, cfg_scale=scale, temperature=heat, seed=f.seed,
                images_per_prompt=count, first=first, progress=bar.tell, **more,
            )  # fmt: skip
        for k, picture in enumerate(drawn, first):
            path = gallery.add(picture, f.prompt, k)
            print(f"{path}  {f.prompt!r}, {picture.width} x {picture.height}", flush=True)
