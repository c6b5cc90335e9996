"""Parts of a job in several processes."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from janus_jax.data import workers


class Fatal:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.processes
def test_a_worker_that_is_killed_ends_the_command_with_a_remedy():
    with pytest.raises(OSError, match="fewer --processes"):
        list(workers.run_parts(print, Fatal(), [0, 1], 2, lambda n: None))


@pytest.mark.processes
def test_workers_leave_with_a_killed_run(tmp_path):
    """SIGKILL of the run, and SIGTERM to all of its processes, which the run alone answers; so does
    it SIGINT, while they start."""
    program = f"""
import sys; sys.path.insert(0, {str(pathlib.Path(__file__).parents[1])!r})
if __name__ == "__main__":
    import multiprocessing, os, signal, threading
    from support import sets
    signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
    signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
    data = sets.batches(workers=2)
    threading.Timer(0.4, os.killpg, (0, signal.SIGINT)).start()
    next(data)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    for line in sys.stdin:
        next(data)
        print("drawn", flush=True)
"""
    (tmp_path / "program.py").write_text(program)
    started = subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert started.stdout.readline() == "interrupted\n"
    workers = list(map(int, started.stdout.readline().split()))
    assert len(workers) == 2
    os.killpg(started.pid, signal.SIGTERM)
    assert started.stdout.readline() == "told\n"
    for _ in range(6):  # more than were ready
        started.stdin.write("\n")
        started.stdin.flush()
        assert started.stdout.readline() == "drawn\n"
    started.kill()
    started.wait()
    until = time.monotonic() + 20
    while any(running(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(running(pid) for pid in workers)


def running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
