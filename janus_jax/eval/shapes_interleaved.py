"""Answers of words and pictures in the shapes world, both read back exactly:
`python -m janus_jax.eval.shapes_interleaved --model=runs/interleaved_shapes/interleaved --out=scores/interleaved`

For each of a few hundred requests that no training saw: whether the drawing is what was asked for, and
whether what is said after it is true of this very drawing. Writes results.json and answers.png into --out,
and prints the table.
"""

import json
import pathlib
import sys

import numpy as np

from janus_jax.common import cli, outputs
from janus_jax.common.contact_sheet import contact_sheet
from janus_jax.common.text import table
from janus_jax.data.toy.shapes import SIDE, read
from janus_jax.data.toy.shapes_interleaved import ASKED, Request, random_request
from janus_jax.sample.respond import respond_batch

SHOWN = 4  # answers of each kind on the sheet
WORDS = 40  # tokens of an answer, at most
OTHERS = 20  # answers to other requests that chance is measured with, for each
AT_ONCE = 50  # requests that are answered together


def requests(count: int, seed: int) -> list[Request]:
    """`count` of each kind."""
    rng = np.random.default_rng((seed, 6))
    return [random_request(rng, kind) for kind in ASKED for _ in range(count)]


def answers(model, processor, some: list[Request], seed: int, **how) -> list[list]:
    """What a model answers, strings and pictures; answer k has the seed `seed` + k."""
    found = []
    for first in range(0, len(some), AT_ONCE):
        asked = [
            [{"role": "user", "content": request.text}] for request in some[first : first + AT_ONCE]
        ]
        seeds = range(seed + first, seed + first + len(asked))
        found += respond_batch(
            model, processor, asked, seed=list(seeds), max_new_tokens=WORDS, max_images=2, **how
        )
    return found


def parts_of(answer: list) -> tuple[dict | None, str]:
    """(the scene of an answer's one drawing, the words after it); None and "" where it is no drawing
    between words, or the drawing cannot be read."""
    if len(answer) != 3 or [isinstance(part, str) for part in answer] != [True, False, True]:
        return None, ""
    return read(np.asarray(answer[1])), answer[2]


def marks(request: Request, scene: dict | None, words: str) -> dict[str, bool]:
    """drawn: the drawing is what was asked for; told: the words are true of it; right: both."""
    drawn = request.fits(scene)
    told = bool(words) and request.fact(scene) == words
    return {"drawn": drawn, "told": told, "right": drawn and told}


def shares_of(some: list[Request], found: list[list], seed: int) -> dict[str, dict]:
    """Of each kind and of all the shares of `marks`; beside them those of right answers to other
    requests of the kind (`chance ...`), and of what is true of another drawing of the same request
    (`blind`: told without a look at the drawing)."""
    rng = np.random.default_rng((seed, 7))
    rows = []
    for request, answer in zip(some, found, strict=True):
        row = marks(request, *parts_of(answer))
        other = []
        blind = []
        for _ in range(OTHERS):
            another = random_request(rng, request.kind)
            scene = another.scene(rng)
            other.append(marks(request, scene, another.fact(scene)))
            blind.append(request.fact(request.scene(rng)) == request.fact(request.scene(rng)))
        for name in ("drawn", "right"):
            row[f"chance {name}"] = np.mean([x[name] for x in other])
        rows.append(row | {"blind": np.mean(blind)})
    of = {kind: [r for r, x in zip(rows, some) if x.kind == kind] for kind in ASKED}
    return {
        name: {key: float(np.mean([r[key] for r in group])) for key in rows[0]}
        for name, group in (of | {"overall": rows}).items()
    }


def answer_sheet(some: list[Request], found: list[list], count: int):
    """What was asked for, what was drawn and said, leads left out: SHOWN of each kind. count: of each
    in `some`."""
    blank = np.full((SIDE, SIDE, 3), 255, np.uint8)
    shown = []
    told = []
    for kind in range(len(ASKED)):
        for k in range(kind * count, kind * count + min(SHOWN, count)):
            mark = marks(some[k], *parts_of(found[k]))
            said = [x for x in found[k] if isinstance(x, str) and x != some[k].lead]
            shown.append(next((x for x in found[k] if not isinstance(x, str)), blank))
            wrong = " and ".join(name for name in ("drawn", "told") if not mark[name])
            judged = f"wrongly {wrong}" if wrong else "right"
            told.append(f'{some[k].text} "{" / ".join(said)}" ({judged})')
    return contact_sheet(shown, told, 4, 5)


def define_flags(into):
    define = cli.Definer(into)
    define.path("model", None, "A weights directory.", required=True)
    define.output("out", None, "The folder of the result.", required=True)
    define.whole("count", 100, "Requests of each kind.", 1)
    define.whole("seed", 1000, "Same seed, same requests and answers.")
    define.number("cfg_scale", None, "Guidance; by default what the weights suggest.")
    define.number("temperature", 0.0, "Of the words; 0 takes the likeliest.")
    define.number("image_temperature", None, "By default what the weights suggest.")


def _run(f, _):
    from janus_jax.weights.load import load

    outputs.require_writable(f.out, "--out")
    model, processor = load(f.model)
    some = requests(f.count, f.seed)
    how = {
        "cfg_scale": f.cfg_scale, "temperature": f.temperature, "image_temperature": f.image_temperature
    }  # fmt: skip
    found = answers(model, processor, some, f.seed, **how)
    shares = shares_of(some, found, f.seed)
    folder = pathlib.Path(f.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(shares, indent=2), "utf-8")
    answer_sheet(some, found, f.count).save(folder / "answers.png")
    headers = "fact", "drawn", "chance", "told", "blind", "both right", "chance"
    keys = "drawn", "chance drawn", "told", "blind", "right", "chance right"
    print(table(headers, [(name, *(row[key] for key in keys)) for name, row in shares.items()]))


COMMAND = cli.Command(
    "python -m janus_jax.eval.shapes_interleaved",
    "Answers of words and pictures in the shapes world, read back exactly.",
    "python -m janus_jax.eval.shapes_interleaved --model=runs/interleaved_shapes/interleaved --out=scores",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.eval.shapes_interleaved`."""
    return cli.run(COMMAND, _run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
