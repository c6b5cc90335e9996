"""Compiled programs, kept from run to run in the user's cache folder.

Commands call `keep`; the library does not, since JAX's settings are its caller's. What the user has
set in JAX_COMPILATION_CACHE_DIR or in JAX's config stays; an empty variable turns the cache off.
A program's key names jaxlib, the device and, on CPU, its instructions: machines may share a home.
Runs of several processes are left out: those that find nothing there would wait for the kernels
that the others choose.
"""

import os
import pathlib
import sys

import filelock
import jax

SIZE = 4 << 30  # bytes; beyond it JAX drops the programs that were not used for longest
# Before, XLA's CPU refused on many processors what it had kept, with an error for each program
# (github.com/jax-ml/jax/issues/38445).
CPU_SINCE = (0, 10, 2)
WAIT = 10  # seconds for another process to let go of the folder, as JAX waits


def folder() -> pathlib.Path:
    """Where compiled programs are kept. Raises RuntimeError where no home directory is known."""
    given = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = given if given.is_absolute() else pathlib.Path.home() / ".cache"
    return home / "janus_jax" / "compiled"


def keep():
    """Lets JAX keep compiled programs, to be called once its devices are there and before anything
    is compiled. A folder that cannot be written is said, and nothing is kept."""
    config = jax.config
    if config.jax_compilation_cache_dir == "":  # else XLA's own caches go to the working directory
        config.update("jax_compilation_cache_dir", None)
        return
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    refused = jax.default_backend() == "cpu" and jax.__version_info__ < CPU_SINCE
    if refused or jax.process_count() > 1:
        return
    try:
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        _drop_halves(place)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home, a file system without locks
        print(f"WARNING: compiled programs are not kept: {error}", file=sys.stderr, flush=True)
        return
    config.update("jax_compilation_cache_dir", str(place))
    if config.jax_compilation_cache_max_size == -1:  # JAX's default: without end
        config.update("jax_compilation_cache_max_size", SIZE)


def _drop_halves(place: pathlib.Path):
    """Removes what a process that was killed while it wrote has left: JAX would warn of it for
    ever. Each program has a second file, the time of its last use, that is written after it."""
    with filelock.FileLock(place / ".lockfile", timeout=WAIT):  # JAX's own lock
        for path in place.glob("*-cache"):
            if not path.with_name(f"{path.name.removesuffix('-cache')}-atime").exists():
                path.unlink()
