"""Several processes as one run: what they tell each other, and how they compare themselves.
initialize.py: how they meet."""

import json
import socket

import jax
import numpy as np
from jax.experimental import multihost_utils

from janus_jax.common import exit_codes
from janus_jax.distributed import exits


class HostsError(ValueError):
    """The processes of a run cannot find each other, or do not fit together."""

    exit_code = "usage"


class Others(HostsError, exits.SecondaryError):
    """This process is well, another is not. exit_code: the other's."""

    def __init__(self, text: str, exit_code: int = exit_codes.FAULT):
        super().__init__(text)
        self.exit_code = exit_code


def is_lead() -> bool:
    """Whether this is the process that writes and prints for all."""
    return jax.process_index() == 0


def all_gather(value) -> list:
    """What each process gave, by process, on all of them; values that JSON holds. All must call
    it."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(data.size))
    padded = multihost_utils.process_allgather(np.pad(data, (0, sizes.max() - data.size)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(padded, sizes)]


def barrier(name: str):
    """Returns once all processes have come here.

    The first collective opens the connections that the later ones use, and on CPU (Gloo) only where
    no process is more
    than 30 s behind: so all wait for each other as soon as they have met, before any opens its
    data.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def all_sum(counts: dict[str, float]) -> dict[str, float]:
    """The sums over all processes, each of which has the same names."""
    if jax.process_count() == 1 or not counts:
        return counts
    sums = multihost_utils.process_allgather(np.array(list(counts.values()), np.float32)).sum(0)
    return dict(zip(counts, sums.tolist()))


def all_or_none(action):
    """`action()` on every process; where it raises on one, all raise: its own error there, Others
    elsewhere.

    Without it the others would wait for a process that has gone.
    """
    error = None
    result = None
    try:
        result = action()
    except Exception as caught:
        error = caught
    failed = all_gather(error and [f"{type(error).__name__}: {error}", exit_codes.of_error(error)])
    if error is not None:
        raise error
    if any(failed):
        said = "\n".join(f"process {i}: {one[0]}" for i, one in enumerate(failed) if one)
        code = next(one[1] for one in failed if one)
        raise Others(f"this process is well, but not all are:\n{said}", code)
    return result


def require_equal(facts: dict[str, str]):
    """Raises HostsError naming what differs between the processes and between which.

    facts: name -> anything short that must be the same everywhere, a hash for example.
    """
    everyone = all_gather({"host": socket.gethostname(), "facts": facts})
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
            "the processes of this run do not run the same; give all hosts the same command, code, "
            "packages and "
            "files. They differ in:\n" + "\n".join(lines)
        )
