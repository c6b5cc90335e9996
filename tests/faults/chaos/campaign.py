"""What all kinds of faults share: runs and their references, faults and what came of them, the
report."""

import importlib.metadata
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import statistics
import sys
import time

from faults.chaos import compare, naive
from faults.chaos.process import Training, visible

LIMIT = 600  # seconds that a run told to end, or to begin, may take on a busy machine
TOLD = "told to stop"


class Campaign:
    """One command of the harness.

    directory: of its runs and their logs. What they compile lies beside it, or where
        JAX_COMPILATION_CACHE_DIR says.
    seed: of all random choices.
    processes: of a run.
    saver: empty, or `naive` for the control.
    steps: of a stage; 0 for those of toy.py.
    say: prints a line.
    """

    def __init__(
        self,
        directory,
        seed: int = 0,
        processes: int = 1,
        saver: str = "",
        steps: int = 0,
        say=print,
    ):
        self.directory = pathlib.Path(directory).absolute()
        beside = self.directory.parent / "compiled"
        self.compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR", beside)
        self.random = random.Random(seed)
        self.seed = seed
        self.processes = processes
        self.saver = saver
        self.steps = steps
        self.say = say
        self.faults = []
        self.rounds = []
        self.unexpected = []
        self.pending = []
        self.facts = {}
        self.latest = None
        self.begun = time.monotonic()

    def training(self, name: str, target: str, **hooks) -> Training:
        if self.saver and name != f"{target}-undisturbed":
            hooks["saver"] = self.saver
        section = f"stages.{target}"
        steps = []
        if self.steps and target != "all":
            steps = [f"--config.{section}.steps={self.steps}"]
        for old in (name, f"{name}-log"):
            shutil.rmtree(self.directory / old, ignore_errors=True)
        self.latest = Training(
            target,
            self.directory / name,
            self.compiled,
            hooks,
            self.processes,
            steps,
        )
        return self.latest

    def undisturbed(self, target: str, name: str = "", **hooks) -> Training:
        """A run of the target that nothing happens to, kept for all that are compared with it."""
        training = self.training(name or f"{target}-undisturbed", target, **hooks)
        begin = time.monotonic()
        training.start()
        codes = training.wait(LIMIT + 3600 * bool(name))
        training.end()
        if any(code not in (0, 75 if TOLD in training.printed() else 0) for code in codes):
            raise RuntimeError(
                f"{training.log()}: the undisturbed run ended with {codes}:\n"
                f"{training.printed()[-3000:]}"
            )
        training.seconds = time.monotonic() - begin
        return training

    def fault(self, training: Training, kind: str, phase: str, **more) -> dict:
        """Enters a fault; how long it stopped the training and how many steps it cost is filled in
        by `settle`."""
        fault = {
            "time": round(time.monotonic() - self.begun, 3),
            "kind": kind,
            "phase": phase,
            "step": list(training.last_step()),
            "start": training.starts,
            "run": training.workdir.name,
            **more,
        }
        self.faults.append(fault)
        return fault

    def ended(self, training: Training, fault: dict, codes: list, expected: tuple):
        """Enters how the processes ended, and looks at every checkpoint that can be seen now."""
        training.end()
        fault["codes"], fault["step"] = codes, list(training.last_step())
        fault["codes_as_agreed"] = all(code in expected for code in codes)
        fault["broken_visible"] = compare.broken(training.workdir, self.saver)
        fault["visible"] = len(visible(training.workdir))
        self.pending.append((fault, time.monotonic()))

    def settle(self, training: Training):
        """Once the run steps again: the seconds that the faults before this start took, and the
        steps they lost."""
        name = training.workdir.name
        mine = [
            (f, at) for f, at in self.pending if f["run"] == name and f["start"] < training.starts
        ]
        if not mine or training.stepped_at is None:
            return
        stage, step = training.stepped()
        for fault, at in mine:
            fault["seconds_to_step"] = round(training.stepped_at - at, 3)
            before, last = fault["step"]
            fault["steps_lost"] = max(last - step + 1, 0) if before == stage else 0
        self.pending = [one for one in self.pending if one not in mine]

    def finished(self, training: Training, codes: list) -> bool:
        """Whether a run that ended by itself is done; otherwise its end is entered, and it is to be
        started again."""
        self.settle(training)
        training.end()
        if not any(codes) and TOLD not in training.printed():
            return True
        last = training.printed().strip().splitlines()[-3:]
        self.unexpected.append(
            {"run": training.workdir.name, "start": training.starts, "codes": codes, "last": last}
        )
        if self.saver == "naive":  # what a person would do by hand
            self.unexpected[-1]["removed"] = compare.broken(training.workdir, self.saver)
            for path in visible(training.workdir):
                if naive.problems(path):
                    (path / naive.FILE).unlink(missing_ok=True)
                    path.rmdir()
        recent = [u for u in self.unexpected if u["run"] == training.workdir.name][-5:]
        if len(recent) == 5 and recent[0]["start"] == training.starts - 4:
            raise RuntimeError(
                f"{training.logs}: five starts in a row ended by themselves, the last with "
                f"{codes}: {last}"
            )
        return False

    def compared(self, training: Training, reference: Training):
        """Enters whether a run that is done equals its reference."""
        found = compare.differences(training.workdir, reference.workdir, self.saver)
        found += compare.broken(training.workdir, self.saver)
        self.rounds.append(
            {"run": training.workdir.name, "starts": training.starts, "differences": found}
        )
        self.say(
            f"{training.workdir.name}: {training.starts} starts, "
            + ("; ".join(found) or "the same bits")
        )

    def totals(self) -> dict:
        count = lambda key: {
            value: sum(f[key] == value for f in self.faults)
            for value in sorted({f[key] for f in self.faults})
        }
        again = [f["seconds_to_step"] for f in self.faults if "seconds_to_step" in f]
        return {
            "faults": len(self.faults),
            "by_kind": count("kind"),
            "by_phase": count("phase"),
            "visible_checkpoints_looked_at": sum(f.get("visible", 0) for f in self.faults),
            "broken_visible_checkpoints": sum(
                len(f.get("broken_visible", ())) for f in self.faults
            ),
            "unexpected_ends": len(self.unexpected),
            "exit_codes_not_as_agreed": sum(
                not f.get("codes_as_agreed", True) for f in self.faults
            ),
            "faults_not_noticed": sum(f.get("noticed") is False for f in self.faults),
            "runs_compared": len(self.rounds),
            "runs_with_other_bits": sum(bool(r["differences"]) for r in self.rounds),
            "seconds_to_step_median": round(statistics.median(again), 2) if again else None,
            "seconds_to_step_most": max(again, default=None),
            "steps_lost_mean": mean([f["steps_lost"] for f in self.faults if "steps_lost" in f]),
            "steps_lost_most": max((f.get("steps_lost", 0) for f in self.faults), default=None),
            **self.facts,
        }

    def report(self, command: str) -> dict:
        return {
            "command": command,
            "seed": self.seed,
            "processes": self.processes,
            "saver": self.saver or "janus_jax",
            "machine": machine(),
            "versions": versions(),
            "seconds": round(time.monotonic() - self.begun, 1),
            "totals": self.totals(),
            "runs": self.rounds,
            "unexpected": self.unexpected,
            "faults": self.faults,
        }


def good(report: dict) -> bool:
    """Whether the report is one of a run that cannot be lost."""
    bad = (
        "broken_visible_checkpoints",
        "runs_with_other_bits",
        "unexpected_ends",
        "exit_codes_not_as_agreed",
        "faults_not_noticed",
    )
    return not any(report["totals"][name] for name in bad)


def table(report: dict) -> str:
    """The totals as text, a line each."""
    lines = [
        f"{report['command']}, saver {report['saver']}, seed {report['seed']}, "
        f"{report['seconds']:.0f} s"
    ]
    for name, value in report["totals"].items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        lines.append(f"  {name.replace('_', ' '):32} {value}")
    return "\n".join(lines)


def write(report: dict | list, path):
    partial = pathlib.Path(f"{path}.partial")
    partial.write_text(json.dumps(report, indent=1))
    os.replace(partial, path)


def mean(values: list) -> float | None:
    return round(statistics.fmean(values), 2) if values else None


def machine() -> dict:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "load": os.getloadavg(),
    }


def versions() -> dict:
    names = ("jax", "flax", "orbax-checkpoint", "grain", "numpy")
    return {"python": sys.version.split()[0]} | {
        name: importlib.metadata.version(name) for name in names
    }


def stop(training: Training, number=signal.SIGTERM) -> list:
    """Asks all processes to end, and their codes."""
    training.signal(number)
    return training.wait(LIMIT)
