"""Janus stage 3: supervised fine-tuning of everything but the generation encoder, on answers only.

Table 1 of the paper (arXiv 2410.13848), column "Stage 3"; it goes on from stage 2's weights.
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config


def get_config() -> ConfigDict:
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(model_config.janus_1_3b()),
        "template": {"user": "User", "assistant": "Assistant"},
        "tokenizer": "runs/stage2/stage2",
        "data": {
            "source": "llava",
            "understanding": "data/instructions.json",
            "text": "data/dialogues.json",
            "generation": "data/text_to_image.json",
            "images": "data/images",
        },
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {
            "stage3": {
                "trainable": (
                    "understanding_encoder", "understanding_adaptor", "generation_adaptor",
                    "generation_embedding", "image_head", "text_embedding", "transformer", "text_head",
                ),
                "init": ("runs/stage2/stage2",),
                "steps": 24_000,
                "batch_size": 256,
                # 256 examples of about 625 tokens: 41 rows of 4096, rounded up to a multiple of 8.
                "rows": {"count": 48, "length": 4096, "pictures": 4, "images": 4},
                "ratio": {"understanding": 7, "text": 3, "generation": 10},
                "supervise": "answers",
                "optim": {
                    "learning_rate": 2e-5, "schedule": "constant", "warmup_steps": 0, "weight_decay": 0.1,
                    "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                },
            },
        },
    })  # fmt: skip
