"""WORKDIR/config.json: the config of a run as it was last started, and what changed before.

`history` there, and in the manifest of each checkpoint, has an entry for each start that changed
something: {"time": when, "stage": and "step": where the run went on, "changed": lines "field: old ->
new", "data": {stage: `digest` of what it draws from since}}.
"""

import hashlib
import json
import pathlib

from janus_jax.common import files
from janus_jax.common.files import read_json
from janus_jax.config.read import resolve
from janus_jax.config.schema import Experiment
from janus_jax.model.config import to_dict

HISTORY = "history"


def plain_values(experiment: Experiment) -> dict:
    """A config as JSON holds it."""
    return json.loads(json.dumps(to_dict(experiment)))


def read_config(path: pathlib.Path) -> tuple[Experiment, list[dict]]:
    """(the config, the history) of a file. What older code has stored gets the defaults of the
    fields that it did not know. Raises ConfigError for fields that this code does not know."""
    values = read_json(path)
    history = values.pop(HISTORY, [])
    values["data"].pop("on_change", None)  # older code's: how it went on, not what it trained on
    return resolve(values, {})[0], history


def write_config(path: pathlib.Path, experiment: Experiment, history: list[dict]):
    """What `read_config` reads."""
    values = plain_values(experiment) | {HISTORY: history}
    files.write(path, json.dumps(values, indent=2))


def digest(fingerprint: dict) -> str:
    """Of a `data.resume.fingerprint`, without the versions of libraries, which are only told."""
    told = {name: value for name, value in fingerprint.items() if name != "versions"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
