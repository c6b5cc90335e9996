"""The work of `generate`: any number of pictures, drawn a few at a time and written as they come."""

import functools
import sys

from janus_jax.common.text import short
from janus_jax.data import sizes
from janus_jax.sample import masked
from janus_jax.sample.batches import AT_ONCE, Batch, draw_batches
from janus_jax.sample.files import Gallery, weights_mark
from janus_jax.sample.generate import generate, settings


def facts(f, source, cfg_scale: float, temperature: float) -> dict:
    """What a picture's file tells of how it was drawn, its prompt apart: all that changes it.

    f: the flags of a command.
    source: the opened weights.
    cfg_scale, temperature: of the drawing.
    """
    kept = {"seed": f.seed, "model": f.model, "weights": weights_mark(*source.paths)}
    if f.dtype:
        kept["dtype"] = f.dtype
    kept |= {name: value for name in ("steps", "size") if (value := getattr(f, name, None))}
    return kept | {"cfg_scale": cfg_scale, "temperature": temperature}


class Job:
    """The pictures that are asked for, those that are there left out.

    count: in all.
    at_once: how many are drawn together.
    todo: batches.
    there: how many pictures are there, those among the batches too.
    """

    def __init__(self, f, source, prompts: list[str]):
        """f: the flags of `generate`; source: the opened weights. Raises ValueError for prompts
        that cannot be drawn, before anything is loaded."""
        processor = source.processor()
        _check(processor, prompts)
        self.seed = f.seed
        self.form = {"steps": f.steps or None, "size": f.size or None}
        if f.steps or f.size:
            _require_form(source, **self.form)
        self.settings = settings(processor, f.cfg_scale, f.temperature)
        self.gallery = Gallery(f.out, **facts(f, source, *self.settings))
        self.columns = max(min(f.n, 12), 6)
        prompts = list(dict.fromkeys(prompts))  # one seed draws the same picture each time
        self.count = len(prompts) * f.n
        each = min(f.n, AT_ONCE)
        together = AT_ONCE // each
        self.at_once = min(together, len(prompts)) * each
        batches = (
            Batch(some, [self.seed] * len(some), first, min(each, f.n - first))
            for some in (prompts[i : i + together] for i in range(0, len(prompts), together))
            for first in range(0, f.n, each)
        )
        self.todo = []
        self.there = 0
        for batch in batches:
            there = [self.gallery.holds(*picture) for picture in _pictures(batch)]
            self.there += sum(there)
            if not all(there):
                self.todo.append(batch)

    def draw(self, model, processor):
        """Draws and writes batch by batch; prints each path. Ctrl-C leaves what is done."""
        if self.there:
            print(f"{self.there:,} of {self.count:,} pictures are there, drawn alike")

        def keep(i: int, pictures: list):
            for picture, (prompt, k) in zip(pictures, _pictures(self.todo[i])):
                self.there += not self.gallery.holds(prompt, k)
                self._keep(picture, prompt, k)

        try:
            cfg_scale, temperature = self.settings
            draw = functools.partial(
                generate, model, processor, cfg_scale=cfg_scale, temperature=temperature,
                **self.form,
            )  # fmt: skip
            draw_batches(draw, self.todo, keep)
        except KeyboardInterrupt:
            print(f"\n{self.there:,} of {self.count:,} pictures are there", file=sys.stderr)
            raise
        finally:
            _tell(self.gallery.finish(self.columns))

    def _keep(self, picture, prompt: str, k: int):
        path = self.gallery.add(picture, prompt, k)
        print(f"{path}  {short(prompt)!r}, {picture.width} x {picture.height}", flush=True)
        _tell(self.gallery.show(picture, prompt, self.columns))


def _pictures(batch: Batch) -> list[tuple[str, int]]:
    """(prompt, number) of the pictures of a batch, in the order in which they are drawn."""
    numbers = range(batch.first, batch.first + batch.count)
    return [(prompt, k) for prompt in batch.prompts for k in numbers]


def _check(processor, prompts: list[str]):
    problems = []
    for i, prompt in enumerate(prompts):
        try:
            processor.request(prompt, f"prompts[{i}]")
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def _tell(sheet):
    if sheet:
        print(sheet)


def _require_form(model, steps: int | None, size):
    """Raises ValueError for steps or a size that a model, or the weights of one, does not draw in."""
    vq = model.config.generation_encoder
    height, width = vq.grid if size is None else sizes.drawn_grid(size, vq)
    if steps is not None:
        tokens = vq.tokens if (height, width) == vq.grid else height * width
        masked.require_steps(model, steps, tokens)
