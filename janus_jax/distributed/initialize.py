"""How the processes of a run find each other, and one work directory.

On a TPU pod, under SLURM, Kubernetes and Open MPI, JAX finds the processes itself
(jax/_src/clusters); elsewhere JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), JAX_NUM_PROCESSES
and JAX_PROCESS_ID say it, or main's flags.
A lone process coordinates with nobody: no port is opened, and a laptop may sleep for longer than a
coordinator would wait for its heartbeat.
"""

import os
import pathlib
import secrets
import sys
import threading
import time
from contextlib import suppress

import jax

from janus_jax.common import exit_codes
from janus_jax.distributed import exits, processes
from janus_jax.distributed.processes import HostsError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
CONNECT = 300
LEAVE = 60  # seconds to wait: for all to come, for all to go
HEARTBEAT = 100  # seconds, JAX's own: heartbeat.py sees a silent process before, and names it

SEE = 90  # seconds to wait for a file of another host: NFS may remember for 60 that there is none
SEEN = ".seen-by-all-"  # files of require_shared
NO_CLUSTER = (
    "coordinator_address should be defined"  # JAX, where it found no cluster and no address
)


class Absent(HostsError):
    """Not all processes came in time: the same command may find them later."""

    exit_code = "absent"


def initialize(
    coordinator: str = "", processes: int = 0, process: int = -1, timeout: int = CONNECT
):
    """Joins the run's processes; to be called before anything else of JAX. What is not given
    (empty, 0, -1) is taken from VARIABLES, else from the cluster, if there is one; nothing at all
    is a lone process.

    coordinator: HOST:PORT of process 0.
    processes: how many there are.
    process: which one this is, from 0.
    timeout: seconds to wait for the others.

    Raises HostsError, also for a JANUS_WATCHDOG that is none.
    """
    try:
        heartbeat = HEARTBEAT if exits.least() else 24 * 3600
    except ValueError as error:
        raise HostsError(str(error)) from None
    given = _given(coordinator, processes, process)
    missing = [name for name, value in given.items() if not value]
    address = given[VARIABLES[0]]
    count, index = (_whole(name, given[name]) for name in VARIABLES[1:])
    if count == 1:
        return
    _require_possible(address, count, index)
    # Signals are agreed on by signals.StopRequest, which knows SIGINT too.
    jax.config.update("jax_enable_preemption_service", False)
    watch = threading.Timer(timeout, _give_up, (given, timeout))
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(
            address or None,
            count,
            index,
            # All said: nothing is left to detect. (Detection would also leave one GPU to a
            # process.)
            cluster_detection_method=None if missing else "deactivate",
            initialization_timeout=timeout + LEAVE,
            shutdown_timeout_seconds=LEAVE,
            heartbeat_timeout_seconds=heartbeat,
        )
    except ValueError as error:
        absent = NO_CLUSTER in str(error)  # nothing was found that knows what was not given
        if absent and missing == list(VARIABLES):
            return
        if not missing or (missing == list(VARIABLES) and not absent):
            raise HostsError(
                f"JAX cannot join the processes of this run: {error}. {VARIABLES[1]}=1 runs this "
                "process alone"
            ) from error
        raise HostsError(
            f"{', '.join(n for n in VARIABLES if n not in missing)} set, {', '.join(missing)} not, "
            "and no cluster (TPU, SLURM, Kubernetes, Open MPI) was found that says the rest: set "
            f"all three or none ({error})"
        ) from error
    except (RuntimeError, KeyError, OSError) as error:
        raise Absent(_alone(given, timeout) + f"\nJAX says: {error}") from error
    finally:
        watch.cancel()


def _given(coordinator: str, processes: int, process: int) -> dict[str, str]:
    """VARIABLES as the arguments of `initialize` say, else the environment; empty where neither."""
    said = coordinator, processes or "", "" if process < 0 else process
    return {name: str(x) or os.environ.get(name, "") for name, x in zip(VARIABLES, said)}


def _require_possible(address: str, count: int | None, index: int | None):
    """Raises HostsError for an address or a number that cannot be right."""
    if address and not address.rpartition(":")[2].isdigit():
        raise HostsError(
            f"{VARIABLES[0]} is {address!r}: must be HOST:PORT, the same on every process"
        )
    if count is not None and index is not None and not 0 <= index < count:
        raise HostsError(
            f"{VARIABLES[2]} is {index}: {VARIABLES[1]} is {count}, so it must be 0 to {count - 1}"
        )


def require_shared(directory: pathlib.Path, flag: str = "--workdir"):
    """Raises HostsError on every process unless all see what the first writes into the directory,
    which `flag` names."""
    if jax.process_count() == 1:
        return
    token = processes.all_gather(f"{SEEN}{secrets.token_hex(8)}" if processes.is_lead() else "")[0]
    if processes.is_lead():
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob(f"{SEEN}*"):  # of a run that was killed here
            left.unlink(missing_ok=True)
        (directory / token).touch()
    processes.barrier("token written")
    until = time.monotonic() + SEE  # a network file system may take a while to show it
    while not (seen := (directory / token).is_file()) and time.monotonic() < until:
        with suppress(OSError):  # to list a directory makes NFS look anew
            os.listdir(directory if directory.is_dir() else directory.parent)
        time.sleep(1)
    blind = [str(i) for i, sees in enumerate(processes.all_gather(seen)) if not sees]
    if processes.is_lead():
        (directory / token).unlink(missing_ok=True)
    if blind:
        raise HostsError(
            f"{flag}={directory}: process {', '.join(blind)} did not see a file there that "
            f"process 0 had written {SEE} s before. All hosts need the same directory: a network "
            f"file system (NFS, Filestore, Lustre, a mounted bucket), not each its own disk"
        )


def _alone(given: dict[str, str], timeout: int) -> str:
    address, count, index = given.values()
    return (
        f"process {index or '?'} of {count or '?'} found not all of the run's processes at "
        f"{address or 'the address that the cluster gives'} within {timeout} s. Is process 0 "
        "running, is the address its own and reachable from here, is the port free there, and "
        f"were all processes started? {VARIABLES[1]}=1 runs this process alone"
    )


def _give_up(given: dict[str, str], timeout: int):
    """Ends the process: where others do not come, JAX's own client does so, with a stack of C++ and
    no words."""
    print(f"Absent: {_alone(given, timeout)}", file=sys.stderr, flush=True)
    os._exit(exit_codes.ABSENT)


def _whole(name: str, text: str) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        raise HostsError(f"{name} is {text!r}: must be a whole number") from None
