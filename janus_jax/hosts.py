"""Several processes as one run: how they find each other, talk, compare themselves, and stop together.

On a TPU pod, under SLURM, Kubernetes and Open MPI, JAX finds the processes itself (jax/_src/clusters); elsewhere
JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID say it, or main's flags.
A lone process coordinates with nobody: no port is opened, and a laptop may sleep for longer than a coordinator
would wait for its heartbeat.
"""

import json
import os
import pathlib
import secrets
import signal
import socket
import sys
import threading
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
AGAIN = 75  # exit code "start me again" (EX_TEMPFAIL of sysexits.h); the launchers do
ABSENT = 69  # not all processes came (EX_UNAVAILABLE)
CONNECT, LEAVE, SEE = (
    300,
    60,
    30,
)  # seconds to wait: for all to come, for all to go, for a file of another host


class HostsError(ValueError):
    """The processes of a run cannot find each other, or do not fit together."""


class Absent(HostsError):
    """Not all processes came in time: the same command may find them later."""


class Preempted(Exception):
    """The run was asked to stop, and has saved a checkpoint."""


def connect(coordinator: str = "", processes: int = 0, process: int = -1, timeout: int = CONNECT):
    """Joins the run's processes; to be called before anything else of JAX. What is not given (empty, 0, -1) is
    taken from VARIABLES, else from the cluster, if there is one; nothing at all is a lone process.

    timeout: seconds to wait for the others. Raises HostsError.
    """
    given = dict(zip(VARIABLES, (coordinator, processes or "", "" if process < 0 else process)))
    given = {name: str(value) or os.environ.get(name, "") for name, value in given.items()}
    missing = [name for name, value in given.items() if not value]
    address = given[VARIABLES[0]]
    count, index = (_whole(name, given[name]) for name in VARIABLES[1:])
    if count == 1:
        return
    if address and not address.rpartition(":")[2].isdigit():
        raise HostsError(f"{VARIABLES[0]} is {address!r}: must be HOST:PORT, the same on every process")
    if count is not None and index is not None and not 0 <= index < count:
        raise HostsError(
            f"{VARIABLES[2]} is {index}: {VARIABLES[1]} is {count}, so it must be 0 to {count - 1}"
        )
    watch = threading.Timer(timeout, _give_up, (given, timeout))
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(
            address or None, count, index,
            # All said: nothing is left to detect. (Detection would also leave one GPU to a process.)
            cluster_detection_method=None if missing else "deactivate",
            initialization_timeout=timeout + LEAVE, shutdown_timeout_seconds=LEAVE,
        )  # fmt: skip
    except ValueError as error:  # no cluster that knows what was not given
        if missing == list(VARIABLES):
            return
        if not missing:
            raise
        raise HostsError(
            f"{', '.join(n for n in VARIABLES if n not in missing)} set, {', '.join(missing)} not, and no cluster "
            f"(TPU, SLURM, Kubernetes, Open MPI) was found that says the rest: set all three or none ({error})"
        ) from error
    except (RuntimeError, KeyError, OSError) as error:
        raise Absent(_alone(given, timeout) + f"\nJAX says: {error}") from error
    finally:
        watch.cancel()


def _alone(given: dict[str, str], timeout: int) -> str:
    address, count, index = given.values()
    return (
        f"process {index or '?'} of {count or '?'} found not all of the run's processes at "
        f"{address or 'the address that the cluster gives'} within {timeout} s. Is process 0 running, is the address "
        f"its own and reachable from here, is the port free there, and were all processes started? "
        f"{VARIABLES[1]}=1 runs this process alone"
    )


def _give_up(given: dict[str, str], timeout: int):
    """Ends the process: where others do not come, JAX's own client does so, with a stack of C++ and no words."""
    print(f"Absent: {_alone(given, timeout)}", file=sys.stderr, flush=True)
    os._exit(ABSENT)


def _whole(name: str, text: str) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        raise HostsError(f"{name} is {text!r}: must be a whole number") from None


def first() -> bool:
    """Whether this is the process that writes and prints for all."""
    return jax.process_index() == 0


def gather(value) -> list:
    """What each process gave, by process, on all of them; values that JSON holds. All must call it."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(data.size))
    padded = multihost_utils.process_allgather(np.pad(data, (0, sizes.max() - data.size)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(padded, sizes)]


def wait(name: str):
    """Returns once all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def total(counts: dict[str, float]) -> dict[str, float]:
    """The sums over all processes, each of which has the same names."""
    if jax.process_count() == 1 or not counts:
        return counts
    sums = multihost_utils.process_allgather(np.array(list(counts.values()), np.float32)).sum(0)
    return dict(zip(counts, sums.tolist()))


def together(action):
    """`action()` on every process; where it raises on one, all raise: its own error there, HostsError elsewhere.
    Without it the others would wait for a process that has gone."""
    error, result = None, None
    try:
        result = action()
    except Exception as caught:
        error = caught
    failed = gather(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    if any(failed):
        told = "\n".join(f"process {i}: {text}" for i, text in enumerate(failed) if text)
        raise HostsError(f"this process is well, but not all are:\n{told}")
    return result


def same(facts: dict[str, str]):
    """Raises HostsError naming what differs between the processes and between which. facts: name -> anything
    short that must be the same everywhere, a hash for example."""
    everyone = gather({"host": socket.gethostname(), "facts": facts})
    lines = []
    for name in sorted({name for one in everyone for name in one["facts"]}):
        groups = {}
        for i, one in enumerate(everyone):
            groups.setdefault(one["facts"].get(name, "nothing"), []).append(f"{i} ({one['host']})")
        if len(groups) > 1:
            who = "; ".join(f"{value} on process {', '.join(ids)}" for value, ids in groups.items())
            lines.append(f"  - {name}: {who}")
    if lines:
        raise HostsError(
            "the processes of this run do not run the same; give all hosts the same command, code, packages and "
            "files. They differ in:\n" + "\n".join(lines)
        )


def require_shared(directory: pathlib.Path):
    """Raises HostsError on every process unless all see what the first writes into the directory."""
    if jax.process_count() == 1:
        return
    token = gather(f".seen-by-all-{secrets.token_hex(8)}" if first() else "")[0]
    if first():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / token).touch()
    wait("token written")
    until = time.monotonic() + SEE  # a network file system may take a while to show it
    while not (seen := (directory / token).is_file()) and time.monotonic() < until:
        time.sleep(0.5)
    blind = [str(i) for i, sees in enumerate(gather(seen)) if not sees]
    if first():
        (directory / token).unlink()
    if blind:
        raise HostsError(
            f"--workdir={directory}: process {', '.join(blind)} did not see a file there that process 0 had "
            f"written {SEE} s before. All hosts need the same directory: a network file system (NFS, Filestore, "
            f"Lustre, a mounted bucket), not each its own disk"
        )


class Notice:
    """SIGTERM, the notice before a machine is taken away: the loop asks after each step whether to stop there.

    Several processes agree on the step: JAX's preemption service passes on a notice that reached any of them.
    """

    def __init__(self):
        self.given, self.asked = False, 0

    def listen(self):
        """From now on SIGTERM does not kill at once. Of several processes, or in a cluster, JAX listens already."""
        if not jax.distributed.is_initialized():
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_):
        self.given = True

    def leave(self):
        """From now on there is nothing to save: SIGTERM ends the process at once, to be started again."""
        signal.signal(signal.SIGTERM, lambda *_: os._exit(AGAIN))

    def reached(self) -> bool:
        """Whether to stop here; every process must ask equally often."""
        # Counts questions and not steps: those begin again with each stage, and go back after a loss spike.
        self.asked += 1
        if jax.distributed.is_initialized() and multihost_utils.reached_preemption_sync_point(self.asked):
            self.given = True
        return self.given


NOTICE = Notice()
