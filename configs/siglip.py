"""An understanding encoder of your own: SigLIP (arXiv 2303.15343) trained on pairs of a picture and a
text.

    janus-jax train --config=configs/siglip.py --workdir=runs/siglip

learns the names of OpenMoji's drawings, small, on a laptop: by heart, for each thing is drawn once,
and what is held out is of things that it never saw; `shapes` learns the quick start's world, whose
drawings it then scores (configs/quickstart_grpo.py:siglip). Your own pairs, as any data set with captions
(docs/data.md), with a tower of the paper's size:

    janus-jax train --config=configs/siglip.py:b16 --workdir=runs/mine \\
        --config.data.datasets.pairs.path=mine.json --config.data.datasets.pairs.images=pictures

`l16` is the tower of Janus, at 384 pixels, and goes on from its released weights
(weights/siglip_l16_384, docs/weights.md), whose text tower is not taken: it knows the ids of another
tokenizer. What a run hands on, `init` of a stage of task janus takes by name.

From big_vision (configs/proj/image_text/siglip_lit_coco.py, SigLIP_demo.ipynb; commit 0127fb6): Adam
at 1e-3 with a cosine to 0 after a warm-up of 3 % of the steps or at least 100, gradients cut to a
norm of 1, 64 tokens of lower-case text, temperature 10 and bias -10 at the beginning. From the paper:
b2 0.95, which keeps large batches stable. Our choice: all else, the small one's rate of 3e-3, and a
decay of 0.1, which is 1e-4 in big_vision's form, where it is not multiplied by the learning rate. A
batch is the other texts that a picture is told from: as large as memory takes, up to the paper's
32,768.
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model.config import (
    GenerationEncoderConfig,
    JanusConfig,
    TransformerConfig,
    UnderstandingEncoderConfig,
)

# vocabulary: of the tokenizer, which is learned of the texts unless one is named.
SMALL = JanusConfig(
    UnderstandingEncoderConfig(
        image_size=64, patch_size=8, width=96, mlp_width=384, layers=3, heads=4
    ),
    GenerationEncoderConfig(image_size=64, channels=16, norm_groups=8, multipliers=(1, 1, 2)),
    TransformerConfig(width=96, mlp_width=192, layers=1, heads=4, vocabulary=1024),
    image_head_width=96,
    dtype="float32",
    remat="none",
)
B16 = JanusConfig(
    UnderstandingEncoderConfig(
        image_size=256, patch_size=16, width=768, mlp_width=3072, layers=12, heads=12
    ),
    transformer=TransformerConfig(vocabulary=32768),
)
L16 = JanusConfig(transformer=TransformerConfig(vocabulary=32768))
# Of the quick start's world, whose cells are patches.
SHAPES = JanusConfig(
    UnderstandingEncoderConfig(
        image_size=24, patch_size=8, width=64, mlp_width=128, layers=2, heads=4
    ),
    GenerationEncoderConfig(image_size=24, channels=16, norm_groups=8, multipliers=(1, 1)),
    TransformerConfig(width=64, mlp_width=128, layers=1, heads=4, vocabulary=512),
    image_head_width=64,
    dtype="float32",
    remat="none",
)

TARGETS = {
    "": dict(model=SMALL, steps=500, batch=128, length=16, init=(), path="emoji:", rate=3e-3),
    "shapes": dict(
        model=SHAPES, steps=1_500, batch=128, length=14, init=(), path="shapes:", rate=3e-3
    ),
    "b16": dict(
        model=B16, steps=20_000, batch=4096, length=64, init=(), path="data/mine.json", rate=1e-3
    ),
    # From released weights: a hundredth of the rate, our choice.
    "l16": dict(
        model=L16, steps=5_000, batch=1024, length=64, init=("weights/siglip_l16_384",),
        path="data/mine.json", rate=1e-5,
    ),
}  # fmt: skip


def get_config(target: str = "") -> ConfigDict:
    t = TARGETS[target]
    small = target in ("", "shapes")
    warmup = max(int(0.03 * t["steps"]), 100)
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(t["model"]),
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "tokenizer": "",
        "data": {"datasets": {"pairs": {"kind": "generation", "path": t["path"]}}},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {"siglip": {
            "task": "siglip",
            "trainable": ("understanding_encoder", "pooling_head", "text_tower", "contrast"),
            "init": t["init"],
            "steps": t["steps"],
            "batch_size": t["batch"],
            "ratio": {"understanding": 0, "text": 0, "generation": 1},
            "options": {"text_length": t["length"]},
            "optim": {
                "learning_rate": t["rate"], "schedule": "cosine", "warmup_steps": warmup,
                "weight_decay": 0.1, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
            },
            "checkpoint_every": 250 if small else 1000,
            "log_every": 50,
        }},
        "evaluation": {
            "count": 0, "every": 250 if small else 1000, "holdout": 0.1 if small else 0.01
        },
    })  # fmt: skip
