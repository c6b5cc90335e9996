"""Janus-Pro stage 2: unified pretraining of everything but the two encoders.

Table 2 of the Janus-Pro report (arXiv 2501.17811), stage 2. It goes on from stage 1's weights.
ImageNet is gone: generation learns from dense captions throughout.

    janus-jax train --config=configs/pro_stage2.py --workdir=runs/pro_1b_stage2
    janus-jax train --config=configs/pro_stage2.py:7b --workdir=runs/pro_7b_stage2
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

# Table 2 has one column a stage for both sizes. `before`: the weights that stage 1 left.
SIZES = {
    "1b": dict(model=presets.janus_pro_1b, before="runs/pro_1b_stage1/stage1"),
    "7b": dict(model=presets.janus_pro_7b, before="runs/pro_7b_stage1/stage1"),
}

# A target is a size (none: 1B) and perhaps the chips: `:7b`, `:h100:64`, `:7b:h100:64`.
# Rows: the batch size is read as examples, and the rows hold about as many, of a length that
# packing fills. Taken for that: 686 tokens an example of understanding (576 of the picture, 110
# of text), 616 of generation (576 + 40), 1000 of text, log-normal spread. 512 examples are 382 k
# tokens. By simulated packing (benchmarks/packing.py) a step has 532 of them in 96 rows of 4096
# (99.2 % full), 535 in 128 rows of 3072 (98.5 %), which 128 devices need. Documents longer than a
# row go on in later ones: at this spread 1.5 % of them at 4096, 3.6 % at 3072.
# The other reading of the batch size, 512 rows of 4096: --config.stages.stage2.rows.count=512
# (and, where a target's rows are shorter, --config.stages.stage2.rows.length=4096).
# Several devices compute every place for a picture, filled or not: rows have room for little more
# than they hold on average, not for as many as would fit (4 and 5 at 3072, 98.8 % full). A record
# of more pictures than that is left out with a word; raise these then.
# Mesh of 1B: fsdp inside a node or over a slice; `data` copies the weights over nodes. Weights,
# moments and gradients of the trained part are 16 bytes each of 1.70 G parameters, 27 GB: 3.4 GB a
# device at fsdp 8. Of 7B: 16 bytes each of 7.03 G parameters, 113 GB: 14 GB a device at fsdp 8, too
# much beside activations on 40 GB; there fsdp is 64, 1.8 GB.
# mesh: data, fsdp, tensor. rows: count, length, images to understand and to generate in each.
TARGETS = {
    "": dict(size="1b", mesh=(1, -1, 1), rows=(96, 4096, 2, 4), remat="dots"),
    "a100-40gb:128": dict(size="1b", mesh=(16, 8, 1), rows=(128, 3072, 2, 4), remat="dots"),
    "h100:64": dict(size="1b", mesh=(8, 8, 1), rows=(128, 3072, 2, 4), remat="dots"),
    "v5e:16x16": dict(size="1b", mesh=(4, 32, 2), rows=(128, 3072, 2, 4), remat="dots"),
    "v5p:4x4x8": dict(size="1b", mesh=(4, 32, 1), rows=(128, 3072, 2, 4), remat="dots"),
    "7b": dict(size="7b", mesh=(1, -1, 1), rows=(96, 4096, 2, 4), remat="dots"),
    "7b:a100-40gb:128": dict(size="7b", mesh=(2, 64, 1), rows=(128, 3072, 2, 4), remat="dots"),
    "7b:h100:64": dict(size="7b", mesh=(8, 8, 1), rows=(128, 3072, 2, 4), remat="dots"),
    "7b:v5e:16x16": dict(size="7b", mesh=(4, 32, 2), rows=(128, 3072, 2, 4), remat="dots"),
    "7b:v5p:4x4x8": dict(size="7b", mesh=(4, 32, 1), rows=(128, 3072, 2, 4), remat="dots"),
}  # fmt: skip
ROWS = ("count", "length", "understanding_images", "generation_images")

# Captions are trained as answers (section 3.3); the first question is the paper's example, the
# others are ours.
ASK = (
    "Describe the image in detail.",
    "What does this picture show?",
    "Give a full description of the picture.",
)


def get_config(target: str = "") -> ConfigDict:
    t = TARGETS[target]
    size = SIZES[t["size"]]
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(size["model"]()) | {"remat": t["remat"]},
        "template": {"user": "<|User|>", "assistant": "<|Assistant|>"},
        "tokenizer": size["before"],
        # Section 2.2 of Janus-Pro: no ImageNet here, dense captions from the start, real and
        # synthetic pictures 1:1.
        "data": {"workers": 8, "datasets": {
            "interleaved": {"kind": "understanding", "path": "data/interleaved/*.tar"},
            "captions": {
                "kind": "understanding", "path": "data/captions/*.parquet", "prompt": ASK,
            },
            "charts": {
                "kind": "understanding", "path": "data/charts.json", "images": "data/images",
            },
            "text": {"kind": "text", "path": "data/text/*.parquet"},
            "real": {"kind": "generation", "path": "data/text_to_image/*.tar", "weight": 1},
            "synthetic": {"kind": "generation", "path": "data/synthetic/*.tar", "weight": 1},
        }},
        "mesh": dict(zip(("data", "fsdp", "tensor"), t["mesh"])),
        "stages": {
            "stage2": {
                # As the report says: all but the two encoders.
                "trainable": (
                    "understanding_adaptor", "generation_adaptor", "generation_embedding",
                    "image_head", "text_embedding", "transformer", "text_head",
                ),
                "init": (size["before"],),
                # Table 2; the report stopped at 270,000 (--config.stages.stage2.steps=270000).
                "steps": 360_000,
                "batch_size": 512,  # Table 2
                "rows": dict(zip(ROWS, t["rows"])),
                # Table 2, read as shares of examples.
                "ratio": {"understanding": 2, "text": 3, "generation": 5},
                # Text of the sequence; whether prompts count is not said: our choice. So records
                # are plain, as in the paper: <image>Describe the image in detail.<caption>,
                # <question><answer>, <caption><image>; see docs/data.md for "form".
                "supervise": "all",
                "condition_dropout": 0.1,  # as in Janus
                "first_sentence": 0.25,  # as in Janus
                # Table 2 throughout; not said there, our choice: eps (1e-8).
                "optim": {
                    "learning_rate": 1e-4, "schedule": "constant", "warmup_steps": 5_000,
                    "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                },
            },
        },
    })  # fmt: skip
