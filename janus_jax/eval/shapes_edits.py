"""Edits of the shapes world, drawn and read back exactly:
`python -m janus_jax.eval.shapes_edits --model=runs/edit_shapes/edit --out=scores/edits`

For each of a few hundred edits that no training saw: what was there, what is asked for, what should
come out and what was drawn. Writes results.json and edits.png into --out, and prints the table.
"""

import dataclasses
import json
import pathlib
import sys

import numpy as np

from janus_jax.common import cli, outputs
from janus_jax.common.contact_sheet import contact_sheet
from janus_jax.common.text import table
from janus_jax.data.toy.shapes import COLOURS, SHAPES, draw, read
from janus_jax.data.toy.shapes_edits import EDITS, Edit, random_edit
from janus_jax.sample import edit_prompts as sampling
from janus_jax.sample.decode import ids_of
from janus_jax.sample.generate import decode_ids, settings, to_pil

SHOWN = 4  # edits of each task on the sheet


def edits(count: int, seed: int) -> list[Edit]:
    """`count` of each task."""
    rng = np.random.default_rng((seed, 4))
    return [random_edit(rng, task) for task in EDITS for _ in range(count)]


def draw_edits(
    model, processor, some: list[Edit], seed: int, cfg_scale, image_cfg_scale: float, temperature,
    source_ids: bool,
) -> list[np.ndarray]:  # fmt: skip
    """The pictures, uint8 [24, 24, 3], that a model draws for edits; drawing k has the seed `seed` + k."""
    scale, heat = settings(processor, cfg_scale, temperature)
    requests = []
    for k, edit in enumerate(some):
        asked = sampling.edit_prompt(processor, draw(edit.before), edit.text, source_ids)
        branches = sampling.branches_of(model, processor, *asked)
        count = processor.generation_tokens
        requests.append(
            sampling.request(branches, scale, image_cfg_scale, seed + k, 0, heat, count)
        )
    return [np.asarray(picture) for picture in to_pil(decode_ids(model, ids_of(model, requests)))]


def cells(edit: Edit, after: dict | None) -> float:
    """The share of the nine cells that are as they should be, of what comes out where most are."""
    if after is None:
        return 0.0
    wanted = [edit.done(cell) for cell in edit.cells]
    return max(float(np.mean([after.get(k) == w.get(k) for k in range(9)])) for w in wanted)


def blind(rng: np.random.Generator, edit: Edit) -> dict:
    """A scene that comes of an edit of this task, chosen without its words."""
    free = [cell for cell in range(9) if cell not in edit.before]
    cell = int(rng.choice(free if edit.task == "add" else list(edit.before)))
    own, shape = edit.before.get(cell, (None, str(rng.choice(SHAPES))))
    colour = str(rng.choice([c for c in COLOURS if c != own]))
    return dataclasses.replace(edit, thing=(colour, shape)).done(cell)


def shares_right(some: list[Edit], scenes: list[dict | None], seed: int) -> dict[str, dict]:
    """Of each task and of all: the share that is `right`, and of `cells`; beside them what copying what
    was there gives (`copied`: of cells, for none is right), and what an edit without the words
    (`chance`: right)."""
    rng = np.random.default_rng((seed, 5))
    rows = [
        {
            "right": edit.fits(after), "cells": cells(edit, after),
            "chance": np.mean([edit.fits(blind(rng, edit)) for _ in range(20)]),
            "copied": cells(edit, edit.before), "copied right": edit.fits(edit.before),
        }
        for edit, after in zip(some, scenes, strict=True)
    ]  # fmt: skip
    of = {task: [r for r, edit in zip(rows, some) if edit.task == task] for task in EDITS}
    return {
        name: {key: float(np.mean([r[key] for r in group])) for key in rows[0]}
        for name, group in (of | {"overall": rows}).items()
    }


def edit_sheet(some: list[Edit], pictures: list[np.ndarray], count: int):
    """What was there, what should come out and what was drawn, a line an edit, SHOWN of each task.
    count: of each task in `some`."""
    shown = []
    told = []
    for task in range(len(EDITS)):
        for k in range(task * count, task * count + min(SHOWN, count)):
            edit = some[k]
            right = edit.fits(read(pictures[k]))
            shown += [draw(edit.before), draw(edit.done(edit.cells[0])), pictures[k]]
            told += [edit.text, "what should come out", "drawn: " + ("right" if right else "wrong")]
    return contact_sheet(shown, told, 6, 4)


def define_flags(into):
    define = cli.Definer(into)
    define.path("model", None, "A weights directory.", required=True)
    define.output("out", None, "The folder of the result.", required=True)
    define.whole("count", 50, "Edits of each task.", 1)
    define.whole("seed", 1000, "Same seed, same edits and drawings.")
    define.number("cfg_scale", None, "Guidance by the words; by default what the weights suggest.")
    define.number("image_cfg_scale", 1.0, "Guidance by the pictures.")
    define.number(
        "temperature", None, "0 takes the likeliest; by default what the weights suggest."
    )
    define.switch("source_ids", True, "Whether pictures are given as ids too.")


def _run(f, _):
    from janus_jax.weights.load import load

    outputs.require_writable(f.out, "--out")
    model, processor = load(f.model)
    some = edits(f.count, f.seed)
    how = f.seed, f.cfg_scale, f.image_cfg_scale, f.temperature, f.source_ids
    pictures = draw_edits(model, processor, some, *how)
    found = shares_right(some, [read(picture) for picture in pictures], f.seed)
    folder = pathlib.Path(f.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(found, indent=2), "utf-8")
    edit_sheet(some, pictures, f.count).save(folder / "edits.png")
    headers = "task", "right", "chance", "copying", "cells right", "copying"
    keys = "right", "chance", "copied right", "cells", "copied"
    print(table(headers, [(name, *(row[key] for key in keys)) for name, row in found.items()]))


COMMAND = cli.Command(
    "python -m janus_jax.eval.shapes_edits",
    "Edits of the shapes world, drawn and read back exactly.",
    "python -m janus_jax.eval.shapes_edits --model=runs/edit_shapes/edit --out=scores/edits",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.eval.shapes_edits`."""
    return cli.run(COMMAND, _run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
