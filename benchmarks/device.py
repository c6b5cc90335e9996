"""Ours on an accelerator for a short time: is it right there, how fast, in how much memory.

    python benchmarks/device.py --out=DIR          # nine minutes at most, no network
    python benchmarks/device.py --out=DIR --toy    # the same at sizes for a CPU, a few minutes

The most valuable parts come first. Each is a process of its own with a limit in seconds: one that
dies or runs over is named, and the others go on. DIR gets device.jsonl, a line for each finding as
it comes, device.md, made of it again after each part, and what the parts printed. benchmarks/
device_wheels.py collects what a machine without network may lack. Exits with 1 where a part did not
end well or found something wrong.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import device_report
import machine

HERE = pathlib.Path(__file__).resolve().parent
LEAST = 10  # seconds that must be left for a part to begin
SECONDS = 540  # that all parts may take
TOY = 10  # times all limits may toys take, on a CPU that others use, too


@dataclasses.dataclass(frozen=True)
class Part:
    """One process.

    name: in the report.
    script: of this folder.
    function: of the script.
    argument: which of the function's kinds.
    what: it finds, in words.
    limit: seconds after which it is killed.
    needs: a part that must have ended well.
    beside: it runs while others do, on "cpu" or on the "accelerator"; it times nothing.
    on: the platforms that it can run on, where it cannot run on all.
    """

    name: str
    script: str
    function: str
    argument: str
    what: str
    limit: int
    needs: str = ""
    beside: str = ""
    on: tuple[str, ...] = ()


KERNELS, IDS, STEPS, DRAW = (f"device_{name}.py" for name in ("kernels", "ids", "steps", "draw"))
ATTENTION = (
    "Errors are norms of differences from plain attention in float32, over the norm; ms is forwards "
    "and backwards."
)
PEER = (
    "The language model alone, the same weights, the same packed rows of text, AdamW and clipping."
)
PARTS = (
    Part("machine", KERNELS, "about", "", "What JAX and PyTorch see.", 60),
    Part("checkpoint", DRAW, "checkpoint", "", "Random weights at the released shapes.", 300,
         "machine", beside="cpu"),
    Part("plan", STEPS, "plan", "", "`janus-jax plan` of the steps below, by this machine's compiler.", 300,
         "machine", beside="cpu"),
    Part("ids", IDS, "compare", "",
         "Ids, losses and gradients of random models beside those that a CPU found (results/device-ids.json).", 120,
         "machine", beside="accelerator"),
    Part("attention plain", KERNELS, "attention", "plain", ATTENTION, 60, "machine"),
    Part("attention cudnn", KERNELS, "attention", "cudnn", ATTENTION, 60, "machine", on=("gpu",)),
    Part("attention triton", KERNELS, "attention", "triton", ATTENTION, 75, "machine", on=("gpu", "cpu")),
    Part("attention splash", KERNELS, "attention", "splash", ATTENTION, 75, "machine", on=("tpu", "cpu")),
    Part("attention blockwise", KERNELS, "attention", "blockwise", ATTENTION, 60, "machine"),
    Part("cross-entropy", KERNELS, "cross_entropy", "",
         "The fused loss and its gradients beside softmax cross-entropy of all logits in float32.", 60, "machine"),
    Part("stage 3", STEPS, "stage", "3", "The step of stage 3: all but the VQ tokenizer is trained.", 120, "machine"),
    Part("stage 1", STEPS, "stage", "1", "The step of stage 1: adaptors and image head are trained.", 100, "machine"),
    Part("language model, ours", STEPS, "language_model", "ours", PEER, 90, "machine"),
    Part("language model, transformers", STEPS, "language_model", "theirs", PEER, 90, "language model, ours"),
    Part("draw, ours", DRAW, "draw", "ours:bfloat16",
         "Guided drawing, and a question of a picture and words, in bfloat16.", 140, "checkpoint"),
    Part("draw, transformers", DRAW, "draw", "theirs:bfloat16", "The same by transformers' Janus.", 100, "checkpoint"),
    Part("quick start", DRAW, "quick_start", "", "configs/quickstart.py to its scores.", 240, "machine"),
    Part("draw, ours in int8", DRAW, "draw", "ours:int8", "The same with layers and heads in int8.", 100, "checkpoint"),
)  # fmt: skip


class Run:
    """All parts, one after the other, those `beside` at the same time.

    parts: a tuple of Part.
    command: command(part) gives the words of its process.
    out: the folder of what is found.
    seconds: that all may take.
    head: of the report.
    """

    def __init__(self, parts, command, out: pathlib.Path, seconds: float, head: str):
        self.parts, self.command, self.out, self.head = parts, command, out, head
        self.deadline = time.monotonic() + seconds
        self.lines = device_report.Lines(out)
        self.threads: dict[str, threading.Thread] = {}
        self.living: set[subprocess.Popen] = set()
        self.writing = threading.Lock()

    def go(self) -> bool:
        """Whether all went well."""
        try:
            for part in self.parts:
                if part.beside:
                    thread = threading.Thread(target=self.one, args=(part,), daemon=True)
                    self.threads[part.name] = thread
                    thread.start()
                else:
                    self.one(part)
            for thread in self.threads.values():
                thread.join(max(self.deadline - time.monotonic() + LEAST, 0))
        finally:
            for process in list(self.living):
                kill(process)
            for thread in self.threads.values():
                thread.join(LEAST)
            self.report()
        return device_report.all_well(self.lines.read(), self.parts)

    def one(self, part: Part) -> None:
        """A part from its beginning to its end, whatever that is."""
        if part.needs in self.threads:
            self.threads[part.needs].join(max(self.deadline - time.monotonic(), 0))
        left = self.deadline - time.monotonic()
        lines = self.lines.read()
        needed = device_report.states(lines).get(part.needs, {}).get("state")
        platform = self.lines.rows("machine").get("jax", {}).get("platform")
        if part.on and platform not in part.on:
            self.ended(part, f"{device_report.ELSEWHERE} {platform}")
        elif part.needs and needed != device_report.DONE:
            self.ended(part, f"not begun: it needs {part.needs} ({needed})")
        elif left < LEAST:
            self.ended(part, "not begun: no time left")
        else:
            self.ended(part, device_report.RUNNING)
            begin = time.monotonic()
            state = self.process(part, min(part.limit, left))
            self.ended(part, state, seconds=round(time.monotonic() - begin, 1))

    def process(self, part: Part, limit: float) -> str:
        """Runs a part's process; how it ended, in words."""
        log = self.out / ("device-beside.log" if part.beside else "device.log")
        environment = os.environ | ({"JAX_PLATFORMS": "cpu"} if part.beside == "cpu" else {})
        with open(log, "a") as file:
            file.write(f"\n== {part.name}\n")
            file.flush()
            begin = file.tell()
            process = subprocess.Popen(
                self.command(part), stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                env=environment, start_new_session=True,
            )  # fmt: skip
            self.living.add(process)
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                return f"killed at its limit of {limit:.0f} s"
            finally:
                kill(process)  # what it has started, too
                self.living.discard(process)
        if code == 0:
            return device_report.DONE
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"failed ({code})"
        with open(log, errors="replace") as file:
            file.seek(begin)
            last = [line.strip() for line in file if line.strip()][-1:]
        return f"{how}: {' '.join(last)[:300]}"

    def ended(self, part: Part, state: str, **values) -> None:
        self.lines.add(part.name, state=state, **values)
        print(f"{part.name}: {state} {values.get('seconds', '')}", flush=True)
        self.report()

    def report(self) -> None:
        with self.writing:
            text = device_report.report(self.lines.read(), self.parts, self.head)
            (self.out / device_report.REPORT).write_text(text)


def kill(process: subprocess.Popen) -> None:
    """Ends a process and all of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def chosen(names: str) -> tuple[Part, ...]:
    """The parts of these names, separated by `;`, and what they need. Raises SystemExit where there
    is no such part."""
    wanted = {name.strip() for name in names.split(";") if name.strip()}
    if unknown := sorted(wanted - {part.name for part in PARTS}):
        known = "; ".join(part.name for part in PARTS)
        sys.exit(f"--parts: there is no {', '.join(map(repr, unknown))}; known: {known}")
    for part in reversed(PARTS):  # what a part needs lies before it
        wanted |= {part.needs} if part.name in wanted and part.needs else set()
    return tuple(part for part in PARTS if not wanted or part.name in wanted)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--toy", action="store_true", help="Sizes for a CPU.")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"That all parts may take; by default {SECONDS}. Toys take ten times as long.",
    )
    parser.add_argument("--parts", default="", help="Their names, separated by ;. By default all.")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for path in args.out.glob("device*"):
        if path.suffix in (".jsonl", ".md", ".log"):
            path.unlink()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the parts end, too
    work = pathlib.Path(tempfile.mkdtemp(prefix="device-"))
    # Of the card, as in training: 92 % may be taken, and no more is taken than is used.
    os.environ |= machine.ENVIRONMENT | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "compiled"))
    path = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)

    def command(part: Part) -> list[str]:
        return [
            sys.executable, str(HERE / part.script), part.function, f"--part={part.name}",
            f"--argument={part.argument}", f"--out={args.out}", f"--work={work}", *(["--toy"] if args.toy else []),
        ]  # fmt: skip

    typed = shlex.join(["python", "benchmarks/device.py", *sys.argv[1:]])
    try:
        parts, seconds = chosen(args.parts), args.seconds or SECONDS
        if args.toy:
            parts = tuple(dataclasses.replace(part, limit=TOY * part.limit) for part in parts)
            seconds *= TOY
        head = f"{machine.name()}; `{typed}`"
        run = Run(parts, command, args.out, seconds, head)
        good = run.go()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print((args.out / device_report.REPORT).read_text())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
