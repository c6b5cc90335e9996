"""Parts of a job in several processes, and how far it is."""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time

_shared = {}  # in a worker: its job, the count that all workers add to, and whether to stop
POLL = 0.5  # seconds


def run(work, job, parts: list[int], processes: int, progress):
    """Yields (part, work(job, part, tick)) of every part as each is done. tick(n) and progress(n): n more records.

    work and job are pickled. Raises what `work` raises, and OSError when a process dies.
    """
    if processes == 1 or len(parts) < 2:
        for part in parts:
            yield part, work(job, part, progress)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
    count, told, stop = context.Value("q", 0), 0, context.Event()
    begin = job, count, stop
    pool = concurrent.futures.ProcessPoolExecutor(min(processes, len(parts)), context, _begin, begin)
    try:
        waiting = {pool.submit(_work, work, part): part for part in parts}
        while waiting:
            done, _ = concurrent.futures.wait(waiting, POLL, concurrent.futures.FIRST_COMPLETED)
            now = count.value
            progress(now - told)
            told = now
            for future in done:
                yield waiting.pop(future), future.result()
    except concurrent.futures.process.BrokenProcessPool:
        raise OSError(
            "a process was killed, perhaps for want of memory; start the same command again, with fewer --processes"
        ) from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _begin(job, count, stop):
    _shared.update(job=job, count=count, stop=stop)
    follow()


def follow(*_):
    """In a worker: it ends with its parent, and no sooner; of Ctrl-C and SIGTERM to all of them the parent alone
    tells."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


@contextlib.contextmanager
def unheard():
    """SIGINT and SIGTERM wait: a process begun here inherits that, and does not die of them before it can `follow`."""
    multiprocessing.resource_tracker.ensure_running()  # where a process begins it, it lets the signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_with_parent():
    """A worker whose parent was killed would go on, beside those of the command's next run."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(work, part: int):
    return work(_shared["job"], part, _tick)


def _tick(n: int):
    if _shared["stop"].is_set():
        raise InterruptedError("stopped")  # nobody waits for this part any more
    with _shared["count"].get_lock():
        _shared["count"].value += n


class Progress:
    """done of total, rate and time left on stderr: a line rewritten in a terminal, else one in ten seconds."""

    def __init__(self, name: str, total: int, unit: str = "records", out=None, clock=time.monotonic):
        self.name, self.total, self.unit = name, total, unit
        self.out, self.clock = out or sys.stderr, clock
        self.live = self.out.isatty()
        self.begun = self.told = clock()
        self.done = self.first = 0

    def skip(self, count: int):
        """Records that an earlier run has done: not part of the rate."""
        self.done, self.first = self.done + count, self.first + count

    def __call__(self, count: int, note: str = ""):
        """count: records done since the last call."""
        self.done += count
        now = self.clock()
        if now - self.told < (0.2 if self.live else 10) and (self.done < self.total or not self.live):
            return
        self.told, fresh = now, self.done - self.first
        rate = fresh / max(now - self.begun, 1e-9)
        left = f"{_span((self.total - self.done) / rate)} left" if rate else "time left unknown"
        line = f"{self.name}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.0f}/s, {left}{note}"
        self.out.write(f"\r\033[K{line}" if self.live else line + "\n")
        self.out.flush()

    def close(self):
        if self.live:
            self.out.write("\r\033[K")
            self.out.flush()


def _span(seconds: float) -> str:
    hours, minutes = int(seconds // 3600), int(seconds // 60 % 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
