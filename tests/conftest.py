"""Eight fake devices, so that every sharded test runs on every machine; and nothing is compiled
twice."""

import gc
import os
import shutil
import signal
import tempfile

from janus_jax.distributed import xla_flags

# The threads of PyTorch and BLAS wait for each other by spinning: beside other tests, where there is
# no core for each, they spin thirty times as long as they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# All processes of a session, xdist's workers and those that tests start, share what they compile.
# Set the folder yourself to keep it from run to run.
SHARED = "" if "JAX_COMPILATION_CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="compiled-")
if SHARED:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = SHARED
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Compiling is most of a test's time, and the machine code need not be good: these flags take three
# quarters of it. They are asked for first, because an XLA that does not know one ends the process.
CHEAP = ["--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false"]
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = " ".join(xla_flags.known("gpu", CHEAP))

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import logging  # noqa: E402
from support.mesh import on_mesh  # noqa: E402

# A shell's background ignores it, and so would all children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")


FIRST = ("end_to_end", "training", "faults", "plan")  # the rooms of long files


def pytest_ignore_collect(collection_path, config):
    """Where slow tests alone are asked for, a file that marks none is not even imported."""
    if config.getoption("markexpr") == "slow" and collection_path.suffix == ".py":
        return "mark.slow" not in collection_path.read_text("utf-8") or None


def pytest_collection_modifyitems(config, items):
    """Slow tests run only where -m names them, whatever else it asks for. Long files come first: a
    worker that takes one last keeps the others waiting."""
    room = lambda item: item.path.relative_to(config.rootpath / "tests").parts[0]
    items.sort(key=lambda item: (*FIRST, room(item)).index(room(item)))
    if "slow" in config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if item not in slow]
    config.hook.pytest_deselected(items=slow)


def pytest_collection_finish():
    """Tracing makes many objects, and the collector looks again and again at those that stay: what
    all imports and thousands of tests have left."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def pytest_unconfigure():
    if SHARED:
        shutil.rmtree(SHARED, ignore_errors=True)


@pytest.fixture(autouse=True)
def own_verbosity():
    """A command that runs inside a test says what is logged from then on."""
    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)


@pytest.fixture
def one_device():
    with on_mesh() as mesh:
        yield mesh
