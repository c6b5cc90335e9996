"""What a config says of the weights that it begins with, taken from them instead of repeated."""

import pathlib

from janus_jax.checkpoint import inspect
from janus_jax.model import config as model_config
from janus_jax.weights import run_checkpoint
from janus_jax.weights.source import open_source
from janus_jax.weights.table import CHECKPOINT, PEFT, WeightsError


def values_for_config(path) -> dict:
    """`model`, `template`, `tokenizer` and `evaluation` (how it draws) as a config gives them, of the
    weights of a whole Janus at a path (directory, checkpoint or hub id), in any layout. Only headers
    and small files are read.

    Raises NoWeightsError where there are none, WeightsError for a part of a model and for files that
    do not fit each other.
    """
    source = open_source(path)
    if source.config is None:
        raise WeightsError(
            f"{path}: {source.kind} weights of a part; a whole Janus is due, whose sizes, template "
            "and tokenizer lie beside it"
        )
    config = source.config
    try:
        processor = source.processor()
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: {error}") from None
    while source.kind == PEFT and not (source.path / "processor_config.json").is_file():
        source = next(iter(source.fallback.values()))  # whose processor it has
    template = processor.template
    tokenizer = source.path
    if source.kind == CHECKPOINT:
        named = run_checkpoint.run_config(source.path)["tokenizer"]
        tokenizer = named or inspect.workdir_of(source.path)
    return {
        "model": model_config.to_dict(config),
        "template": {
            "user": template.user, "assistant": template.assistant, "system": template.system
        },
        "tokenizer": str(pathlib.Path(tokenizer)),
        "evaluation": {"cfg_scale": processor.cfg_scale, "temperature": processor.temperature},
    }  # fmt: skip
