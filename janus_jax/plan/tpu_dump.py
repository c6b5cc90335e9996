"""A TPU program's text and memory, from what libtpu writes while it compiles.

Both are decided before the machine code is made. Of a transformer that takes seconds; of the
convolutions of a VQ tokenizer in float32 with a discriminator it took more than half an hour on two
cores, where all that a plan reads was there after one minute.
"""

import dataclasses
import os
import pathlib
import re
import sys
import threading
import time

PATIENCE = 120.0  # seconds that machine code is waited for, once the rest is written
UNMADE = (
    f"machine code was not waited for longer than {PATIENCE:.0f} s: its bytes are not counted, nor is "
    "it known that libtpu can make it"
)
_THREAD = "machine code"
_ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (color \d+, )?page \d+, ([a-z-]+)", re.M)


@dataclasses.dataclass
class Dumped:
    """text: of the optimized program; arguments, temporaries: bytes of a chip's main memory."""

    text: str
    arguments: int
    temporaries: int


def read(folder: pathlib.Path) -> Dumped:
    """The largest program of a folder that `xla_dump_to` named."""
    dumps = pathlib.Path(folder).glob("*.after_optimizations.txt")
    largest = max(dumps, key=lambda file: file.stat().st_size)
    buffers = largest.with_name(largest.name.replace(".txt", "-buffer-assignment.txt"))
    sizes = {"parameter": 0, "preallocated-temp": 0}
    # Lines with a color are of other memories: a core's own, registers, flags.
    for size, color, kind in _ALLOCATION.findall(buffers.read_text("utf-8")):
        if not color and kind in sizes:
            sizes[kind] += int(size)
    return Dumped(largest.read_text("utf-8"), *sizes.values())


def compiled(lowered, options: dict, folder: pathlib.Path, patience: float = PATIENCE):
    """`lowered` compiled with `options`, which dump into `folder`; or None where all that `read`
    needs is written and machine code is not there `patience` seconds later. Its compiler then goes on
    in a thread: leave the process by `leave`."""
    done = []

    def compile():
        try:
            done.append(lowered.compile(compiler_options=options))
        except Exception as error:  # raised again below
            done.append(error)

    thread = threading.Thread(target=compile, name=_THREAD, daemon=True)
    thread.start()
    while not done:
        thread.join(1.0)
        # libtpu writes it after the buffers, and before machine code.
        written = [
            file.stat().st_mtime for file in folder.glob("*.after_optimizations-memory-usage*")
        ]
        if not done and written and time.time() - max(written) > patience:
            return None
    if isinstance(done[0], Exception):
        raise done[0]
    return done[0]


def leave(code: int) -> int:
    """The exit code; where a compiler is still at work, the process ends here, without waiting."""
    if any(thread.name == _THREAD for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
