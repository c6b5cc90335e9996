"""Weights written as they stream by: one tensor, or one layer of it, in memory at a time; a directory is there
complete or not at all."""

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

from janus_jax.convert import janus_hf, janus_torch, sidecars
from janus_jax.convert import table as tb
from janus_jax.convert import tensors as ts
from janus_jax.convert.files import OWN_FILE
from janus_jax.data import durable
from janus_jax.data.processor import Processor
from janus_jax.model import config as model_config

SHARD_BYTES = 5_000_000_000
OWN, DEEPSEEK, TRANSFORMERS = FORMATS = ("janus_jax", janus_torch.KIND, janus_hf.KIND)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor to write; `pieces()` yields C-contiguous arrays of `dtype` that make it up, in order."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Callable[[], Iterator[np.ndarray]]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_safetensors(
    path: pathlib.Path, entries: list[Entry], wrote: Callable[[int], None] = lambda n: None
):
    """wrote(bytes) is called after each piece."""
    entries = sorted(
        entries, key=lambda e: -e.dtype.itemsize
    )  # so that each begins at a multiple of its width
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for entry in entries:
        offsets, at = [at, at + entry.size], at + entry.size
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
    """A directory to write into that becomes `directory` in one move when the body ends well and all of it is on the
    disk. Raises OSError (ENOSPC) when less than `size` bytes, and a tenth of a gigabyte, are free there."""
    directory = pathlib.Path(directory)
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        free = shutil.disk_usage(partial).free
        if free < size + 1e8:
            raise OSError(
                errno.ENOSPC,
                f"{directory}: {size / 1e9:.1f} GB are to be written and {free / 1e9:.1f} GB free; make room, or "
                f"choose a target elsewhere",
            )
        yield partial
        for path in [*partial.rglob("*"), partial]:
            durable.sync(path)
        shutil.rmtree(directory, ignore_errors=True)
        os.replace(partial, directory)
        durable.sync(directory.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_own(
    directory, entries: list[Entry], config=None, processor: Processor | None = None, kept=(),
    wrote=lambda count: None, settle=lambda: None,
):  # fmt: skip
    """This project's weights directory: model.safetensors, config.json, the processor's files; in manifest.json
    a checksum of every layer and the tokenizer's special ids; in kept.safetensors what only a way back needs.

    An entry whose name holds all layers yields them as pieces, one each. settle(): raises when what was read
    turned out damaged; then nothing is left behind.
    """
    sums = {}

    def summed(entry: Entry):
        sums[entry.name] = []
        for piece in entry.pieces():
            sums[entry.name].append(zlib.crc32(piece.reshape(-1).view(np.uint8)))
            yield piece

    # By name: the same weights make the same file, whatever they come from.
    entries = sorted(entries, key=lambda e: e.name)
    entries, kept = (
        [dataclasses.replace(e, pieces=lambda e=e: summed(e)) for e in some] for some in (entries, kept)
    )
    with whole(directory, sum(e.size for e in [*entries, *kept])) as partial:
        write_safetensors(partial / OWN_FILE, entries, wrote)
        if kept:
            write_safetensors(partial / "kept.safetensors", kept, wrote)
        settle()
        if config is not None:
            (partial / "config.json").write_text(json.dumps(model_config.to_dict(config), indent=2))
        manifest = {"crc32": sums}
        if processor is not None:
            processor.save(partial)
            tokenizer = partial / "tokenizer.json"
            manifest["tokenizer"] = {
                "sha256": sidecars.file_hash(tokenizer), "ids": sidecars.special_ids(processor.tokenizer)
            }  # fmt: skip
        (partial / "manifest.json").write_text(json.dumps(manifest))


def convert(source, directory, layout: str, dtype: str | None = None, wrote=lambda n: None):
    """Writes a `Source` as one of FORMATS. dtype: of the weights, the VQ tokenizer's excepted, which keep their
    own. Raises ValueError for what does not balance, is damaged, or does not fit the layout."""
    source.require(cast=True)  # as stored, or as asked for
    if layout == OWN:
        config = source.config
        if config is not None and dtype is not None:
            config = dataclasses.replace(config, dtype=dtype)
        kept = [_verbatim(source, name) for name in source.kept]
        entries = [_own_entry(source, name, dtype) for name in source.leaves]
        write_own(directory, entries, config, source.processor(), kept, wrote, source.settle)
        return
    module = {DEEPSEEK: janus_torch, TRANSFORMERS: janus_hf}[layout]
    if source.config is None:
        raise ValueError(f"{source.path}: a part ({source.kind}), no whole Janus; it converts to {OWN} only")
    problems = module.unwritable(source.config)
    if problems:
        raise ValueError(f"{source.path}: {layout} cannot represent this model:{tb.listed(problems)}")
    entries = [
        _their_entry(source, key, rows, dtype)
        for key, rows in tb.by_their_key(module.rows(source.config)).items()
    ]
    if layout == DEEPSEEK:
        entries += [_verbatim(source, name) for name in source.kept]
    processor = source.processor()
    with whole(directory, sum(e.size for e in entries)) as partial:
        write_shards(partial, entries, wrote)
        source.settle()
        stored = str(_dtype(source, "text_head.linear.kernel", dtype))
        write_their_files(partial, source.config, layout, processor, stored)


def _dtype(source, name: str, dtype: str | None) -> np.dtype:
    stored = source.leaves[name][1]
    if dtype is not None and name.startswith("generation_encoder."):
        return stored if stored == ts.BFLOAT16 else np.dtype(np.float32)
    return stored if dtype is None else np.dtype(dtype)


def _own_entry(source, name: str, dtype: str | None) -> Entry:
    shape, to = source.leaves[name][0], _dtype(source, name, dtype)

    def pieces():
        for layer in range(shape[0]) if tb.stacked(name) else [None]:
            yield ts.contiguous(source.read(name, layer), to)

    return Entry(name, shape, to, pieces)


def _their_entry(source, key: str, rows: list, dtype: str | None) -> Entry:
    to = _dtype(source, rows[0][0].ours, dtype)

    def pieces():
        for row, layer in rows:
            yield ts.contiguous(row.transform.back(source.read(row.ours, layer), row.piece), to)

    return Entry(key, rows[0][0].shape, to, pieces)


def _verbatim(source, name: str) -> Entry:
    tensor = source.kept[name]
    return Entry(name, tensor.shape, tensor.dtype, lambda: iter([source.read_kept(name)]))


def write_shards(directory: pathlib.Path, entries: list[Entry], wrote):
    """One file, or shards of at most SHARD_BYTES with their index."""
    shards = [[]]
    for entry in entries:
        if shards[-1] and sum(e.size for e in shards[-1]) + entry.size > SHARD_BYTES:
            shards.append([])
        shards[-1].append(entry)
    if len(shards) == 1:
        write_safetensors(directory / OWN_FILE, entries, wrote)
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards):
        write_safetensors(directory / name, shard, wrote)
    index = {
        "metadata": {"total_size": sum(e.size for e in entries)},
        "weight_map": {e.name: name for name, shard in zip(names, shards) for e in shard},
    }
    (directory / f"{OWN_FILE}.index.json").write_text(json.dumps(index, indent=2))


def write_their_files(directory: pathlib.Path, config, layout: str, processor: Processor, dtype: str):
    """config.json and what their processors read; dtype: of the weights, as their config.json says it."""
    tokenizer = processor.tokenizer
    ids = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
    if layout == DEEPSEEK:
        values = janus_torch.config_values(config, dtype, ids)
        sidecars.write_deepseek(directory, processor, config)
    else:
        values = janus_hf.config_values(config, dtype, ids, tokenizer.placeholder)
        sidecars.write_transformers(directory, processor, config)
    (directory / "config.json").write_text(json.dumps(values, indent=2))
