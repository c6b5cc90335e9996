"""A benchmark's pictures at any scale: each process draws its share and writes it as it comes.

The batches are the same whoever draws them, and each is drawn whole or not at all, so that the tree
is the same, byte for byte, on any number of processes and after any kill.
"""

import pathlib
from collections.abc import Callable

from janus_jax.common import files
from janus_jax.eval.benchmark import Item
from janus_jax.sample.batches import AT_ONCE, Batch, draw_batches

PER_SEED = 100_003  # prompts that one seed can tell apart


def picture_seed(seed: int, number: int) -> int:
    """The seed of the `number`-th prompt of a file. Its pictures are the first, the second, ... of
    that seed, so two lines of one text are drawn apart."""
    return (seed * PER_SEED + number) % 2**32


def batches_of(processor, items: list[Item], seed: int, pictures: int) -> list[tuple]:
    """All of a benchmark's batches, each (Batch, its items): prompts of about one length together,
    so that a long one makes few others wait. Raises ValueError that lists the prompts that cannot
    be drawn."""
    lengths = []
    problems = []
    for item in items:
        try:
            lengths.append(len(processor.request(item.prompt, f"the prompt of {item.files[0]}")))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    order = sorted(range(len(items)), key=lengths.__getitem__)
    together = max(AT_ONCE // pictures, 1)
    found = []
    for begin in range(0, len(order), together):
        numbers = order[begin : begin + together]
        some = [items[n] for n in numbers]
        seeds = [picture_seed(seed, n) for n in numbers]
        found.append((Batch([item.prompt for item in some], seeds, 0, pictures), some))
    return found


def draw_tree(
    draw: Callable, processor, items: list[Item], folder: pathlib.Path, compose: Callable, *,
    pictures: int, seed: int, share: tuple[int, int] = (0, 1),
) -> int:  # fmt: skip
    """Draws what of a tree is not there yet, and returns how many files were written.

    draw: `sample.generate.generate` of a model, a guidance and a temperature.
    processor: of the model.
    items: of the benchmark, all of them on every process.
    compose: the benchmark's: the pictures of an item -> those that its files hold.
    pictures: how many of each prompt.
    share: (which process this is, of how many).

    Raises ValueError for prompts that cannot be drawn, OSError where the disk takes no more; what
    was written stays, and the same call goes on from there.
    """
    index, count = share
    todo = [
        (batch, some)
        for batch, some in batches_of(processor, items, seed, pictures)[index::count]
        if not all((folder / file).exists() for item in some for file in item.files)
    ]
    written = 0

    def keep(i: int, drawn: list):
        nonlocal written
        for k, item in enumerate(todo[i][1]):
            made = compose(drawn[k * pictures : (k + 1) * pictures])
            for file, picture in zip(item.files, made, strict=True):
                path = folder / file
                if path.exists():
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                files.write(path, lambda out, picture=picture: picture.save(out, "PNG"))
                written += 1

    if todo:
        draw_batches(draw, [batch for batch, _ in todo], keep)
    return written
