"""C++ of ours, compiled where it runs and kept in the user's cache folder.

A machine's own compiler knows its instructions; what it has made is kept under a name that says the
source, the compiler, JAX's headers and the processor, since machines may share a home.
"""

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
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
    compiler = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
    if not compiler or not shutil.which(compiler):
        raise Missing(f"no C++ compiler ({', '.join(COMPILERS)}, or what CXX names) was found")
    try:
        told = subprocess.run(
            [compiler, "--version"], capture_output=True, timeout=PATIENCE, check=True
        )
        made_from = source.read_bytes(), told.stdout, jaxlib.__version__.encode(), processor()
        name = hashlib.sha256(b"\0".join(made_from)).hexdigest()[:32]
        kept = folder() / f"{source.stem}-{name}.so"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            _compile(compiler, source, kept)
        return ctypes.CDLL(str(kept))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or b"").decode(errors="replace").splitlines()
        first = next((line for line in lines if "error" in line), "")
        raise Missing(f"{compiler}: {first or error}") from error


def _compile(compiler: str, source: pathlib.Path, kept: pathlib.Path):
    """Another process may do the same: each writes a file of its own, and the last to end stays."""
    with tempfile.TemporaryDirectory(dir=kept.parent) as here:
        new = pathlib.Path(here) / kept.name
        headers = "-I", jax.ffi.include_dir()
        subprocess.run(
            [compiler, *OPTIONS, *headers, str(source), "-o", str(new)],
            capture_output=True, timeout=PATIENCE, check=True,
        )  # fmt: skip
        new.replace(kept)


def folder() -> pathlib.Path:
    """Where libraries are kept. Raises RuntimeError where no home directory is known."""
    given = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = given if given.is_absolute() else pathlib.Path.home() / ".cache"
    return home / "janus_jax" / "native"


@functools.cache
def processor() -> bytes:
    """What tells processors of other instructions apart."""
    told = pathlib.Path("/proc/cpuinfo")
    if not told.is_file():
        return f"{platform.machine()} {platform.processor()}".encode()
    kinds = b"model name", b"flags", b"Features", b"CPU part"
    return b"\n".join(sorted({x for x in told.read_bytes().splitlines() if x.startswith(kinds)}))
