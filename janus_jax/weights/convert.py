"""Weights of any layout written as one of FORMATS, one tensor or one layer of it in memory at a
time."""

import dataclasses
import json
import pathlib
import shutil
import zipfile

import numpy as np

from janus_jax.common.files import WEIGHTS_FILE
from janus_jax.common.text import listed
from janus_jax.data.processor import Processor
from janus_jax.weights import encoders, processor_export
from janus_jax.weights import table as tb
from janus_jax.weights import tensors as ts
from janus_jax.weights.layouts import diffusers_kl, janus_hf, janus_torch, llamagen_vq, siglip
from janus_jax.weights.peft_export import to_peft
from janus_jax.weights.target import TensorToWrite, whole, write_own, write_safetensors
from janus_jax.weights.torch_zip import write_torch

OWN, DEEPSEEK, TRANSFORMERS, LLAMAGEN, SIGLIP, PEFT, DIFFUSERS_KL = FORMATS = (
    tb.OWN, janus_torch.KIND, janus_hf.KIND, llamagen_vq.KIND, siglip.KIND, tb.PEFT, diffusers_kl.KIND,
)  # fmt: skip
SHARD_BYTES = 5_000_000_000


def to_layout(source, directory, layout: str, dtype: str | None = None, wrote=lambda n: None):
    """Writes a `WeightReader` as one of FORMATS. dtype: of the weights, the VQ tokenizer's
    excepted, which keep their own. Raises ValueError for what does not balance, is damaged, or does
    not fit the layout."""
    source.require(cast=True)  # as stored, or as asked for
    small = [name for name, (_, stored) in source.leaves.items() if stored.itemsize == 1]
    if small and dtype is None:
        raise ValueError(
            f"{source.path}: {small[0]} and others are {source.leaves[small[0]][1]}, which no program "
            "computes in; give --dtype=bfloat16 or float32"
        )
    if layout == OWN:
        config = source.config
        if config is not None and dtype is not None:
            config = dataclasses.replace(config, dtype=dtype)
        kept = [_verbatim(source, name) for name in source.kept]
        entries = [_own_entry(source, name, dtype) for name in source.leaves]
        write_own(
            directory, entries, config, source.processor(), kept, wrote, source.raise_if_damaged,
            source.unshaped,
        )  # fmt: skip
        copy_tokenizer(source, pathlib.Path(directory))
        return
    if layout == SIGLIP:
        write_big_vision(source, directory, dtype, wrote)
        return
    if layout == LLAMAGEN:
        return _to_llamagen(source, directory, dtype, wrote)
    if layout == DIFFUSERS_KL:
        return _to_diffusers_kl(source, directory, dtype, wrote)
    if source.config is None:
        raise ValueError(
            f"{source.path}: a part ({source.kind}), no whole Janus; give --format={OWN}, or, of a VQ "
            f"tokenizer, {LLAMAGEN}, of an understanding encoder, {SIGLIP}, of a KL tokenizer, {DIFFUSERS_KL}"
        )
    if layout == PEFT:
        return to_peft(source, directory, dtype, wrote)
    module = {DEEPSEEK: janus_torch, TRANSFORMERS: janus_hf}[layout]
    problems = module.unwritable(source.config)
    if problems:
        raise ValueError(f"{source.path}: {layout} cannot represent this model:{listed(problems)}")
    entries = [
        _their_entry(source, key, rows, dtype)
        for key, rows in tb.by_their_key(module.rows(source.config)).items()
    ]
    if layout == DEEPSEEK:
        entries += [_verbatim(source, name) for name in source.kept]
    processor = source.processor()
    with whole(directory, sum(e.size for e in entries)) as partial:
        write_shards(partial, entries, wrote)
        source.raise_if_damaged()
        stored = str(_dtype(source, "text_head.linear.kernel", dtype))
        write_their_files(partial, source.config, layout, processor, stored)


def _to_llamagen(source, directory, dtype: str | None, wrote):
    """The VQ tokenizer of a source as LlamaGen's file, llamagen_vq.FILE in the directory."""
    if f"{tb.VQ}.codebook" not in source.leaves:
        raise ValueError(
            f"{source.path}: holds no VQ tokenizer ({tb.VQ}), it is {source.kind}; give what a stage of "
            "task vq or semantic hands on, or a Janus"
        )
    try:
        rows = llamagen_vq.rows(
            {name: x for name, (x, _) in source.leaves.items()}, source.unshaped
        )
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from None
    entries = [
        _their_entry(source, key, some, dtype) for key, some in tb.by_their_key(rows).items()
    ]
    kept = [name for name in source.kept if name.endswith(llamagen_vq.USED)]
    entries += [
        dataclasses.replace(_verbatim(source, name), name=llamagen_vq.USED) for name in kept
    ]
    if not kept:  # LlamaGen's module has it and asks for it
        none = np.zeros(llamagen_vq.COUNTED, np.float32)
        entries.append(
            TensorToWrite(llamagen_vq.USED, none.shape, none.dtype, lambda: iter([none]))
        )
    with whole(directory, sum(e.size for e in entries)) as partial:
        write_torch(partial / llamagen_vq.FILE, "model", entries, wrote)
        source.raise_if_damaged()


def _to_diffusers_kl(source, directory, dtype: str | None, wrote):
    """The KL tokenizer of a source as diffusers' folder of an AutoencoderKL."""
    shapes = {name: x for name, (x, _) in source.leaves.items()}
    try:
        sizes = diffusers_kl.kl_sizes(shapes, source.unshaped)
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from None
    keys = tb.by_their_key(diffusers_kl.table(sizes))
    entries = [_their_entry(source, key, rows, dtype) for key, rows in keys.items()]
    with whole(directory, sum(e.size for e in entries)) as partial:
        write_safetensors(partial / diffusers_kl.FILE, entries, wrote)
        source.raise_if_damaged()
        values = diffusers_kl.config_values(sizes)
        (partial / "config.json").write_text(json.dumps(values, indent=2), "utf-8")


def write_big_vision(source, directory, dtype: str | None, wrote):
    """SigLIP's image tower, and what else of SigLIP there is, as big_vision's model.npz."""
    heads = source.unshaped.get(f"{siglip.TOWER}.heads")
    if f"{siglip.TOWER}.positions" not in source.leaves or heads is None:
        raise ValueError(
            f"{source.path}: no {siglip.TOWER} whose number of heads is known; give what a stage of "
            "task siglip hands on, or a Janus"
        )
    if other := encoders.beyond_siglip(source.leaves, source.unshaped):
        raise ValueError(
            f"{source.path}: no SigLIP, whose layout has no place for it: {'; '.join(other)}; keep it in "
            f"this project's (--format={OWN})"
        )
    keys = tb.by_their_key(siglip.rows_of(source.leaves, heads))
    entries = [_their_entry(source, key, rows, dtype) for key, rows in keys.items()]
    with whole(directory, sum(e.size for e in entries)) as partial:
        with zipfile.ZipFile(partial / "model.npz", "w") as archive:
            for entry in entries:
                (x,) = entry.pieces()
                stored = x.view("V2") if x.dtype == ts.BFLOAT16 else x  # as numpy has it
                with archive.open(f"{entry.name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, stored)
                wrote(x.nbytes)
        source.raise_if_damaged()
        copy_tokenizer(source, partial)


def left_behind(source, layout: str) -> list[str]:
    """What of a source that was written as this layout is not there, in words."""
    children = {name.split(".")[0] for name in source.leaves}
    taken = children
    if layout == PEFT:
        return []  # the base is not in the adapter either
    if layout in (LLAMAGEN, DIFFUSERS_KL):
        taken = {tb.VQ}
    elif layout == SIGLIP:
        rows = siglip.rows_of(source.leaves, source.unshaped[f"{siglip.TOWER}.heads"])
        taken = {row.ours.split(".")[0] for row in rows}
    found = sorted(children - taken)
    if source.kept and layout == TRANSFORMERS:
        found.append(f"{len(source.kept)} tensors that this layout has no place for")
    return found


def copy_tokenizer(source, directory: pathlib.Path):
    """Of a part that has a text tower: without it nobody knows what its ids mean."""
    if source.config is None and "text_tower.positions" in source.leaves:
        file = source.path / "tokenizer.json"
        if not file.is_file():
            raise ValueError(
                f"{source.path}: a text tower without its tokenizer.json; put it beside the weights"
            )
        shutil.copy(file, directory)


def _dtype(source, name: str, dtype: str | None) -> np.dtype:
    stored = source.leaves[name][1]
    if dtype is not None and name.startswith(f"{tb.VQ}."):
        return stored if stored == ts.BFLOAT16 else np.dtype(np.float32)
    return stored if dtype is None else np.dtype(dtype)


def _own_entry(source, name: str, dtype: str | None) -> TensorToWrite:
    shape = source.leaves[name][0]
    to = _dtype(source, name, dtype)

    def pieces():
        for layer in range(shape[0]) if tb.stacked(name) else [None]:
            yield ts.contiguous(source.read(name, layer), to)

    return TensorToWrite(name, shape, to, pieces)


def _their_entry(source, key: str, rows: list, dtype: str | None) -> TensorToWrite:
    to = _dtype(source, rows[0][0].ours, dtype)

    def pieces():
        for row, layer in rows:
            yield ts.contiguous(
                row.transform.to_theirs(source.read(row.ours, layer), row.piece), to
            )

    return TensorToWrite(key, rows[0][0].shape, to, pieces)


def _verbatim(source, name: str) -> TensorToWrite:
    tensor = source.kept[name]
    return TensorToWrite(name, tensor.shape, tensor.dtype, lambda: iter([source.read_kept(name)]))


def write_shards(directory: pathlib.Path, entries: list[TensorToWrite], wrote):
    """One file, or shards of at most SHARD_BYTES with their index."""
    shards = [[]]
    for entry in entries:
        if shards[-1] and sum(e.size for e in shards[-1]) + entry.size > SHARD_BYTES:
            shards.append([])
        shards[-1].append(entry)
    if len(shards) == 1:
        write_safetensors(directory / WEIGHTS_FILE, entries, wrote)
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards):
        write_safetensors(directory / name, shard, wrote)
    index = {
        "metadata": {"total_size": sum(e.size for e in entries)},
        "weight_map": {e.name: name for name, shard in zip(names, shards) for e in shard},
    }
    (directory / f"{WEIGHTS_FILE}.index.json").write_text(json.dumps(index, indent=2), "utf-8")


def write_their_files(
    directory: pathlib.Path, config, layout: str, processor: Processor, dtype: str
):
    """config.json and what their processors read; dtype: of the weights, as their config.json says
    it."""
    tokenizer = processor.tokenizer
    ids = {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "pad_token_id": tokenizer.pad,
    }
    if layout == DEEPSEEK:
        values = janus_torch.config_values(config, dtype, ids)
        processor_export.write_deepseek(directory, processor, config)
    else:
        values = janus_hf.config_values(config, dtype, ids, tokenizer.placeholder)
        processor_export.write_transformers(directory, processor, config)
    (directory / "config.json").write_text(json.dumps(values, indent=2), "utf-8")
