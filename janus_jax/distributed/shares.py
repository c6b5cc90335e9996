"""Work that several processes share by files in one folder: how they wait for each other.

Not at a barrier of JAX's: those give up long before a slow process has done its part.
"""

import contextlib
import pathlib
import time

import jax

from janus_jax.common import files
from janus_jax.distributed.processes import HostsError

FAILED = "failed-{}.txt"  # where a process leaves word that it ends before its part is done


def forget(folder: pathlib.Path):
    """Removes the words that processes of an earlier command left."""
    for path in folder.glob(FAILED.format("*")):
        path.unlink()


@contextlib.contextmanager
def word_left(folder: pathlib.Path):
    """Where what is within `with` raises, the other processes are told, which would wait for this
    one's part, that it ends and why."""
    try:
        yield
    except BaseException as error:
        if jax.process_count() > 1:
            index = jax.process_index()
            why = f"process {index}: {type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # `error` is what the caller sees
                files.write(folder / FAILED.format(index), why)
        raise


def wait(folder: pathlib.Path, names: list[str]):
    """Returns once all these files are in the folder. Raises HostsError when another process has
    left word that it ends."""
    while not all((folder / name).is_file() for name in names):
        if told := [path.read_text("utf-8") for path in sorted(folder.glob(FAILED.format("*")))]:
            raise HostsError("this process is well, but not all are:\n" + "\n".join(told))
        time.sleep(1)
