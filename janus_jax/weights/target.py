"""Weights written as they stream by: one tensor, or one layer of it, in memory at a time; a
directory is there complete or not at all."""

import contextlib
import dataclasses
import errno
import json
import math
import os
import pathlib
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from janus_jax.common import files
from janus_jax.common.files import WEIGHTS_FILE
from janus_jax.common.paths import local
from janus_jax.data.processor import Processor
from janus_jax.weights import differences, processor_files
from janus_jax.weights import tensors as ts


@dataclasses.dataclass(frozen=True)
class TensorToWrite:
    """A tensor to write; `pieces()` yields C-contiguous arrays of `dtype` that make it up, in
    order."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Callable[[], Iterator[np.ndarray]]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_safetensors(
    path: pathlib.Path, entries: list[TensorToWrite], wrote: Callable[[int], None] = lambda n: None
):
    """wrote(bytes) is called after each piece."""
    entries = sorted(
        entries, key=lambda e: -e.dtype.itemsize
    )  # so that each begins at a multiple of its width
    header = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in entries:
        offsets = [at, at + entry.size]
        at = at + entry.size
        dtype = ts.SAFETENSORS_NAME[entry.dtype]
        header[entry.name] = {"dtype": dtype, "shape": entry.shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for entry in entries:
            begin = file.tell()
            for piece in entry.pieces():
                file.write(memoryview(piece.reshape(-1).view(np.uint8)))
                wrote(piece.nbytes)
            assert file.tell() - begin == entry.size, f"{entry.name}: pieces do not make its size"


@contextlib.contextmanager
def whole(directory, size: int):
    """A directory to write into that becomes `directory` in one move when the body ends well and
    all of it is on the disk. Raises OSError (ENOSPC) when less than `size` bytes, and a tenth of a
    gigabyte, are free there."""
    directory = pathlib.Path(local(str(directory)))
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        free = shutil.disk_usage(partial).free
        if free < size + 1e8:
            raise OSError(
                errno.ENOSPC,
                f"{directory}: {size / 1e9:.1f} GB are to be written and {free / 1e9:.1f} GB free; "
                f"make room, or choose a target elsewhere",
            )
        yield partial
        for path in [*partial.rglob("*"), partial]:
            files.sync(path)
        shutil.rmtree(directory, ignore_errors=True)
        os.replace(partial, directory)
        files.sync(directory.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_own(
    directory, entries: list[TensorToWrite], config=None, processor: Processor | None = None, kept=(),
    wrote=lambda count: None, verify=lambda: None, unshaped: dict | None = None,
    name: str = WEIGHTS_FILE, also=lambda directory: None,
):  # fmt: skip
    """This project's weights directory: model.safetensors (or another `name`), config.json, the
    processor's files; in manifest.json a checksum of every layer, the tokenizer's special ids and,
    of a part, which has no config.json, the sizes that no shape tells (`unshaped`); in
    kept.safetensors what only a way back needs.

    An entry whose name holds all layers yields them as pieces, one each. verify(): raises when what
    was read turned out damaged; then nothing is left behind. also(directory): writes what else
    belongs there.
    """
    sums = {}

    def summed(entry: TensorToWrite):
        sums[entry.name] = []
        for piece in entry.pieces():
            sums[entry.name].append(zlib.crc32(piece.reshape(-1).view(np.uint8)))
            yield piece

    # By name: the same weights make the same file, whatever they come from.
    entries = sorted(entries, key=lambda e: e.name)
    entries, kept = (
        [dataclasses.replace(e, pieces=lambda e=e: summed(e)) for e in some]
        for some in (entries, kept)
    )
    with whole(directory, sum(e.size for e in [*entries, *kept])) as partial:
        write_safetensors(partial / name, entries, wrote)
        also(partial)
        if kept:
            write_safetensors(partial / "kept.safetensors", kept, wrote)
        verify()
        if config is not None:
            values = json.dumps(differences.written_config(config), indent=2)
            (partial / "config.json").write_text(values, "utf-8")
        manifest = {"crc32": sums}
        if unshaped and config is None:
            manifest["unshaped"] = differences.written_unshaped(unshaped)
        if processor is not None:
            processor.save(partial)
            tokenizer = partial / "tokenizer.json"
            manifest["tokenizer"] = {
                "sha256": processor_files.file_hash(tokenizer), "ids": processor_files.special_ids(processor.tokenizer)
            }  # fmt: skip
        (partial / "manifest.json").write_text(json.dumps(manifest), "utf-8")
