"""How well, and how fast, models of the shapes world draw in several ways:
`python benchmarks/drawing_ways.py --model=runs/masked/masked --steps=8,32`, or
`python benchmarks/drawing_ways.py --model=quickstart,runs/scales/stage3`.

Draws the world's evaluation prompts in every way, reads the pictures back exactly, and writes a table
of the shares that are right, beside chance, and a sheet of the first pictures of each.

    --model=DIR       weights of the shapes world, or `quickstart`, or several
    --steps=8,32      of a model that draws masked; 0: the model's own number, one id a step, or one
                      scale a step
    --sizes=24x16     of a model that draws several; `square`: its square
    --count=50        prompts of each of the six tasks
    --out=DIR         where table and sheet go (default: runs/drawing_ways)
"""

import argparse
import itertools
import pathlib
import time

import machine
import numpy as np

import janus_jax
from janus_jax.common.contact_sheet import contact_sheet
from janus_jax.common.text import table
from janus_jax.data.toy.shapes import TASKS, drawing_chance, evaluation_prompts, read

SHOWN = 12  # pictures of each way on the sheet
SEED = 1000  # of the prompts, as the quick start's own evaluation has it


def drawn(model, processor, prompts: list, how: dict) -> tuple[list, float]:
    """The pictures, and the seconds that each took, compiling apart."""
    draw = lambda some: janus_jax.generate(model, processor, [p.text for p in some], seed=1, **how)
    draw(prompts[:32])
    begun = time.perf_counter()
    pictures = [
        picture for i in range(0, len(prompts), 32) for picture in draw(prompts[i : i + 32])
    ]
    return pictures, (time.perf_counter() - begun) / len(prompts)


def ways(asked):
    """(a name, model, processor, what `generate` is told) of every way that is asked for."""
    models = asked.model.split(",")
    for path in models:
        model, processor = janus_jax.load(path, dtype="float32")
        for size, steps in itertools.product(
            asked.sizes.split(","), map(int, asked.steps.split(","))
        ):
            how = ({"steps": steps} if steps else {}) | ({} if size == "square" else {"size": size})
            name = f"{size}, {f'{steps} steps' if steps else 'as the model draws'}"
            drawing = f"{model.config.drawing}: " if len(models) > 1 else ""
            yield f"{drawing}{name}", model, processor, how


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--steps", default="0")
    parser.add_argument("--sizes", default="square")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--out", default="runs/drawing_ways")
    asked = parser.parse_args()
    prompts = evaluation_prompts(asked.count, SEED)
    rows = [["chance", *(f"{drawing_chance(task, SEED):.2f}" for task in TASKS), "", ""]]
    shown, captions = [], []
    for name, *way in ways(asked):
        pictures, seconds = drawn(*way[:2], prompts, way[2])
        right = [p.fits(read(np.asarray(x))) for p, x in zip(prompts, pictures)]
        by_task = np.reshape(right, (len(TASKS), -1)).mean(1)
        figures = (f"{x:.2f}" for x in (*by_task, by_task.mean()))
        rows.append([name, *figures, f"{1000 * seconds:.0f}"])
        some = range(0, len(prompts), -(-len(prompts) // SHOWN))
        shown += [pictures[i] for i in some]
        captions += [f"{name}: {prompts[i].text}" for i in some]
        print(" | ".join(rows[-1]), flush=True)
    out = pathlib.Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    contact_sheet(shown, captions, SHOWN // 2, 6).save(out / "sheet.png")
    told = table(["", *TASKS, "mean", "ms a picture"], rows)
    (out / "table.md").write_text(f"{machine.name()}\n\n{told}\n", "utf-8")
    print(told)


if __name__ == "__main__":
    main()
