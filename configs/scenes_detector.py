"""The detector of the scenes world, which scores what is drawn of it: four minutes on two cores.

Needs the extra: pip install "janus_jax[emoji]". Sizes and steps are our choice.
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets


def get_config() -> ConfigDict:
    model = model_config.to_dict(presets.quickstart())
    model["generation_encoder"]["image_size"] = 64  # the detector asks nothing else of the model
    return ConfigDict({
        "seed": 0,
        "model": model,
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "tokenizer": "",
        "data": {"datasets": {"scenes": {"kind": "generation", "path": "scenes:all"}}},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {
            "detector": {
                "task": "detector", "init": (), "trainable": ("detector",), "steps": 600, "batch_size": 32,
                "ratio": {"understanding": 0, "text": 0, "generation": 1},
                "optim": {
                    "learning_rate": 2e-3, "schedule": "cosine", "warmup_steps": 50, "weight_decay": 0.01,
                    "clip_norm": 1.0, "b1": 0.9, "b2": 0.98,
                },
                "checkpoint_every": 200, "log_every": 50,
            },
        },
        "evaluation": {"count": 0, "holdout": 0.001, "every": 200},
    })  # fmt: skip
