"""Dynamic high resolution in four minutes: shapes of 8 pixels on canvases of up to 96 x 48, which an
encoder of 24 x 24 pixels reads as up to eight tiles and an overview, each in one token.

Target `whole` reads each canvas as one picture of as many tokens, for comparison. What is learned is
nothing but the shape of a thing whose colour is named, so chance is 0.25.
"""

import dataclasses

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

TARGETS = dict.fromkeys(("", "whole"))
TRAINED = (
    "understanding_encoder", "understanding_adaptor", "text_embedding", "transformer", "text_head",
)  # fmt: skip


def get_config(target: str = "") -> ConfigDict:
    model = presets.quickstart()
    tower = model.understanding_encoder
    if not target:
        tower = dataclasses.replace(tower, tiles=8, pixel_shuffle=3)
    model = dataclasses.replace(model, understanding_encoder=tower)
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(model),
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "tokenizer": "",
        "data": {"datasets": {
            "canvases": {"kind": "understanding", "path": "shapes:wide", "form": "chat"},
        }},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {
            "only": {
                "init": (), "trainable": TRAINED, "steps": 400, "batch_size": 33,
                "ratio": {"understanding": 1, "text": 0, "generation": 0},
                "rows": {
                    "count": 16, "length": 128, "understanding_images": 2 * tower.pieces, "generation_images": 0,
                },
                "supervise": "answers", "first_sentence": 0.0, "checkpoint_every": 200, "log_every": 20,
                "optim": {
                    "learning_rate": 2e-3, "schedule": "cosine", "warmup_steps": 20, "clip_norm": 1.0,
                },
            },
        },
        "evaluation": {"benchmarks": ("shapes_wide=shapes_wide:50",), "every": 100},
    })  # fmt: skip
