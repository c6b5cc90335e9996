"""What a step of GRPO on the toy weights takes, part by part and against drawing one picture at a time,
and how far the trainer's log-probabilities lie from the decoder's: `python benchmarks/grpo.py`.

Runs configs/quickstart_grpo.py for single steps, at each guidance, temperature and type, and for some
more to time them, and writes two tables from what the runs have logged.

    --steps=N       steps that are timed, after three that are not (default: 20)
    --count=N       drawings, or answers, of a step (default: 64)
    --guidance=A,B  of drawings (default: 0,1,5)
    --temperature=A,B (default: 0.5,1)
    --dtypes=A,B    what the model computes in (default: float32,bfloat16)
    --out=DIR       where the runs and the tables go (default: runs/grpo_benchmark)
"""

import argparse
import itertools
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import machine

import janus_jax
from janus_jax.common.text import table
from janus_jax.sample import rollouts

ROOT = pathlib.Path(__file__).resolve().parents[1]
PARTS = ("rollout", "reward", "scoring", "update")
WARM = 3  # steps that compile
PROMPT = "a red circle and a blue square"


def steps_of(out: pathlib.Path, target: str, count: int, steps: int, **options) -> list[dict]:
    """What a new run has logged of its steps. options: of the task; `dtype`, what the model computes
    in."""
    folder = out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    stage = "--config.stages.grpo"
    dtype = options.pop("dtype", "bfloat16")
    length = 104 if float(options.get("cfg_scale", 1)) != 1 else 52  # a guided drawing has a twin
    command = [
        sys.executable, "-m", "janus_jax.main", f"--config=configs/quickstart_grpo.py{target}",
        f"--workdir={folder}", f"--config.model.dtype={dtype}", f"{stage}.steps={steps}",
        f"{stage}.rows.count={count}", f"{stage}.batch_size={count}", f"{stage}.rows.length={length}",
        f"{stage}.log_every=1", f"{stage}.optim.schedule=constant", f"{stage}.optim.warmup_steps=0",
        "--config.evaluation.every=0", "--config.evaluation.at_start=False",
        "--config.evaluation.benchmarks=()", "--config.evaluation.count=0", f"{stage}.options.sheet_every=0",
        *(f"{stage}.options.{name}={value}" for name, value in options.items()),
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    return [line for line in map(json.loads, lines) if "seconds_update" in line]


def differences(out: pathlib.Path, asked):
    """Rows of how far the trainer's log-probabilities are from the decoder's, nats an id."""
    heats = asked.temperature.split(",")
    ways = [("drawings", *way) for way in itertools.product(asked.guidance.split(","), heats)]
    ways += [("answers", "-", heat) for heat in heats]
    for what, scale, heat in ways:
        row = [what, scale, heat]
        options = {"temperature": heat} | ({"cfg_scale": scale} if what == "drawings" else {})
        target = "" if what == "drawings" else ":answers"
        for dtype in asked.dtypes.split(","):
            (found,) = steps_of(out, target, asked.count, 1, dtype=dtype, **options)
            row += [f"{found[f'decoder_difference{x}']:.1e}" for x in ("", "_most")]
        print(" | ".join(row), flush=True)
        yield row


def one_at_a_time(count: int) -> tuple[float, float]:
    """Seconds of a drawing among `count` that are drawn together, and of one drawn by itself."""
    model, processor = janus_jax.load("quickstart")
    ids = processor.request(PROMPT)
    how = {"cfg_scale": 1.0, "temperature": 1.0}
    found = []
    for n, times in (count, 5), (1, 20):
        draw = lambda seed, n=n: rollouts.drawings(
            model, [ids], [seed], n, processor.unconditional, **how
        )
        draw(0)
        took = []
        for seed in range(1, 1 + times):
            begun = time.perf_counter()
            draw(seed)
            took.append(time.perf_counter() - begun)
        found.append(statistics.median(took) / n)
    return tuple(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--guidance", default="0,1,5")
    parser.add_argument("--temperature", default="0.5,1")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--out", default="runs/grpo_benchmark")
    asked = parser.parse_args()
    out = pathlib.Path(asked.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    timed = steps_of(out, "", asked.count, WARM + asked.steps)[WARM:]
    seconds = {p: statistics.median(line[f"seconds_{p}"] for line in timed) for p in PARTS}
    whole = sum(seconds.values())
    together, alone = one_at_a_time(asked.count)
    split = [[p, f"{x:.3f}", f"{x / whole:.0%}"] for p, x in seconds.items()]
    text = [
        f"{machine.name()}\n",
        f"A step of {asked.count} drawings, medians of {asked.steps} steps:\n",
        table(["part", "seconds", "share"], [*split, ["all", f"{whole:.3f}", "100%"]]),
        f"\n{asked.count} drawings together take {1000 * together:.1f} ms each, one at a time "
        f"{1000 * alone:.1f} ms: {alone / together:.1f}x\n",
        "Between the trainer's and the decoder's log-probabilities, nats an id, mean and most:\n",
    ]
    names = itertools.product(asked.dtypes.split(","), ("mean", "most"))
    head = ["", "guidance", "temperature", *(f"{dtype}, {what}" for dtype, what in names)]
    text.append(table(head, list(differences(out, asked))))
    (out / "report.md").write_text("\n".join(text) + "\n", "utf-8")
    print(*text, sep="\n")


if __name__ == "__main__":
    main()
