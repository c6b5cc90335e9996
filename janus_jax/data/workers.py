"""Parts of a job in several processes, and how far it is."""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import threading

_shared = {}  # in a worker: its job, the count that all workers add to, and whether to stop
POLL = 0.5  # seconds


def run_parts(work, job, parts: list[int], processes: int, progress):
    """Yields (part, work(job, part, tick)) of every part as each is done.

    work: the function, pickled; it calls tick(n) when n more records are done.
    job: what it works on, pickled.
    parts: numbers of the parts.
    processes: how many work at once.
    progress: called with how many more records are done.

    Raises what `work` raises, and OSError when a process dies.
    """
    if processes == 1 or len(parts) < 2:
        for part in parts:
            yield part, work(job, part, progress)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
    count = context.Value("q", 0)
    told = 0
    stop = context.Event()
    begin = job, count, stop
    pool = concurrent.futures.ProcessPoolExecutor(
        min(processes, len(parts)), context, _begin, begin
    )
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
            "a process was killed, perhaps for want of memory; start the same command again, with "
            "fewer --processes"
        ) from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _begin(job, count, stop):
    _shared.update(job=job, count=count, stop=stop)
    follow()


def follow(*_):
    """In a worker: it ends with its parent, and no sooner; of Ctrl-C and SIGTERM to all of them the
    parent alone tells."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


@contextlib.contextmanager
def unheard():
    """SIGINT and SIGTERM wait: a process begun here inherits that, and does not die of them before
    it can `follow`."""
    # where a process begins it, it lets the signals through
    multiprocessing.resource_tracker.ensure_running()
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
