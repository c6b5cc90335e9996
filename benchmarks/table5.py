"""The paper's Table 5 in miniature, from nothing to the table: `python benchmarks/table5.py`.

Trains what the experiments share once, then experiments A to F of configs/miniature.py for each
seed, asks and draws with each, and writes the table. Every job is a `janus-jax` command of its own,
which goes on where it was stopped; run this again and it does what is left. What is compared and
what it would mean stands in docs/table5.md.

    --out=DIR       where all of it goes (default: runs/miniature)
    --seeds=N       runs of each experiment (default: 2)
    --only=A,D      these experiments alone
    --report        only write the table of what is done
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import table5_report

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG = "configs/miniature.py"
SHARED = ("vq", "siglip", "semantic", "detector")
# The best informed first, so that a run that is cut short has whole pairs.
ORDER = ("D", "A", "B", "E", "F", "C")
BEGINS = {  # what stage 1 of an experiment begins with
    "A": ("vq",), "B": ("semantic",), "C": ("semantic",), "D": ("siglip", "vq"), "E": ("siglip", "vq"),
    "F": ("siglip", "vq"),
}  # fmt: skip
PROBED = ("A", "B", "D")  # those in which two tasks meet
ASKED = "scenes:96?seed=1000"
DRAWN = "scenes:64?seed=2000&detector={detector}"


def weights(out: pathlib.Path, name: str) -> pathlib.Path:
    return out / name / name


def commands(out: pathlib.Path, seeds: int, only: tuple[str, ...]) -> list[tuple]:
    """(name, the file that says it is done, what `python -m` is given) of every job, in order."""
    jobs = []
    for name in SHARED:
        flags = [f"--config={CONFIG}:{name}", f"--workdir={out / name}"]
        if name == "semantic":
            flags.append(f"--config.stages.semantic.init={weights(out, 'siglip')}")
        jobs.append((name, weights(out, name) / "model.safetensors", ["janus_jax.main", *flags]))
    for seed in range(seeds):
        for letter in (letter for letter in ORDER if letter in only):
            jobs += experiment(out, letter, seed)
    return jobs


def experiment(out: pathlib.Path, letter: str, seed: int) -> list[tuple]:
    run = out / f"{letter}-{seed}"
    begins = ",".join(str(weights(out, name)) for name in BEGINS[letter])
    flags = [
        f"--config={CONFIG}:{letter}", f"--workdir={run}", f"--config.seed={seed}",
        f"--config.stages.stage1.init={begins}",
    ]  # fmt: skip
    if letter in PROBED:
        flags += [
            f"--config.stages.{stage}.options.probe_every=40" for stage in ("stage2", "stage3")
        ]
    jobs = [(run.name, run / "stage3" / "model.safetensors", ["janus_jax.main", *flags])]
    detector = weights(out, "detector")
    for half, data, without in (
        ("understanding", ASKED, "F"),
        ("generation", DRAWN.format(detector=detector), "CE"),
    ):
        if letter not in without:
            asked = [
                "janus_jax.eval", "--benchmark=scenes", f"--half={half}", f"--data={data}", f"--model={run / 'stage3'}",
                f"--out={run / half}",
            ]  # fmt: skip
            jobs.append((f"{run.name} {half}", run / half / "report.json", asked))
    return jobs


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/miniature"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default=",".join(ORDER))
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    only = tuple(given.only.split(","))
    if unknown := set(only) - set(ORDER):
        parser.error(
            f"--only: {', '.join(sorted(unknown))}: the experiments are {', '.join(ORDER)}"
        )
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if not given.report:
        work(commands(out, given.seeds, only), out / "seconds.json")
    table5_report.write(out)


def work(jobs: list[tuple], clock: pathlib.Path):
    """Does the jobs whose file is not there, each after the other, and adds up their seconds."""
    seconds = json.loads(clock.read_text()) if clock.exists() else {}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for number, (name, done, arguments) in enumerate(jobs, 1):
        if done.is_file():
            continue
        print(f"[{number} of {len(jobs)}] {name}", flush=True)
        begun = time.time()
        command = [sys.executable, "-m", *arguments]
        ended = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        # Of a job that was stopped and went on, all of it counts.
        seconds[name] = seconds.get(name, 0) + time.time() - begun
        clock.write_text(json.dumps(seconds, indent=2))
        if ended.returncode or not done.is_file():
            sys.exit(
                f"{name} ended with {ended.returncode} and left no {done}: {' '.join(command)}"
            )


if __name__ == "__main__":
    main()
