"""What a run ends with: an exit code by the kind of error, for launchers (see docs/faults.md), and its message."""

import sys
import traceback

from janus_jax import hosts, meet
from janus_jax.checkpointer import CheckpointError, CheckpointsDamaged, NotSaved
from janus_jax.data.images import ImageError
from janus_jax.data.sources import RecordError, SourceError
from janus_jax.experiment import ConfigError

CODES = {
    meet.Absent: meet.ABSENT,
    ConfigError: 2, hosts.HostsError: 2, CheckpointError: 2,
    SourceError: 3, ImageError: 3, RecordError: 3,
    FloatingPointError: 4,
    NotSaved: 74, CheckpointsDamaged: 74,
}  # fmt: skip


def exit_code(error: BaseException) -> int:
    """0, or --preempted: told to stop, and saved; 2: the command, config, hosts that differ, or more than the devices'
    memory; 3: the data; 4: training diverged; 69: not all processes came; 74: the last state not saved, or no
    checkpoint can be read; 1: anything else."""
    if isinstance(error, hosts.Preempted):
        return hosts.NOTICE.leaving()
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), 1)


def report(error: BaseException) -> int:
    """Prints what ends the run; its exit code."""
    code = exit_code(error)
    if code == 1 and not isinstance(error, FileNotFoundError | ImportError):
        traceback.print_exception(error)
    else:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return code
