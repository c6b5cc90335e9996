"""What a run leaves to look at: metrics.jsonl, TensorBoard events, a progress line, curves.png, tables.

Metrics that are shares (fill, data_wait, examples_*) lie in 0..1.
"""

import itertools
import json
import math
import numbers
import os
import shutil
import sys
import time

from janus_jax import curves

PROGRESS = {  # metric: (its name on the progress line, its format), in the line's order
    "loss": ("loss", ".3f"),
    "text_loss": ("text", ".2f"),
    "understanding_loss": ("understanding", ".2f"),
    "generation_loss": ("image", ".2f"),
    "reconstruction": ("reconstruction", ".4g"),
    "codebook": ("codebook", ".4g"),
    "commitment": ("commitment", ".4g"),
    "entropy": ("entropy", ".4g"),
    "codes_used": ("codes", ".4g"),
    "grad_norm": ("grad", ".2f"),
    "learning_rate": ("lr", ".2g"),
    "fill": ("fill", ".0%"),
    "truncated": ("truncated", ".2g"),
}
_serial = itertools.count()  # keeps apart two event files opened within one second


class Log:
    """The log of all stages of one run; with `active=False` (every process but the first) it does nothing."""

    def __init__(self, workdir: str | os.PathLike, active: bool = True):
        self.workdir, self.active = os.fspath(workdir), active
        self.path = os.path.join(self.workdir, "metrics.jsonl")
        self._file = self._events = None
        self._pending = 0  # width of the unfinished line on a terminal
        if active:
            os.makedirs(self.workdir, exist_ok=True)

    def stage(self, name: str, steps: int, step: int = 0) -> None:
        """Begins the stage, or resumes it at `step`, dropping what a killed run had recorded past it.

        That is the stage's own later steps and every stage begun after them; a stage already at its last step
        records nothing more and leaves the later stages alone.
        """
        if not self.active:
            return
        from tensorboardX import SummaryWriter  # slow to import

        self.close()
        kept = _before(_read(self.path), name, math.inf if step >= steps else step)
        with open(self.path + ".tmp", "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line, _ in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self.path + ".tmp", self.path)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
        # One folder a stage: on resume TensorBoard hides the later steps of all tags in the folder.
        folder, suffix = os.path.join(self.workdir, "tensorboard", name), f".{os.getpid()}.{next(_serial)}"
        self._events = SummaryWriter(folder, purge_step=step + 1, flush_secs=5, filename_suffix=suffix)
        self._name, self._steps = name, steps
        self._last, self._first = (step, time.monotonic()), None  # (step, time) of the last and first write

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Records the metrics of `step` in all places; raises FloatingPointError if one is not finite."""
        if not self.active:
            return
        if self._file is None:
            raise RuntimeError("Log.write needs an open stage: call Log.stage(name, steps, step) before it")
        metrics = {name: float(value) for name, value in metrics.items()}
        bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        # JSON has no NaN: such a value is null, so that every reader can read the file.
        record = {"stage": self._name, "step": int(step), "time": time.time()}
        record |= {name: None if name in bad else value for name, value in metrics.items()}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._events.add_scalar(f"{self._name}/{name}", value, step)
        self._progress(int(step), metrics)
        if bad:
            self.close()
            what = ", ".join(f"{name} is {value}" for name, value in bad.items())
            raise FloatingPointError(
                f"{self._name}, step {step}: {what}. The last checkpoint is kept: resume from it with a "
                f"lower learning rate or a longer warm-up. If the same step fails again, look at its data."
            )

    def say(self, text: str) -> None:
        """Prints a plain line."""
        if self.active:
            self._end_line()
            print(text, flush=True)

    def curves(self) -> None:
        """Redraws curves.png from metrics.jsonl; without a record it does nothing."""
        records = [record for _, record in _read(self.path)] if self.active else []
        if records:
            curves.draw(records, os.path.join(self.workdir, "curves.png"))

    def close(self) -> None:
        """Flushes and closes the files; a later `stage` opens them again."""
        self._end_line()
        for file in (self._file, self._events):
            if file is not None:
                file.close()
        self._file = self._events = None

    def _progress(self, step, metrics):
        now = time.monotonic()
        head = f"{self._name}  {step:>{len(str(self._steps))}}/{self._steps}"
        known = {
            m: how for m, how in PROGRESS.items() if metrics.get(m, 0) or (m in metrics and m != "truncated")
        }
        body = [f"{label} {metrics[m]:{form}}" for m, (label, form) in known.items()]
        if all(m in metrics for m in curves.MIX):
            body.append("mix " + ":".join(f"{100 * metrics[m]:.0f}" for m in curves.MIX))
        tail = [f"{(step - self._last[0]) / max(now - self._last[1], 1e-9):.3g} steps/s"]
        if "data_wait" in metrics:
            tail.append(f"data wait {metrics['data_wait']:.0%}")
        if self._first is None:
            self._first = (step, now)  # the interval before it holds the compilation
        elif step > self._first[0]:
            left = (now - self._first[1]) / (step - self._first[0]) * (self._steps - step)
            tail.append(f"left {_clock(left)}")
        self._last = (step, now)
        if not sys.stdout.isatty():
            return print("  ".join([head, *body, *tail]), flush=True)
        width = shutil.get_terminal_size().columns - 1
        while body and len("  ".join([head, *body, *tail])) > width:
            body.pop()  # a wrapped line could not be rewritten in place
        line = "  ".join([head, *body, *tail])[:width]
        print("\r" + line.ljust(self._pending), end="", flush=True)
        self._pending = len(line)

    def _end_line(self):
        if self._pending:
            print(flush=True)
        self._pending = 0


def table(headers, rows) -> str:
    """An aligned text table; numbers stand to the right, floats as 0.00, None as a dash."""
    columns = []
    for header, *cells in zip(headers, *rows, strict=True):
        text = ["-" if c is None else str(c) if not _is_float(c) else f"{c:.2f}" for c in cells]
        width = max(map(len, (header, *text)))
        right = cells and all(isinstance(c, numbers.Real | None) for c in cells)
        align = str.rjust if right else str.ljust
        columns.append([align(t, width) for t in (header, "-" * width, *text)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _is_float(cell):
    return isinstance(cell, numbers.Real) and not isinstance(cell, numbers.Integral)


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _read(path):
    """[(line, record)] of metrics.jsonl; a line that a killed run left half-written is passed over."""
    found = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file.read().split("\n"):
                try:
                    record = json.loads(line)
                    record["stage"], record["step"]
                    found.append((line, record))
                except (ValueError, TypeError, KeyError):
                    continue
    return found


def _before(lines, stage, step):
    """The lines that a resume of `stage` at `step` leaves standing."""
    own = [i for i, (_, record) in enumerate(lines) if record["stage"] == stage]
    if not own or step == math.inf:
        return lines
    return lines[: max((i + 1 for i in own if lines[i][1]["step"] <= step), default=own[0])]
