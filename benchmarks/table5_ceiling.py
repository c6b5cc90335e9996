"""The ceiling that a tokenizer sets to drawings of scenes, measured in a run that holds it: the share
of true pictures of the prompts that the detector still reads rightly after encode and decode."""

import argparse
import json
import pathlib

from janus_jax.common import files
from janus_jax.eval import record
from janus_jax.eval.generation import scenes
from janus_jax.model.guest import own_jax
from janus_jax.weights.load import load


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "data", "out"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    items = scenes.read(given.data, 1, "scenes")
    model, _ = load(given.model)
    with own_jax(model):
        right = scenes.tokenizer(model, items)
    settings = scenes.own_settings(items) | {"asked_sha256": record.asked_hash(items)}
    told = {"right": right, "of": len(items), "settings": settings}
    files.write(pathlib.Path(given.out), json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
