"""What evaluates beside the obvious way: a loop over `generate` and `understand`, one at a time.

    python benchmarks/evaluation.py --out=benchmarks/results/evaluation-cpu

Prompts and questions of the shapes world, the weights that come with the package. Both ways are
tried once before (what they compile does not count), then take turns; a time is the least of
`--repeats`. The pictures and the answers of both ways are compared, one by one.
"""

import functools
import importlib.metadata
import json
import pathlib
import shlex
import sys
import tempfile
import time

import jax
import machine
import numpy as np
from absl import app, flags
from PIL import Image

import janus_jax
from janus_jax.data.toy import shapes
from janus_jax.eval import answering, drawing
from janus_jax.eval.benchmark import Item, Record
from janus_jax.sample.understand import understand_batch

OUT = flags.DEFINE_string("out", None, "Where OUT.json and OUT.md go.", required=True)
COUNT = flags.DEFINE_integer("count", 64, "Prompts, and about as many questions.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Times that each way runs.")
SETTINGS = {"cfg_scale": 1.5, "temperature": 0.5}


def drawings(model, processor, count: int):
    """(one at a time, in batches): functions that give uint8 pictures [n, H, W, 3]."""
    asked = shapes.evaluation_prompts(-(-count // len(shapes.TASKS)), 0)[:count]
    items = [Item(prompt.text, (f"{i}.png",)) for i, prompt in enumerate(asked)]

    def alone():
        found = []
        for i, item in enumerate(items):
            seed = drawing.picture_seed(0, i)
            found += janus_jax.generate(model, processor, item.prompt, seed=seed, **SETTINGS)
        return np.stack([np.asarray(picture) for picture in found])

    def together():
        with tempfile.TemporaryDirectory() as folder:
            tree = pathlib.Path(folder)
            draw = functools.partial(janus_jax.generate, model, processor, **SETTINGS)
            drawing.draw_tree(draw, processor, items, tree, list, pictures=1, seed=0)
            return np.stack([np.asarray(Image.open(tree / item.files[0])) for item in items])

    return alone, together


def answers(model, processor, count: int):
    """(one at a time, in batches): functions that give lists of answers."""
    kinds = sum(map(len, shapes.ANSWERS.values()))
    asked = shapes.evaluation_questions(-(-count // kinds), 0)[:count]
    records = [
        Record(str(i), question, (Image.fromarray(picture),))
        for i, (_, picture, question, _) in enumerate(asked)
    ]

    def ask(record):
        image = {"type": "image", "image": record.pictures[0]}
        return [{"role": "user", "content": [image, {"type": "text", "text": record.question}]}]

    def alone():
        return [
            janus_jax.understand(model, processor, ask(record), max_new_tokens=8)
            for record in records
        ]

    def together():
        with tempfile.TemporaryDirectory() as folder:
            place = pathlib.Path(folder)
            answer = functools.partial(understand_batch, model, processor)
            answering.answer_all(answer, records, place, ask, max_new_tokens=8)
            return [told["answer"] for told in answering.gather(place, records)]

    return alone, together


def measure(ways, repeats: int) -> dict:
    """Seconds of each way, their ratio, and how much of what they give is the same."""
    found = [way() for way in ways]
    alike = [np.array_equal(a, b) for a, b in zip(*found, strict=True)]
    seconds = [float("inf")] * len(ways)
    for _ in range(repeats):
        for i, way in enumerate(ways):
            begun = time.perf_counter()
            way()
            seconds[i] = min(seconds[i], time.perf_counter() - begun)
    alone, together = seconds
    return {
        "one at a time, s": alone, "batches, s": together, "ratio": alone / together,
        "same": sum(alike), "of": len(alike),
    }  # fmt: skip


def main(_):
    model, processor = janus_jax.load("quickstart")
    found = {
        "command": shlex.join(["python", "benchmarks/evaluation.py", *sys.argv[1:]]),
        "processor": machine.name(jax.devices()[0]),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "numpy", "pillow")},
        "drawing": measure(drawings(model, processor, COUNT.value), REPEATS.value),
        "answering": measure(answers(model, processor, COUNT.value), REPEATS.value),
    }
    out = pathlib.Path(OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    out.with_suffix(".md").write_text(page(found), "utf-8")
    print(page(found))


def page(found: dict) -> str:
    lines = [
        f"`{found['command']}` on {found['processor']}; "
        + ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "",
        "| | one at a time | in batches | ratio | the same |",
        "|---|---|---|---|---|",
    ]
    for name in ("drawing", "answering"):
        one = found[name]
        lines.append(
            f"| {name} | {one['one at a time, s']:.2f} s | {one['batches, s']:.2f} s | "
            f"{one['ratio']:.2f}x | {one['same']} of {one['of']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    app.run(main)
