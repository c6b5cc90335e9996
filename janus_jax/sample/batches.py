"""Any number of pictures, a few at a time, with a line of progress."""

import dataclasses
from collections.abc import Callable

from janus_jax.common.progress import Progress

AT_ONCE = 16  # pictures that are drawn together; more would only take more memory


class Drawing(Progress):
    """The line of progress while so many pictures are drawn."""

    def __init__(self, count: int, **how):
        def speed(steps: int, seconds: float) -> str:
            return f"{60 * count * steps / self.total / seconds:.3g} images/min"

        super().__init__(
            f"drawing {count} (the first time compiles)", 0, "steps", speed=speed, **how
        )

    def tell(self, done: int, total: int):
        """As `generate` calls `progress`. The first steps, which compile, are not part of the
        speed."""
        self.total = total
        if not self.first and done < total:
            self.skip(done)
            self.begun = self.clock()
        else:
            self.at(done)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Pictures that are drawn together: of each prompt `count`, the `first`-th of its seed and
    those after it. seeds: one a prompt."""

    prompts: list[str]
    seeds: list[int]
    first: int
    count: int

    @property
    def size(self) -> int:
        return len(self.prompts) * self.count


def draw_batches(draw: Callable, batches: list[Batch], keep: Callable):
    """Draws batch by batch, with a line of progress, and holds the pictures of one at a time.

    draw: `sample.generate.generate` of a model, a guidance and a temperature.
    keep: (number of the batch, its pictures, row-major by prompt), called as each batch is done.
    """
    with Drawing(sum(batch.size for batch in batches)) as bar:
        for i, batch in enumerate(batches):
            tell = lambda done, total, i=i: bar.tell(i * total + done, len(batches) * total)
            pictures = draw(
                batch.prompts, seed=batch.seeds, images_per_prompt=batch.count, first=batch.first,
                progress=tell,
            )  # fmt: skip
            bar.close()
            keep(i, pictures)
