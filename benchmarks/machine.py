"""What a benchmark needs to know of the machine it runs on, and child processes that take turns.

A side is a process of its own, so that its memory is its own. It answers lines: `Child` asks,
`serve` answers. CPU use is read from /proc (Linux); elsewhere it is not known (None), and nothing
is waited for.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import time

QUIET = 0.2  # cores that others may use while a repetition counts as undisturbed
TICK = os.sysconf("SC_CLK_TCK")
ENVIRONMENT = {
    # What a device holds is what is in use, and two processes can have parts of it.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    # glibc keeps freed memory instead of giving it back each step and having it zeroed again:
    # quicker for both sides.
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**37),
}  # fmt: skip


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def name(device=None) -> str:
    """The processor, by name and model number (some virtual machines have a name alike for all),
    and the cores that there are; before it the accelerator, where `device` (of JAX) is one."""
    facts = {}
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    processor = facts.get("model name", "CPU")
    if "model" in facts:
        processor += f" (family {facts.get('cpu family')}, model {facts['model']})"
    processor += f", {cores()} cores"
    is_accelerator = device is not None and device.platform != "cpu"
    return f"{device.device_kind}; {processor}" if is_accelerator else processor


def _busy() -> float | None:
    """Seconds that all cores together have not been idle, time taken by other guests of the host
    included."""
    try:
        fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(x) for x in fields)
    return (user + nice + system + irq + softirq + steal) / TICK


def _used(pid: int) -> float:
    """Seconds of CPU that a process has used, its ended children included."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(x) for x in fields[11:15]) / TICK


def family(pid: int) -> list[int]:
    """A process and all below it (Linux; elsewhere itself alone)."""
    found = [pid]
    for each in found:
        for path in pathlib.Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:  # it has ended meanwhile
                continue
    return found


def used_by_family(pid: int) -> float:
    """Seconds of CPU, user and system, of a process and all below it."""
    return sum(map(_used, family(pid)))


def resident(pid: int) -> float:
    """Bytes of a process's memory, what it shares with others divided by their number (Linux)."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024.0 * int(next(x for x in lines if x.startswith("Pss:")).split()[1])


class Others:
    """How many cores processes other than `pids` and this one use from `Others(pids)` to
    `cores()`."""

    def __init__(self, pids: list[int]):
        self.pids = [os.getpid(), *pids]
        self.begin, self.busy = time.perf_counter(), _busy()
        self.own = sum(map(_used, self.pids)) if self.busy is not None else 0.0

    def cores(self) -> float | None:
        if self.busy is None:
            return None
        own, busy = sum(map(_used, self.pids)), _busy()
        return max(busy - self.busy - own + self.own, 0.0) / (time.perf_counter() - self.begin)


def disturbs(others: float | None) -> bool:
    """Whether so many cores used by others make a time too long to count."""
    return others is not None and others >= QUIET


def wait_until_quiet(pids: list[int], patience: float) -> None:
    """Returns when others than `pids` have used less than QUIET cores for a second, or after
    `patience` seconds."""
    deadline = time.perf_counter() + patience
    while time.perf_counter() < deadline:
        others = Others(pids)
        time.sleep(1)
        if (others.cores() or 0.0) < QUIET:
            return


def forget_peak() -> None:
    """Lets `peak` count from now on, where the kernel can (it needs /proc/self/clear_refs)."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("peak memory counts from the start of the process", file=sys.stderr)


def peak() -> float:
    """Bytes of memory that this process has held at most, since `forget_peak`."""
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return 1024.0 * int(next(x for x in lines if x.startswith("VmHWM")).split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


class Child:
    """`python script SPEC` as a process that answers one line of JSON to each line it is sent. Its
    first answer, what it has to say once it is ready, is `about`. Raises RuntimeError when it ends
    instead of answering."""

    def __init__(self, script: pathlib.Path, spec: dict):
        command = [sys.executable, str(script), json.dumps(spec)]
        self.spec, self.answers = spec, []
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=os.environ | ENVIRONMENT, **pipes)
        self.about = self._read()

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.spec}: ended with {self.process.wait()}; what it said stands above"
            )
        return json.loads(line)

    def ask(self, word: str) -> dict:
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def serve(about: dict, answer) -> None:
    """The child's half: says `about`, then `answer(word)` to each word until there are no more."""
    say = lambda found: print(json.dumps(found), flush=True)
    say(about)
    for line in sys.stdin:
        say(answer(line.strip()))
