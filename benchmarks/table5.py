"""The paper's Table 5 in miniature, from nothing to the table: `python benchmarks/table5.py`.

Trains what the experiments share once, then experiments A to F of configs/miniature.py for each
seed, asks and draws with each, and writes the table. Every job is a command of its own, which goes
on where it was stopped; run this again and it does what is left. What is compared and what it would
mean stands in docs/table5.md.

    --out=DIR       where all of it goes (default: runs/miniature)
    --seeds=N       runs of each experiment (default: 2)
    --only=A,D      these experiments alone
    --at_once=N     jobs that run at a time, each on its share of the cores (default: 1); on CPU,
                    where one job does not fill two cores, as many as there are cores is quicker
    --report        only write the table of what is done
"""

import argparse
import dataclasses
import json
import os
import pathlib
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
    parser.add_argument("--at_once", type=int, default=1)
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    only = tuple(given.only.split(","))
    if unknown := set(only) - set(ORDER):
        parser.error(
            f"--only: {', '.join(sorted(unknown))}: the experiments are {', '.join(ORDER)}"
        )
    if given.at_once < 1:
        parser.error(f"--at_once: {given.at_once}: at least one job runs at a time")
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    try:
        if not given.report:
            jobs = commands(out, given.seeds, only)
            same_as_before(out, jobs)
            work(out, jobs, given.at_once)
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


def work(out: pathlib.Path, jobs: list[tuple], at_once: int = 1):
    """Does the jobs whose file is not there, `at_once` of them at a time, in their order as far as
    what they begin with is there. Where one fails, or this process is told to stop, the others save
    what they have."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    left = [job for job in jobs if not job[1].is_file()]
    free, running = shares(at_once), {}
    try:
        while left or running:
            for job in [job for job in left if is_ready(job, jobs)][: len(free)]:
                left.remove(job)
                print(f"[{jobs.index(job) + 1} of {len(jobs)}] {job[0]}", flush=True)
                begun = Job(out, *job, cores=free.pop(0), log=at_once > 1)
                running[begun.child.pid] = begun
            ended = end_one(out, running)
            free.append(ended.cores)
            if ended.child.returncode or not ended.done.is_file():
                sys.exit(
                    f"{ended.name} ended with {ended.child.returncode} and left no {ended.done}: "
                    f"{' '.join(ended.child.args)}"
                )
    finally:
        for one in running.values():
            one.child.terminate()
        while running:
            end_one(out, running)


def shares(at_once: int) -> list[set[int] | None]:
    """The cores of each job: an equal share of those of this process, or None, all of them, where
    there are fewer than jobs, where one job runs at a time, and where cores cannot be told (macOS)."""
    if at_once == 1 or not hasattr(os, "sched_getaffinity"):
        return [None] * at_once
    mine = sorted(os.sched_getaffinity(0))
    return [set(mine[n::at_once]) or None for n in range(at_once)]


def is_ready(job: tuple, jobs: list[tuple]) -> bool:
    """Whether all weights that a job's arguments name and that another job makes are there."""
    said = " ".join(job[2])
    makes = (done for _, done, _ in jobs if done.name == files.WEIGHTS_FILE)
    return all(done.is_file() for done in makes if str(done.parent) in said)


class Job:
    """A command that runs, on `cores` of the machine; with `log` it speaks into a file of its own."""

    def __init__(self, out, name: str, done: pathlib.Path, arguments, cores=None, log=False):
        decided = json.dumps(decided_by(out, arguments), indent=2)
        kept_in(out, name).parent.mkdir(exist_ok=True)
        files.write(kept_in(out, name), decided)
        self.name, self.done, self.cores, self.began = name, done, cores, time.time()
        speaks = None
        if log:
            path = out / "logs" / f"{name.replace(' ', '-')}.log"
            path.parent.mkdir(exist_ok=True)
            speaks = path.open("a", encoding="utf-8")
            print(f"  {path}", flush=True)
        self.child = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=speaks, stderr=speaks, preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )  # fmt: skip


def end_one(out: pathlib.Path, running: dict[int, Job]) -> Job:
    """Waits until one of the running jobs ends, takes it out and adds its seconds, and those of CPU,
    which do not hang on what else the machine did, to those it took before, also where it failed or
    was stopped."""
    pid, status, used = os.wait4(-1, 0)
    job = running.pop(pid)
    job.child.returncode = os.waitstatus_to_exitcode(status)
    clock = out / table5_report.CLOCK
    kept = files.read_json(clock) if clock.exists() else {}
    before = kept.get(job.name, {"seconds": 0, "cpu_seconds": 0})
    kept[job.name] = {
        "seconds": before["seconds"] + time.time() - job.began,
        "cpu_seconds": before["cpu_seconds"] + used.ru_utime + used.ru_stime,
        "machine": machine.name(),
    }
    files.write(clock, json.dumps(kept, indent=2))
    return job


if __name__ == "__main__":
    main()
