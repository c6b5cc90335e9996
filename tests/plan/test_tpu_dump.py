"""plan/tpu_dump.py: what libtpu writes is read, and its machine code is not waited for for ever."""

import subprocess
import sys
import threading
import time

import pytest

from janus_jax.plan import tpu_dump

BUFFERS = """BufferAssignment:
allocation 0: size 512, page 0, thread-local:
allocation 1: size 4096, page 0, parameter 81, shape |f32[1024]| at ShapeIndex {}, maybe-live-out:
 value: <7 parameter.81 @0> (size=4096,offset=0): f32[1024]{0:T(1024)}
allocation 2: size 1024, page 0, parameter 3, shape |f32[256]| at ShapeIndex {}:
allocation 3: size 64, page 0, maybe-live-out:
allocation 4: size 70000, page 0, preallocated-temp:
allocation 5: size 900000, color 1, page 0, preallocated-temp:
"""


def write(folder, name, text, buffers):
    (folder / f"{name}.after_optimizations.txt").write_text(text)
    (folder / f"{name}.after_optimizations-buffer-assignment.txt").write_text(buffers)
    (folder / f"{name}.after_optimizations-memory-usage-report.txt").write_text("Total bytes: 1")


class Lowered:
    """Of `jax.stages.Lowered` what is asked here; `then` is what comes after the dump."""

    def __init__(self, folder, then):
        self.folder, self.then = folder, then

    def compile(self, compiler_options):
        assert compiler_options == {"an": "option"}
        write(self.folder, "module_0001.step", "HloModule step", BUFFERS)
        return self.then()


def test_the_memory_is_that_of_the_largest_program_without_a_cores_own(tmp_path):
    write(tmp_path, "module_0000.small", "Hlo", "allocation 0: size 9, page 0, parameter 0, x")
    write(tmp_path, "module_0001.step", "HloModule step", BUFFERS)
    assert tpu_dump.read(tmp_path) == tpu_dump.Dumped("HloModule step", 4096 + 1024, 70000)


def test_a_compiler_that_ends_is_waited_for(tmp_path):
    slow = lambda: time.sleep(0.2) or "program"
    assert tpu_dump.compiled(Lowered(tmp_path, slow), {"an": "option"}, tmp_path) == "program"


def test_what_the_compiler_refuses_is_raised(tmp_path):
    def refuse():
        raise ValueError("RESOURCE_EXHAUSTED: too much")

    with pytest.raises(ValueError, match="too much"):
        tpu_dump.compiled(Lowered(tmp_path, refuse), {"an": "option"}, tmp_path)


def test_machine_code_that_takes_too_long_is_left(tmp_path):
    until = threading.Event()
    lowered = Lowered(tmp_path, until.wait)
    try:
        assert tpu_dump.compiled(lowered, {"an": "option"}, tmp_path, patience=0.0) is None
        assert tpu_dump.read(tmp_path).temporaries == 70000
    finally:
        until.set()


def test_a_process_does_not_end_with_the_compiler_that_it_left():
    """Nor crashes in it: native code that still runs while Python is taken down."""
    script = (
        "import threading, time; from janus_jax.plan import tpu_dump\n"
        "threading.Thread(target=time.sleep, args=(60,), name='machine code').start()\n"
        "print('planned'); tpu_dump.leave(2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (2, "planned\n")
    assert tpu_dump.leave(1) == 1
