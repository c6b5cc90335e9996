"""Janus stage 2: unified pretraining of everything but the two encoders.

Table 1 of the paper (arXiv 2410.13848), column "Stage 2"; it goes on from stage 1's weights.
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config


def get_config() -> ConfigDict:
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(model_config.janus_1_3b()),
        "template": {"user": "User", "assistant": "Assistant"},
        "tokenizer": "runs/stage1/stage1",
        "data": {
            "source": "llava",
            "understanding": "data/captions.json",
            "text": "data/text.jsonl",
            "generation": "data/text_to_image.json",
            "images": "data/images",
        },
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {
            "stage2": {
                "trainable": (
                    "understanding_adaptor", "generation_adaptor", "generation_embedding", "image_head",
                    "text_embedding", "transformer", "text_head",
                ),
                "init": ("runs/stage1/stage1",),
                "steps": 180_000,
                "batch_size": 512,
                # 512 examples of about 760 tokens (documents of 1000): 104 rows of 4096.
                "rows": {"count": 104, "length": 4096, "pictures": 3, "images": 4},
                "ratio": {"understanding": 2, "text": 3, "generation": 5},
                "supervise": "all",
                "optim": {
                    "learning_rate": 1e-4, "schedule": "constant", "warmup_steps": 5_000, "weight_decay": 0.0,
                    "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                },
            },
        },
    })  # fmt: skip
