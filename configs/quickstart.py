"""The whole of Janus in minutes on a laptop CPU: coloured shapes, four stages, no download."""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

ADAPTORS = ("understanding_adaptor", "generation_adaptor", "generation_embedding", "image_head")
LLM = ("text_embedding", "transformer", "text_head")


def stage(**changes) -> dict:
    base = {
        "init": ("previous",),
        "rows": {"count": 16, "length": 184, "understanding_images": 2, "generation_images": 3},
        "supervise": "all",
        "first_sentence": 0.0,
        "checkpoint_every": 200,
        "log_every": 20,
    }
    return {**base, **changes}


def optim(learning_rate, **changes) -> dict:
    return {
        "learning_rate": learning_rate,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "b1": 0.9,
        "b2": 0.95,
        **changes,
    }


def get_config() -> ConfigDict:
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(presets.quickstart()),
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "tokenizer": "",
        "data": {"datasets": {
            "questions": {"kind": "understanding", "path": "shapes:", "form": "chat"},
            "sentences": {"kind": "text", "path": "shapes:", "form": "chat"},
            "scenes": {
                "kind": "generation", "path": "shapes:", "form": "chat", "stages": ("stage1", "stage2", "stage3"),
            },
            "pictures": {"kind": "generation", "path": "shapes:pictures", "stages": ("stage0",)},
        }},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {
            "stage0": {
                "task": "vq", "init": (), "trainable": ("generation_encoder",), "steps": 900, "batch_size": 16,
                "ratio": {"understanding": 0, "text": 0, "generation": 1},
                "options": {"commitment": 0.25, "entropy": 0.01},
                "optim": optim(4e-3, schedule="cosine", warmup_steps=20), "checkpoint_every": 200, "log_every": 50,
            },
            "stage1": stage(
                steps=60, batch_size=44, trainable=ADAPTORS, ratio={"understanding": 1, "text": 0, "generation": 1},
                optim=optim(1e-3, schedule="cosine", warmup_steps=10),
            ),
            "stage2": stage(
                # The tower too, unlike the paper's: nothing has trained it before.
                steps=800, batch_size=56, trainable=(*ADAPTORS, *LLM, "understanding_encoder"),
                # Answers alone: which question comes next cannot be known, and most words are questions.
                # And more conversations than the paper's 2:3:5 (docs/experiments.md).
                supervise="answers", ratio={"understanding": 4, "text": 3, "generation": 5},
                optim=optim(2e-3, warmup_steps=50),
            ),
            "stage3": stage(
                steps=770, batch_size=53, trainable=(*ADAPTORS, *LLM, "understanding_encoder"),
                supervise="answers", ratio={"understanding": 7, "text": 3, "generation": 10},
                optim=optim(1e-3, schedule="cosine", weight_decay=0.1),
            ),
        },
        "evaluation": {"count": 50, "cfg_scale": 1.5, "temperature": 0.5},
    })  # fmt: skip
