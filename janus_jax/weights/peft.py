"""Adapters as Hugging Face's PEFT writes and reads them (huggingface/peft, 0.21): adapter_config.json,
and adapter_model.safetensors with `base_model.model.<module>.lora_A.weight` [r, in] and `.lora_B.weight`
[out, r] over the names of transformers' Janus, or of DeepSeek's code.

Modules that were trained whole (modules_to_save) and biases lie there under their own names.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable

from janus_jax.common.text import listed
from janus_jax.model.low_rank import scaling
from janus_jax.weights import adapter, adapter_facts, files, hub, parts, settings
from janus_jax.weights import table as tb
from janus_jax.weights.adapter import AdapterReader, Pair
from janus_jax.weights.adapter_facts import Base, Facts
from janus_jax.weights.layouts import janus_hf, janus_torch
from janus_jax.weights.peft_export import CONFIG, PREFIX, WEIGHTS

HALF = re.compile(r"(.*)\.lora_([AB])\.weight$")
# What says how it was trained or is loaded, and nothing of what it computes: its tensors say where.
HARMLESS = (
    "task_type", "peft_version", "auto_mapping", "inference_mode", "target_modules", "exclude_modules",
    "modules_to_save", "layers_to_transform", "layers_pattern", "lora_dropout", "fan_in_fan_out",
    "megatron_core", "megatron_config", "qalora_group_size", "runtime_config", "eva_config",
    "loftq_config", "corda_config", "ensure_weight_tying",
)  # fmt: skip
# Beginnings that leave the base as it is; others (PiSSA, OLoRA, ...) move a part of it into the pair.
BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")


def open_peft(
    directory: pathlib.Path, given, open_base: Callable, allow: dict, processor: Callable
) -> AdapterReader:
    """PEFT's adapter over its base; see `adapter.open_adapter`.

    allow: allow_pickle and allow_extra, as of `source.open_source`.
    """
    values = _config(directory)
    path = directory / WEIGHTS
    if not path.is_file():
        path = directory / "adapter_model.bin"
        files.require_allowed(directory, [path.name], allow["allow_pickle"])
    tensors, left_out = files.read_file(path)
    at = lambda place: None if hub.is_local(place) else values["revision"]
    opened = lambda place: open_base(place, revision=at(place))
    bases = adapter_facts.find_bases(_bases(directory, values, given), directory, given, opened)
    c = bases[-1].config
    if c is None or parts.ablated(c):
        raise ValueError(f"{bases[-1].path}: the base of {directory} is no whole Janus; give one")
    rows, pairs, problems = _rows(tensors, c, values)
    facts = Facts(values["r"], values["lora_alpha"], values["use_rslora"], {}, (), c)
    layout = tb.Layout(
        tb.PEFT, rows, config=c, problems=tuple(problems), notes=adapter.notes_of(facts, bases),
        image_token_id=bases[-1].layout.image_token_id,
    )  # fmt: skip
    mine = {row.ours for row in rows}
    fallback = {name: base for base in bases for name in base.leaves if name not in mine}
    weights = files.Weights(directory, tensors, left_out, [])
    reader = weights, layout, allow["allow_extra"], {}, processor, fallback
    return AdapterReader(*reader, facts=facts, pairs=pairs)


def _bases(directory: pathlib.Path, values: dict, given) -> tuple[Base, ...]:
    """What it was trained on: with the marks of the weights where this project has written it.
    given: paths where its base is, which need not be named then."""
    if (directory / adapter_facts.FACTS_FILE).is_file():
        return adapter_facts.read_facts(directory).bases
    path = values["base_model_name_or_path"] or (str(given[0]) if given else None)
    if not isinstance(path, str):
        raise ValueError(
            f"{directory / CONFIG}: base_model_name_or_path is {settings.brief(path)}: must name the "
            "weights that it was trained on; name them by --base (base= in Python)"
        )
    return (Base(path),)


def _config(directory: pathlib.Path) -> dict:
    """The values of adapter_config.json that its products depend on. Raises ValueError naming every
    field that this program does not honour."""
    path = directory / CONFIG
    values = settings.read(directory, CONFIG)
    if values is None:
        raise ValueError(
            f"{path}: missing; it says by what the products of its pairs are multiplied"
        )
    problems = []
    v = settings.Section(values, "", problems)
    v.only("peft_type", "LORA", why="an adapter that is read")
    v.only("bias", "none", "all", "lora_only", why="an adapter that is read")
    v.only("init_lora_weights", *BEGINNINGS, why="an adapter that is read")
    found = {
        "r": v.whole("r", 8), "lora_alpha": v.number("lora_alpha", 8.0),
        "use_rslora": v.flag("use_rslora", False),
        "base_model_name_or_path": v.get("base_model_name_or_path"), "revision": v.get("revision"),
    }  # fmt: skip
    for name, least in (("rank_pattern", 1), ("alpha_pattern", 0)):
        section = v.section(name)
        section.taken |= section.values.keys()
        found[name] = {key: section.number(key, None, above=least > 0) for key in section.values}
    v.rest(*HARMLESS)
    if problems:
        raise ValueError(
            f"{path}:{listed(problems)}\nMerge what is not honoured here into its base with PEFT "
            "(merge_and_unload, then save_pretrained), and give that"
        )
    return found


def _rows(tensors: dict, config, values: dict) -> tuple[list[tb.Row], dict, list[str]]:
    """(the table of an adapter's tensors, (kernel, layer) -> Pair, what cannot be read)."""
    names = {key: key.removeprefix(PREFIX).replace(".base_layer.", ".") for key in tensors}
    halves = {key: HALF.match(name) for key, name in names.items()}
    weights = {key: f"{m[1]}.weight" if m else names[key] for key, m in halves.items()}
    table = max(_namings(config), key=lambda table: sum(x in table for x in weights.values()))
    rows = {}
    pairs = {}
    problems = []
    for key, match in halves.items():
        for row, layer in table.get(weights[key], []):
            if match is None:
                theirs = row.theirs
                if ".base_layer." in key:
                    module, _, last = theirs.rpartition(".")
                    theirs = f"{module}.base_layer.{last}"
                begin = PREFIX if key.startswith(PREFIX) else ""
                rows[row.ours] = dataclasses.replace(row, theirs=begin + theirs)
            elif row.transform is not tb.LINEAR:
                problems.append(f"unknown: {key}, of no matrix")
            else:
                pair, both = _pair(key, match, row, layer, tensors, values)
                rows |= {half.ours: half for half in both}
                pairs[row.ours, layer] = pair
    return list(rows.values()), pairs, problems


def _namings(config) -> list[dict]:
    """Their key -> the (row, layer) that make it up: of transformers' Janus, of DeepSeek's, and of its
    language model alone, which some wrap."""
    alone = parts.llama_rows(config.transformer, "model", "lm_head", False)
    tables = janus_hf.rows(config), janus_torch.rows(config), alone
    return [tb.by_their_key(rows) for rows in tables]


def _pair(key: str, match, row: tb.Row, layer, tensors: dict, values: dict):
    """(the Pair of a kernel or of one layer of it, the rows of its halves). key, match: of either."""
    begin = key.removesuffix(f"{match[2]}.weight")
    a, b = (f"{begin}{half}.weight" for half in "AB")
    module = match[1]
    rank = int(_by_pattern(values["rank_pattern"], module, values["r"]))
    alpha = _by_pattern(values["alpha_pattern"], module, values["lora_alpha"])
    path = f"{adapter.PAIRS}{row.ours.removesuffix('.kernel')}" + (
        "" if layer is None else f".{layer}"
    )
    d_out, d_in = row.shape
    both = [
        tb.Row(f"{path}.a", a, (rank, d_in), tb.LINEAR),
        tb.Row(f"{path}.b", b, (d_out, rank), tb.LINEAR, None, row.part),
    ]
    by = scaling(rank, alpha, values["use_rslora"])
    return Pair(f"{path}.a", f"{path}.b", None, by), both


def _by_pattern(patterns: dict, module: str, default):
    """PEFT's way to look up what holds for a module: the first expression that fits its end."""
    return next((x for p, x in patterns.items() if re.match(rf"(.*\.)?({p})$", module)), default)
