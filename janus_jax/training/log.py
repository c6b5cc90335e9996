"""What a run leaves to look at: metrics.jsonl, TensorBoard events, a progress line, curves.png,
tables.

Metrics that are shares (fill, data_wait, mfu, examples_*, positions_*, tokens_*) lie in 0..1. If
asked for, Weights & Biases is told the same numbers.
"""

import contextlib
import itertools
import json
import math
import os
import pathlib
import shutil
import sys
import time

import numpy as np

from janus_jax.common import files
from janus_jax.training import curves, weights_and_biases

PROGRESS = {  # metric: (its name on the progress line, its format), in the line's order
    "loss": ("loss", ".3f"),
    "text_loss": ("text", ".2f"),
    "understanding_loss": ("understanding", ".2f"),
    "generation_loss": ("image", ".2f"),
    **{x: (x, ".4g") for x in ("reconstruction", "codebook", "commitment", "entropy")},
    "perceptual": ("LPIPS", ".4g"),
    "adversarial": ("adversarial", ".3g"),
    "discriminator_loss": ("discriminator", ".3g"),
    **{x: (x, ".4g") for x in ("semantic", "cosine")},
    "codes_used": ("codes", ".4g"),
    "accuracy": ("accuracy", ".0%"),
    "grad_norm": ("grad", ".2f"),
    "learning_rate": ("lr", ".2g"),
    "validation_loss": ("validation", ".3f"),
    "fill": ("fill", ".0%"),
    "truncated": ("truncated", ".2g"),
}
SPEED = {  # metric: its text on the progress line
    "tokens_per_second": lambda x: f"{_short(x)} tokens/s",
    "images_per_second": lambda x: f"{_short(x)} images/s",
    "mfu": lambda x: f"MFU {x:.1%}",
    "tflops": lambda x: f"{x:.3g} TFLOP/s",
    "data_wait": lambda x: f"data wait {x:.0%}",
}
SHARE = 0.02  # of the time may go into drawing curves while it trains
_serial = itertools.count()  # keeps apart two event files opened within one second


class Log:
    """The log of all stages of one run; with `active=False` (every process but the first) it does
    nothing."""

    def __init__(
        self,
        workdir: str | os.PathLike,
        active: bool = True,
        wandb: str = "",
        config: dict | None = None,
    ):
        """wandb: the project of Weights & Biases to log to as well, or empty; config: what it shows
        of the run. Raises ImportError where wandb is asked for but not installed, ConnectionError
        where it cannot be reached."""
        self.workdir = os.fspath(workdir)
        self.active = active
        self.path = os.path.join(self.workdir, "metrics.jsonl")
        self._file = self._events = self._wandb = None
        self._pending = 0  # width of the unfinished line on a terminal
        self._unwritten, self._full = (
            b"",
            False,
        )  # records that a full disk did not take; whether that was said
        self._drawn = -math.inf, 0.0  # when the curves were drawn last, and how long it took
        if active:
            os.makedirs(self.workdir, exist_ok=True)
        if active and wandb:
            self._wandb = weights_and_biases.open_run(wandb, self.workdir, config)

    def stage(self, name: str, steps: int, step: int = 0) -> None:
        """Begins the stage, or resumes it at `step`, dropping what a killed run had recorded past
        it.

        That is the stage's own later steps and every stage begun after them; a stage already at its
        last step records nothing more and leaves the later stages alone.
        """
        if not self.active:
            return
        from tensorboardX import SummaryWriter  # slow to import

        self._close_files()
        kept = _before(curves.read_records(self.path), name, math.inf if step >= steps else step)
        self._rewrite(kept)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        # One folder a stage: on resume TensorBoard hides the later steps of all tags in the folder.
        # A queue without end: its thread ends where the disk is full, and a full queue would stop
        # the training.
        folder = os.path.join(self.workdir, "tensorboard", name)
        suffix = f".{os.getpid()}.{next(_serial)}"
        how = {"max_queue": 0, "flush_secs": 5, "filename_suffix": suffix}
        try:
            self._events = SummaryWriter(folder, purge_step=step + 1, **how)
            # Where a full disk has ended its thread, nobody empties its queue, and an exit would
            # wait for that.
            self._events.file_writer.event_writer._event_queue.cancel_join_thread()
        except OSError as error:
            self._lost("TensorBoard's events", error)
        if self._wandb:  # each stage counts its own steps
            self._wandb.define_metric(f"{name}/*", step_metric=f"{name}/step")
        self._name = name
        self._steps = steps
        self._last, self._first = (
            (step, time.monotonic()),
            None,
        )  # (step, time) of the last and first write

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Records the metrics of `step` in all places; raises FloatingPointError if one is not
        finite."""
        if not self.active:
            return
        if self._file is None:
            raise RuntimeError(
                "Log.write needs an open stage: call Log.stage(name, steps, step) before it"
            )
        metrics = {name: float(value) for name, value in metrics.items()}
        bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        # JSON has no NaN: such a value is null, so that every reader can read the file.
        record = {"stage": self._name, "step": int(step), "time": time.time()}
        record |= {name: None if name in bad else value for name, value in metrics.items()}
        self._record(json.dumps(record).encode() + b"\n")
        for name, value in metrics.items() if self._events else ():
            self._events.add_scalar(f"{self._name}/{name}", value, step)
        if self._wandb:
            self._wandb.log(
                {
                    f"{self._name}/{name}": value
                    for name, value in (metrics | {"step": step}).items()
                }
            )
        self._progress(int(step), metrics)
        if bad:
            self._close_files()
            what = ", ".join(f"{name} is {value}" for name, value in bad.items())
            raise FloatingPointError(
                f"{self._name}, step {step}: {what}. The last checkpoint is kept: resume from it "
                "with a lower learning rate or a longer warm-up. If the same step fails again, "
                "look at its data."
            )

    def say(self, text: str) -> None:
        """Prints a plain line."""
        if self.active:
            self._end_line()
            _print(text)

    def sheet(self, step: int, picture, text: str) -> None:
        """Shows a PIL picture of `step`, and words (Markdown), where pictures can be shown."""
        if self._events:
            tag = f"{self._name}/sheet"
            self._events.add_image(tag, np.asarray(picture), step, dataformats="HWC")
            self._events.add_text(tag, text, step)
        if self._wandb:
            weights_and_biases.show(self._wandb, self._name, step, picture)

    def curves(self, now: bool = True) -> None:
        """Redraws curves.png from metrics.jsonl; without a record it does nothing. now: also if
        that would take more than SHARE of the time since the last."""
        (then, took), begin = self._drawn, time.monotonic()
        if not self.active or (not now and begin - then < took / SHARE):
            return
        if records := [record for _, record in curves.read_records(self.path)]:
            try:
                curves.plot(records, os.path.join(self.workdir, "curves.png"))
            except OSError as error:
                self._lost("curves.png", error)
        self._drawn = begin, time.monotonic() - begin

    def close(self) -> None:
        """Flushes and closes everything; a later `stage` opens the files again, but not Weights &
        Biases."""
        self._close_files()
        if self._wandb:
            self._wandb.finish()
        self._wandb = None

    def _rewrite(self, kept: list):
        """metrics.jsonl with these records alone. On a full disk it is done in place: to cut takes
        no room."""
        text = "".join(line + "\n" for line, _ in kept).encode()
        try:
            files.write(pathlib.Path(self.path), text)
        except OSError as error:
            self._lost(self.path, error)
            with open(self.path, "r+b" if os.path.exists(self.path) else "wb") as file:
                file.write(text)
                file.truncate()

    def _record(self, line: bytes):
        """Writes a line, and those that a full disk did not take before; keeps what it does not
        take now."""
        self._unwritten += line
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._file.fileno(), self._unwritten) :]
            self._full = False
        except OSError as error:
            self._lost(self.path, error)

    def _lost(self, what: str, error: OSError):
        """A full disk does not stop training."""
        if not self._full:
            self.say(
                f"ERROR: {what} cannot be written ({error.strerror or error}); training goes on, "
                f"the records are kept in memory until it can"
            )
        self._full = True

    def _close_files(self):
        self._end_line()
        if self._file is not None:
            self._record(b"")
            self._file.close()
        if self._events is not None:
            try:
                self._events.close()
            except OSError as error:
                self._lost("TensorBoard's events", error)
        self._file = self._events = None

    def _progress(self, step, metrics):
        now = time.monotonic()
        head = f"{self._name}  {step:>{len(str(self._steps))}}/{self._steps}"
        known = {
            m: how
            for m, how in PROGRESS.items()
            if metrics.get(m, 0) or (m in metrics and m != "truncated")
        }
        body = [f"{label} {metrics[m]:{form}}" for m, (label, form) in known.items()]
        if all(m in metrics for m in curves.MIX):
            body.append("mix " + ":".join(f"{100 * metrics[m]:.0f}" for m in curves.MIX))
        speed = [f"{(step - self._last[0]) / max(now - self._last[1], 1e-9):.3g} steps/s"]
        speed += [
            form(metrics[m])
            for m, form in SPEED.items()
            if m in metrics and not _covered(m, metrics)
        ]
        left = []
        if self._first is None:
            self._first = (step, now)  # the interval before it holds the compilation
        elif step > self._first[0]:
            seconds = (now - self._first[1]) / (step - self._first[0]) * (self._steps - step)
            left = [f"left {_clock(seconds)}"]
        self._last = (step, now)
        if not sys.stdout.isatty():
            return _print("  ".join([head, *body, *speed, *left]))
        width = shutil.get_terminal_size().columns - 1
        while len("  ".join([head, *body, *speed, *left])) > width and len(body) + len(speed) > 2:
            (
                body if len(body) > 1 else speed
            ).pop()  # a wrapped line could not be rewritten in place
        line = "  ".join([head, *body, *speed, *left])[:width]
        _print("\r" + line.ljust(self._pending), end="")
        self._pending = len(line)

    def _end_line(self):
        if self._pending:
            _print("")
        self._pending = 0


def _print(text: str, end: str = "\n"):
    """Neither a reader that has gone (`| tee`) nor a full disk below stdout stops training."""
    with contextlib.suppress(OSError, ValueError):
        print(text, end=end, flush=True)


def _covered(metric, metrics):
    """On the progress line one number says enough: tokens/s before images/s, MFU before TFLOP/s."""
    return {"images_per_second": "tokens_per_second", "tflops": "mfu"}.get(metric) in metrics


def _short(x):
    return f"{x / 1e6:.3g}M" if x >= 1e6 else f"{x / 1e3:.3g}k" if x >= 1e3 else f"{x:.3g}"


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _before(lines, stage, step):
    """The lines that a resume of `stage` at `step` leaves standing."""
    own = [i for i, (_, record) in enumerate(lines) if record["stage"] == stage]
    if not own or step == math.inf:
        return lines
    return lines[: max((i + 1 for i in own if lines[i][1]["step"] <= step), default=own[0])]
