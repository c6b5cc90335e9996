"""What this project's own weights say of themselves: the sizes of their model, its leaves' shapes,
and the manifest.json beside them."""

import importlib
import pathlib

from janus_jax.config import read as config_read
from janus_jax.config.sizes import model_problems
from janus_jax.data.messages import SPECIALS
from janus_jax.model import config as model_config
from janus_jax.weights import differences, parts, settings
from janus_jax.weights import table as tb

LAYOUTS = sorted(p.stem for p in (pathlib.Path(__file__).parent / "layouts").glob("[a-z]*.py"))

# Of the sizes that no shape tells, those that are no numbers.
WORDS = (
    "understanding_encoder.activation", "understanding_encoder.pixels", "generation_encoder.scales",
)  # fmt: skip


def layout_module(name: str):
    """One of LAYOUTS. Imported by name, so that a new layout is a file, and who reads our own
    weights meets no other."""
    return importlib.import_module(f"janus_jax.weights.layouts.{name}")


def our_shapes(config: model_config.JanusConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of all leaves of a model by their paths: as the table of DeepSeek's layout has
    them, since tracing the model takes seconds."""
    rows = layout_module("janus_torch").rows(config) + parts.semantic_rows(config)
    shapes = {row.ours: row.our_shape for row in rows if tb.child(row.ours) in config.children}
    if differences.ENCODER in config.children and differences.others(config):
        # Loaded where it is used: most read SigLIP.
        encoders = importlib.import_module("janus_jax.weights.encoders")
        shapes = {name: x for name, x in shapes.items() if tb.child(name) != differences.ENCODER}
        shapes |= encoders.own_shapes(config.understanding_encoder)
    if config.generation_encoder.scales:
        shapes |= importlib.import_module("janus_jax.weights.scales").scale_shapes(config)
    if config.senses:
        shapes |= importlib.import_module("janus_jax.model.senses.wiring").leaf_shapes(config)
    if config.image_head != "softmax":
        heads = importlib.import_module("janus_jax.weights.image_heads")
        shapes = {name: x for name, x in shapes.items() if tb.child(name) != "image_head"}
        shapes |= heads.SHAPES[config.image_head](config)
    return shapes


def own_manifest(directory: pathlib.Path) -> dict:
    """The checksums, a part's sizes and the tokenizer's ids in a weights directory's manifest.json,
    as far as they stand there. Raises ValueError naming what cannot stand there."""
    problems = []
    v = settings.Section(settings.read(directory, "manifest.json"), "", problems)
    sums = v.section("crc32")
    for name, x in sums.values.items():
        if not isinstance(x, list):
            sums.refuse(name, x, "a list of checksums, one a layer")
    unshaped = v.section("unshaped")
    for name, x in unshaped.values.items():
        kind, due = (str, "a word") if name in WORDS else (int | float, "a number")
        if name not in tb.UNSHAPED or not isinstance(x, kind):
            unshaped.refuse(name, x, f"{due}, for one of {', '.join(tb.UNSHAPED)}")
    tokenizer = v.section("tokenizer")
    ids = tokenizer.section("ids")
    for name, x in ids.values.items():
        if name not in SPECIALS or not isinstance(x, int):
            ids.refuse(name, x, f"the id of one of {', '.join(SPECIALS)}")
    if problems:
        problems = "; ".join(problems[:8])
        raise ValueError(f"{directory}/manifest.json: {problems}; copy the file again")
    sha256 = tokenizer.get("sha256")
    return {
        "crc32": sums.values,
        "unshaped": unshaped.values,
        "tokenizer": {"ids": ids.values, "sha256": sha256},
    }


def sizes(values, where) -> model_config.JanusConfig:
    """The sizes of a model as this project writes them, every one of them given. Raises ValueError
    that lists what is missing, unknown, of a wrong type, out of range, or does not go together.

    values: plain nested dict.
    where: the file, for the message.
    """
    problems = []
    given = values if isinstance(values, dict) else {}
    for name, value in differences.written_config(model_config.JanusConfig()).items():
        if name in ("remat", "attention"):  # they change how it computes, not what
            continue
        if name in ("semantic_decoder", "understanding", "generation"):
            continue  # as in Janus where they are missing
        inner = given.get(name) if isinstance(given.get(name), dict) else None
        if name not in given:
            problems.append(f"{name}: missing")
        elif isinstance(value, dict) and inner is not None:
            problems += [f"{name}.{key}: missing" for key in value if key not in inner]
            problems += settings.too_large(inner, f"{name}.")
    problems += settings.too_large(given, "")
    config = config_read.build(model_config.JanusConfig, values, "", problems)
    problems = problems or model_problems(config, "")
    if problems:
        raise ValueError(
            f"{where}: no sizes of a model of this project: {'; '.join(problems[:8])}; give a "
            "weights directory, such as runs/quickstart/stage3"
        )
    return config
