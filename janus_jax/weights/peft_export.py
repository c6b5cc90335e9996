"""An adapter written as Hugging Face's PEFT has it; see `weights.peft`."""

import json
import re
from collections.abc import Callable

import numpy as np

from janus_jax.common.text import listed
from janus_jax.weights import adapter_facts, processor_export
from janus_jax.weights import table as tb
from janus_jax.weights import tensors as ts
from janus_jax.weights.adapter import AdapterReader
from janus_jax.weights.adapter_facts import Facts
from janus_jax.weights.layouts import janus_hf
from janus_jax.weights.reader import WeightReader
from janus_jax.weights.target import TensorToWrite, whole, write_safetensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of every name, before the module's in the base


def to_peft(source: WeightReader, directory, dtype: str | None, wrote: Callable):
    """The pairs and whole-trained leaves of an adapter, as PEFT reads them over transformers' Janus.

    source: an adapter of this project, or a checkpoint of its training.
    dtype: of what is written, None as stored.
    wrote: called with the bytes of each piece.
    Raises ValueError for weights without pairs, and for models that transformers does not know.
    """
    if not isinstance(source, AdapterReader) or not source.facts.bases:
        raise ValueError(
            f"{source.path}: no adapter of this project ({source.kind}); give what a stage of task "
            "lora hands on"
        )
    if problems := janus_hf.unwritable(source.config):
        raise ValueError(f"{source.path}: {tb.PEFT} cannot represent this model:{listed(problems)}")
    rows = {row.ours: row for row in janus_hf.rows(source.config)}
    entries = []
    for kernel, layer in source.pairs:
        entries += _halves(source, rows[kernel], layer, dtype)
    modules = set()
    for name in source.trained:
        for layer in [None] if rows[name].layers is None else range(rows[name].layers):
            entries.append(_whole_entry(source, rows[name], layer, dtype))
            modules.add(rows[name].name(layer).rpartition(".")[0])
    processor = source.processor()
    with whole(directory, sum(e.size for e in entries)) as partial:
        write_safetensors(partial / WEIGHTS, entries, wrote)
        source.raise_if_damaged()
        kernels = {rows[kernel].theirs for kernel, _ in source.pairs}
        values = _config_values(source.facts, kernels, modules)
        (partial / CONFIG).write_text(json.dumps(values, indent=2), "utf-8")
        adapter_facts.write_facts(partial, source.facts)
        processor_export.write_transformers(partial, processor, source.config)


def _config_values(facts: Facts, kernels: set[str], modules: set[str]) -> dict:
    """adapter_config.json. kernels: their keys with pairs, `*` for a layer; modules: trained whole."""
    linears = sorted(re.escape(key.removesuffix(".weight")) for key in kernels)
    return {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": facts.bases[-1].path,
        "r": facts.rank, "lora_alpha": facts.alpha, "use_rslora": facts.rslora,
        "lora_dropout": facts.options.get("dropout", 0.0), "bias": "none", "fan_in_fan_out": False,
        "init_lora_weights": True, "inference_mode": True,
        "target_modules": "|".join(linears).replace(r"\*", r"\d+"),
        "modules_to_save": sorted(modules) or None,
    }  # fmt: skip


def _halves(source: AdapterReader, row: tb.Row, layer, dtype) -> list[TensorToWrite]:
    key = PREFIX + row.name(layer).removesuffix(".weight")
    pair = source.pairs[row.ours, layer]

    def entry(theirs: str, name: str):
        d_in, d_out = source.rows[name].shape
        to = np.dtype(dtype or source.half_dtype(name))
        pieces = lambda: iter([ts.contiguous(source.half(name, pair.layer).T, to)])
        return TensorToWrite(f"{key}.{theirs}.weight", (d_out, d_in), to, pieces)

    return [entry("lora_A", pair.a), entry("lora_B", pair.b)]


def _whole_entry(source: AdapterReader, row: tb.Row, layer, dtype) -> TensorToWrite:
    to = np.dtype(dtype or source.leaves[row.ours][1])

    def pieces():
        x = row.transform.to_theirs(source.read(row.ours, layer), row.piece)
        yield ts.contiguous(x, to)

    return TensorToWrite(PREFIX + row.name(layer), row.shape, to, pieces)
