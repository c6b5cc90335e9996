"""The quick start's model learns to answer with words and pictures: "a circle. where is the circle?" gives
"here is a circle:", a drawing, "the circle is at the top left.". It begins with the weights that come with
the package; minutes on one core.

    janus-jax train --config=configs/interleaved_shapes.py --workdir=runs/interleaved_shapes
    python -m janus_jax.eval.shapes_interleaved --model=runs/interleaved_shapes/interleaved --out=scores/interleaved
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
        "data": {"datasets": {
            "answers": {"kind": "generation", "path": "shapes:interleaved"},
        }},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {"interleaved": {
            "task": "janus", "trainable": (*ADAPTORS, *LLM), "init": (INIT,),
            "steps": 1000, "batch_size": 16,
            # Two conversations of 71 to 85 tokens, each with a picture to draw and none to read.
            "rows": {"count": 8, "length": 168, "understanding_images": 0, "generation_images": 2},
            "ratio": {"understanding": 0, "text": 0, "generation": 1},
            "supervise": "answers", "first_sentence": 0.0, "checkpoint_every": 250, "log_every": 50,
            "optim": {
                "learning_rate": 2e-3, "schedule": "wsd", "warmup_steps": 20, "decay_steps": 300,
                "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
            },
        }},
        "evaluation": found["evaluation"] | {"count": 0},
    })  # fmt: skip
