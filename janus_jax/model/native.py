"""C++ of ours, compiled where it runs and kept in the user's cache folder.

A machine's own compiler knows its instructions. What it has made is kept under a name that says the
source, JAX's headers and all that the compiler defines, its version and the processor's instructions
among it, since machines may share a home.
"""

import ctypes
import hashlib
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile

import jax
import jaxlib

OPTIONS = "-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-w"
COMPILERS = "c++", "g++", "clang++"
PATIENCE = 120  # seconds that a compiler has


class Missing(Exception):
    """Why there is no library, in words for the user."""


def library(source: pathlib.Path) -> ctypes.CDLL:
    """The library of one file, compiled if it was not kept. Raises Missing."""
    asked = os.environ.get("CXX", "")
    try:
        command = shlex.split(asked) or [next(filter(shutil.which, COMPILERS), "")]
    except ValueError as error:
        raise Missing(f"CXX is {asked!r}: {error}") from error
    if not shutil.which(command[0]):
        raise Missing(f"no C++ compiler ({', '.join(COMPILERS)}, or what CXX names) was found")
    try:
        defined = _run(*command, *OPTIONS, "-dM", "-E", "-x", "c++", os.devnull)
        made_from = source.read_bytes(), defined, repr((jaxlib.__version__, command, OPTIONS))
        made_from = b"\0".join(x if isinstance(x, bytes) else x.encode() for x in made_from)
        kept = folder() / f"{source.stem}-{hashlib.sha256(made_from).hexdigest()[:32]}.so"
        try:
            return ctypes.CDLL(str(kept))
        except OSError:  # there is none, or it is broken
            return _compiled(command, source, kept)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or b"").decode(errors="replace").splitlines()
        first = next((line for line in lines if "error" in line), "")
        raise Missing(f"{shlex.join(command)}: {first or error}") from error


def _compiled(command: list[str], source: pathlib.Path, kept: pathlib.Path) -> ctypes.CDLL:
    """Another process may do the same: each writes a file of its own, and the last to end stays."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, ignore_cleanup_errors=True) as here:
        new = pathlib.Path(here) / kept.name
        _run(*command, *OPTIONS, "-I", jax.ffi.include_dir(), str(source), "-o", str(new))
        loaded = ctypes.CDLL(str(new))
        new.replace(kept)
    return loaded


def _run(*command: str) -> bytes:
    done = subprocess.run(
        command, capture_output=True, timeout=PATIENCE, check=True, env=os.environ | {"LC_ALL": "C"}
    )
    return done.stdout


def folder() -> pathlib.Path:
    """Where libraries are kept. Raises RuntimeError where no home directory is known."""
    given = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = given if given.is_absolute() else pathlib.Path.home() / ".cache"
    return home / "janus_jax" / "native"
