"""Another sense (paper section 3.5): 3D point clouds, beside pictures and text, in minutes on one core.

    janus-jax train --config=configs/points.py --workdir=runs/points
    janus-jax eval --benchmark=solids --data=solids: --model=runs/points/solids --out=scores/points

Clouds of one to three solids, and questions about them: which, how many, which of two is larger. The
line `senses` is all that the model needs to be told (docs/new_modality.md). Your own clouds:
`--config.data.datasets.solids.path=mine.json`, a record a line as in docs/new_modality.md. The warning that the
understanding encoder stays random is right: no record here shows a picture.

All learn in one stage, since nothing is pretrained here. To give a trained Janus the sense, first
train its encoder and adaptor alone: `trainable` points_encoder and points_adaptor, `init` its weights.
"""

import dataclasses

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

SENSES = {
    "points": {
        "points": 512, "channels": 3, "groups": 32, "neighbours": 16, "width": 64, "layers": 2, "heads": 2,
    },
}  # fmt: skip


def get_config() -> ConfigDict:
    model = dataclasses.replace(presets.quickstart(), senses=SENSES)
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(model),
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "data": {"datasets": {"solids": {"kind": "understanding", "path": "solids:", "form": "chat"}}},
        "stages": {
            "solids": {
                "init": (), "steps": 900, "batch_size": 32, "supervise": "answers",
                "trainable": ("points_encoder", "points_adaptor", "text_embedding", "transformer", "text_head"),
                "ratio": {"understanding": 1, "text": 0, "generation": 0},
                "rows": {"count": 16, "length": 112, "understanding_images": 2, "generation_images": 0},
                "optim": {
                    "learning_rate": 2e-3, "schedule": "cosine", "warmup_steps": 50, "weight_decay": 0.05,
                },
                "checkpoint_every": 300, "log_every": 20,
            },
        },
        "evaluation": {"count": 0},
    })  # fmt: skip
