"""The quick start's model learns to edit: "make the circle red", "add a green cross on the left", "remove
the square". It begins with the weights that come with the package; minutes on one core.

    janus-jax train --config=configs/edit_shapes.py --workdir=runs/edit_shapes
    python -m janus_jax.eval.shapes_edits --model=runs/edit_shapes/edit --out=scores/edits
"""

from ml_collections import ConfigDict

from janus_jax.weights.for_config import values_for_config

INIT = "quickstart"
ADAPTORS = ("understanding_adaptor", "generation_adaptor", "generation_embedding", "image_head")
LLM = ("text_embedding", "transformer", "text_head")


def get_config() -> ConfigDict:
    found = values_for_config(INIT)
    return ConfigDict({
        "seed": 0,
        "model": found["model"],
        "template": found["template"],
        "tokenizer": found["tokenizer"],
        # Always with ids: one way to look at a picture is learned sooner than two.
        "data": {"datasets": {
            "edits": {"kind": "generation", "path": "shapes:edits", "source_ids": 1.0},
        }},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {"edit": {
            "task": "janus", "trainable": (*ADAPTORS, *LLM, "understanding_encoder"), "init": (INIT,),
            "steps": 2000, "batch_size": 16,
            # Two edits of 115 tokens, each with a picture to read and as ids, and one to draw.
            "rows": {"count": 8, "length": 232, "understanding_images": 2, "generation_images": 4},
            "ratio": {"understanding": 0, "text": 0, "generation": 1},
            "supervise": "answers", "first_sentence": 0.0, "checkpoint_every": 250, "log_every": 50,
            "optim": {
                "learning_rate": 2e-3, "schedule": "wsd", "warmup_steps": 20, "decay_steps": 600,
                "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
            },
        }},
        "evaluation": found["evaluation"] | {"count": 0},
    })  # fmt: skip
