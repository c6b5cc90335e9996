"""Inputs of further senses in a conversation (paper section 3.5): parts such as {"type": "points",
"points": a path, the bytes of a file, or an array}."""

import functools

import jax
import numpy as np

from janus_jax.data import senses
from janus_jax.data.sources import RecordError
from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax
from janus_jax.model.senses import known, wiring
from janus_jax.sample.cache import put
from janus_jax.sample.reading import Prompt
from janus_jax.sample.understand import counted, opened_pictures


def prepared(processor, conversation, config) -> tuple:
    """As `understand.prepare` gives it, then the role of each id, int32 [n], and the inputs
    [(sense, array)] in order. Raises ValueError."""
    conversation, inputs = _taken(conversation, config)
    tower = config.understanding_encoder
    conversation, tiles = counted(conversation, tower)
    spans, sources = processor.question(conversation, tiles)
    role = np.concatenate([np.full(len(ids), role) for ids, role, _ in spans])
    return *opened_pictures(processor, spans, sources, tower, tiles), role, inputs


def _taken(conversation, config):
    """The messages with `Slot`s where inputs stand, and these."""
    if not isinstance(conversation, list | tuple):
        return conversation, []
    slots = senses.slots_of(config)
    sizes = known.sizes(config)
    out = []
    inputs = []
    problems = []
    for k, message in enumerate(conversation):
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list | tuple):
            out.append(message)
            continue
        parts = list(content)
        for i, part in enumerate(parts):
            if (name := senses.sense_of(part)) is None:
                continue
            try:
                if name not in slots:
                    raise senses.unknown(name)
                inputs.append((name, senses.array(sizes[name], name, senses.value(part, name))))
                parts[i] = slots[name]
            except RecordError as error:
                problems.append(f"message {k}: {error}")
        out.append(message | {"content": parts})
    if problems:
        raise ValueError("\n".join(problems))
    return out, inputs


def show(model, prompt: Prompt, role: np.ndarray, inputs: list):
    """Enters in a prompt what its slots of senses read."""
    if not inputs:
        return
    if prompt.shown is None:
        prompt.is_shown = np.zeros(len(role), bool)
        prompt.shown = np.zeros((len(role), model.config.transformer.width), np.float32)
    for name, slot in senses.slots_of(model.config).items():
        arrays = [array for sense, array in inputs if sense == name]
        if arrays:
            at = role == slot.role
            prompt.is_shown[at] = True
            rows = _features(model, name, np.stack(arrays))
            prompt.shown = prompt.shown.astype(rows.dtype)
            prompt.shown[at] = rows.reshape(-1, rows.shape[-1])


def _features(model, name: str, arrays: np.ndarray) -> np.ndarray:
    """What slots read of inputs [n, *shape] of a sense: [n, K, D]."""
    children = {child: getattr(model, child) for child in (f"{name}_encoder", f"{name}_adaptor")}
    with own_jax(model):
        each = sh.batch_shards()
        leaves, tree = jax.tree.flatten(children)
        out = [
            np.asarray(_read(leaves, put(np.repeat(one[None], each, 0)), tree=tree, name=name))[:1]
            for one in arrays
        ]
    return np.concatenate(out)


@functools.partial(jax.jit, static_argnames=("tree", "name"))
def _read(leaves, inputs, *, tree, name: str):
    return wiring.features(jax.tree.unflatten(tree, leaves), name, inputs)
