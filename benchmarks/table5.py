"""The paper's Table 5 in miniature, from nothing to the table: `python benchmarks/table5.py`.

Trains what the experiments share once, then experiments A to F of configs/miniature.py for each
seed, asks and draws with each, and writes the table. Every job is a command of its own, which goes
on where it was stopped; run this again and it does what is left. What is compared and what it would
mean stands in docs/table5.md.

    --out=DIR       where all of it goes (default: runs/miniature)
    --seeds=N       runs of each experiment (default: 2)
    --only=A,D      these experiments alone
    --report        only write the table of what is done
"""

import argparse
import dataclasses
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import machine
import table5_report

from janus_jax.common import files, provenance
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import differences, listed
from janus_jax.config.read import read

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG = "configs/miniature.py"
SHARED = ("vq", "siglip", "semantic", "detector")
# The best informed first, so that a run that is cut short has whole pairs.
ORDER = ("D", "A", "B", "E", "F", "C")
BEGINS = {  # what stage 1 of an experiment begins with
    "A": ("vq",), "B": ("semantic",), "C": ("semantic",), "D": ("siglip", "vq"), "E": ("siglip", "vq"),
    "F": ("siglip", "vq"),
}  # fmt: skip
HOLDS = {"vq": "DAEF", "semantic": "BC"}  # tokenizer -> the experiments that hold it, frozen
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
        if seed == 0:
            jobs += ceilings(out, only)
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
    for half, data in (("understanding", ASKED), ("generation", drawn(out))):
        if letter in table5_report.ASKED[half]:
            asked = [
                "janus_jax.eval", "--benchmark=scenes", f"--half={half}", f"--data={data}", f"--model={run / 'stage3'}",
                f"--out={run / half}",
            ]  # fmt: skip
            jobs.append((f"{run.name} {half}", run / half / "report.json", asked))
    return jobs


def drawn(out: pathlib.Path) -> str:
    return DRAWN.format(detector=weights(out, "detector"))


def ceilings(out: pathlib.Path, only: tuple[str, ...]) -> list[tuple]:
    """The jobs that measure each tokenizer alone, in a finished run that holds it."""
    jobs = []
    for name, letters in HOLDS.items():
        for letter in [x for x in ORDER if x in letters and x in only][:1]:
            done = out / table5_report.CEILING.format(name)
            model = out / f"{letter}-0" / "stage3"
            flags = [f"--model={model}", f"--data={drawn(out)}", f"--out={done}"]
            jobs.append((f"ceiling {name}", done, ["benchmarks.table5_ceiling", *flags]))
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
    try:
        if not given.report:
            jobs = commands(out, given.seeds, only)
            same_as_before(out, jobs)
            work(out, jobs)
        table5_report.write(out)
    except UsageError as error:
        parser.exit(2, f"{error}\n")


def decided_by(out: pathlib.Path, arguments: list[str]) -> dict:
    """What decides a job's result: its flags, its config as read, and the weights that it begins
    with or reads, of those that are there; not where all of it lies."""
    flags = dict(one.removeprefix("--").split("=", 1) for one in arguments[1:])
    found = {"command": arguments[0], "flags": flags}
    reads = [flags["model"]] if "model" in flags else []
    if "config" in flags:
        start = "config."
        over = {key.removeprefix(start): v for key, v in flags.items() if key.startswith(start)}
        values, _ = read(str(ROOT / flags["config"]), over)
        found["config"] = dataclasses.asdict(values)
        reads += next(iter(values.stages.values())).init
    found["weights"] = {
        path: provenance.weights_hash(pathlib.Path(path))
        for path in reads
        if pathlib.Path(path, files.WEIGHTS_FILE).is_file()
    }
    return json.loads(json.dumps(found, default=str).replace(str(out), "OUT"))


def kept_in(out: pathlib.Path, name: str) -> pathlib.Path:
    """The file that keeps what decides a job."""
    return out / "decided" / f"{name.replace(' ', '-')}.json"


def same_as_before(out: pathlib.Path, jobs: list[tuple]):
    """Raises UsageError for jobs that were done or begun under another config, other flags or other
    weights: their results are no part of this table."""
    wrong = []
    for name, done, arguments in jobs:
        kept = kept_in(out, name)
        if kept.is_file():
            changed = differences(files.read_json(kept), decided_by(out, arguments))
            wrong += [f"{name}: {line}" for line in changed]
        elif done.is_file():
            wrong.append(f"{name}: {done} is there, and no {kept} says how it was made")
    if wrong:
        raise UsageError(
            f"{out} holds work under other settings; give another --out, undo the change, or move "
            f"away the folders of these jobs and their files in {kept_in(out, 'x').parent}:"
            f"{listed(wrong)}"
        )


def work(out: pathlib.Path, jobs: list[tuple]):
    """Does the jobs whose file is not there, each after the other, and adds up what they take."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for number, (name, done, arguments) in enumerate(jobs, 1):
        if done.is_file():
            continue
        print(f"[{number} of {len(jobs)}] {name}", flush=True)
        decided = decided_by(out, arguments)
        kept_in(out, name).parent.mkdir(exist_ok=True)
        files.write(kept_in(out, name), json.dumps(decided, indent=2))
        command = [sys.executable, "-m", *arguments]
        code = timed(out / table5_report.CLOCK, name, command)
        if code or not done.is_file():
            sys.exit(f"{name} ended with {code} and left no {done}: {' '.join(command)}")


def timed(clock: pathlib.Path, name: str, command: list[str]) -> int:
    """Runs a command and returns its exit code. Its seconds, and those of CPU, which do not hang on
    what else the machine did, are added to the job's in `clock`, also where it is stopped."""
    began = time.time()
    used = cpu_seconds()
    child = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        return child.wait()
    finally:
        if child.poll() is None:  # this process was told to stop: the job saves what it has
            child.terminate()
            child.wait()
        kept = files.read_json(clock) if clock.exists() else {}
        before = kept.get(name, {"seconds": 0, "cpu_seconds": 0})
        kept[name] = {
            "seconds": before["seconds"] + time.time() - began,
            "cpu_seconds": before["cpu_seconds"] + cpu_seconds() - used,
            "machine": machine.name(),
        }
        files.write(clock, json.dumps(kept, indent=2))


def cpu_seconds() -> float:
    """User and system, of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
