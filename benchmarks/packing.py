"""How full the rows of the released configs are, and how many of their places for pictures, with the
lengths that the configs assume: by simulated packing, nothing is read.

    python benchmarks/packing.py                                  # every stage and target
    python benchmarks/packing.py --stages=stage2 --rows=4096,2,3  # other rows: length, pictures

Of your own data `janus-jax data check` says the same.
"""

import argparse
import dataclasses
import pathlib
import runpy

import numpy as np

from janus_jax.config import read
from janus_jax.config.schema import Dataset
from janus_jax.data.tools import forecast, survey

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
STAGES = "stage1", "stage2", "stage3", "pro_stage1", "pro_stage2", "pro_stage3"
# Of an example: tokens of its picture, and of text on average (log-normal) with its spread, a guess.
LENGTHS = {"understanding": (576, 110, 0.5), "text": (0, 1000, 0.8), "generation": (576, 40, 0.5)}
LEAST = 10  # tokens of text
POOL = 4096  # examples to draw from


def surveyed(kind: str, length: int, stage: str) -> survey.Survey:
    """A data set of such examples, those of text cut to a row."""
    pictures, mean, spread = LENGTHS[kind]
    rng = np.random.default_rng(0)
    text = np.exp(rng.normal(np.log(mean) - spread**2 / 2, spread, POOL)).astype(int)
    sees, draws = kind == "understanding", kind == "generation"
    good = []
    for i, words in enumerate(np.clip(text, LEAST, length - pictures).tolist()):
        one = survey.Example(pictures + words, int(sees), int(draws), words, words, False)
        good.append(survey.Record(i, [], [], [], b"", {stage: [one]}))
    return survey.Survey(kind, kind, "", total=POOL, looked=POOL, good=good)


def packed(config: str, rows=None) -> dict:
    """What `data.tools.forecast` says of a config's only stage. rows: other ones, (length, pictures
    to understand, to draw)."""
    built, wrong = read.read(str(config), {})
    assert not wrong, wrong
    ((name, stage),) = built.stages.items()
    if rows:
        names = "length", "understanding_images", "generation_images"
        other = dataclasses.replace(stage.rows, **dict(zip(names, rows)))
        stage = dataclasses.replace(stage, rows=other)
    kinds = [kind for kind in LENGTHS if getattr(stage.ratio, kind)]
    surveys = {kind: surveyed(kind, stage.rows.length, name) for kind in kinds}
    lines = {kind: Dataset(kind, "") for kind in kinds}
    (phase,) = forecast.forecast(name, lines, surveys, stage, built.seed)
    return phase | {"rows": stage.rows}


def line(name: str, found: dict) -> str:
    rows, p = found["rows"], found["pictures"]
    cells = [
        name, f"{rows.count} x {rows.length}", f"{found['full']:.1%}",
        f"{found['examples_a_step']:.0f} of {found['asked_a_step']}",
        "{} + {}".format(*p["room"]), "{:.2f} + {:.2f}".format(*p["holds"]),
        "{} + {}: {:.1%}".format(*p["fewer"], p["full"]) if "fewer" in p else "",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--rows", help="length,understanding_images,generation_images")
    args = parser.parse_args()
    rows = args.rows and [int(n) for n in args.rows.split(",")]
    print("| rows of | count x length | full | examples | pictures: room | held | with fewer |")
    print("|---|---|---|---|---|---|---|")
    for stage in args.stages.split(","):
        path = CONFIGS / f"{stage}.py"
        seen = set()
        for target in [""] if rows else runpy.run_path(str(path))["TARGETS"]:
            config = f"{path}:{target}" if target else str(path)
            r = next(iter(read.read(config, {})[0].stages.values())).rows
            if dataclasses.astuple(r) not in seen:
                seen.add(dataclasses.astuple(r))
                print(line(f"{stage}:{target}".rstrip(":"), packed(config, rows)), flush=True)


if __name__ == "__main__":
    main()
