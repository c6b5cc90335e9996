"""How far a job is, on stderr."""

import sys
import time
from collections.abc import Callable

EVERY, LIVE = 10, 0.2  # seconds between two lines; in a terminal, between two looks of one line


class Progress:
    """Done of the total, speed and time left: one line that is rewritten in a terminal, elsewhere a
    line about every ten seconds, and the last.

    name: of the job.
    total: how many there are, 0 where that is not known; may be set later.
    unit: of what.
    amount: a number of them as text.
    speed: how fast that is, as text, of a number done and the seconds that it took.
    out: by default stderr.
    """

    def __init__(
        self,
        name: str,
        total: int,
        unit: str = "records",
        amount: Callable[[int], str] = "{:,}".format,
        speed: Callable[[int, float], str] = lambda count, seconds: f"{count / seconds:,.0f}/s",
        out=None,
        clock=time.monotonic,
    ):
        self.name = name
        self.total = total
        self.unit = unit
        self.amount = amount
        self.speed = speed
        self.out = out or sys.stderr
        self.clock = clock
        self.live = self.out.isatty()
        self.begun = self.written = clock()
        self.done = self.first = 0
        self.ended = False

    def __enter__(self):
        if self.live:
            self._write(f"{self.name} ...")
        return self

    def __exit__(self, *_):
        self.close()

    def skip(self, count: int):
        """So many were done by an earlier run: not part of the speed."""
        self.done += count
        self.first += count

    def at(self, done: int, note: str = ""):
        """So many are done by now."""
        self(done - self.done, note)

    def __call__(self, count: int, note: str = ""):
        """So many more are done. note: what else to say in the line."""
        self.done += count
        now = self.clock()
        ends = bool(self.total) and self.done >= self.total and not self.ended
        if not ends and now - self.written < (LIVE if self.live else EVERY):
            return
        self.written = now
        self.ended = self.ended or ends
        fresh = self.done - self.first
        seconds = max(now - self.begun, 1e-9)
        line = f"{self.name}: {self.amount(self.done)}"
        if self.total:
            line += f" of {self.amount(self.total)}"
        line = f"{line} {self.unit}".rstrip() + f", {self.speed(fresh, seconds)}"
        if self.total:
            left = (self.total - self.done) * seconds
            line += f", {span(left / fresh)} left" if fresh else ", time left unknown"
        self._write(line + note)

    def close(self):
        """Ends the line: it is cleared in a terminal."""
        if self.live:
            self._write("")

    def _write(self, line: str):
        self.out.write(f"\r\033[K{line}" if self.live else line + "\n")
        self.out.flush()


def span(seconds: float) -> str:
    """A time as text: hours and minutes, minutes, or seconds."""
    hours = int(seconds // 3600)
    minutes = int(seconds // 60 % 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
