"""Janus-Pro stage 3: supervised fine-tuning of everything but the generation encoder, on answers.

Table 2 of the Janus-Pro report (arXiv 2501.17811), stage 3. It goes on from stage 2's weights.

    janus-jax train --config=configs/pro_stage3.py --workdir=runs/pro_1b_stage3
    janus-jax train --config=configs/pro_stage3.py:7b --workdir=runs/pro_7b_stage3
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

# Table 2: one column for both sizes, but for the steps. `before`: the weights that stage 2 left.
SIZES = {
    "1b": dict(model=presets.janus_pro_1b, before="runs/pro_1b_stage2/stage2", steps=80_000),
    "7b": dict(model=presets.janus_pro_7b, before="runs/pro_7b_stage2/stage2", steps=40_000),
}

# A target is a size (none: 1B) and perhaps the chips: `:7b`, `:h100:64`, `:7b:h100:64`.
# Rows: the batch size is read as examples, and the rows hold about as many, of a length that
# packing fills. Taken for that: 686 tokens an example of understanding (576 of the picture, 110
# of text), 616 of generation (576 + 40), 1000 of text, log-normal spread. 128 examples are 88 k
# tokens. By simulated packing (benchmarks/packing.py) a step has 134 of them in 24 rows of 3840
# (99.7 % full), 138 in 32 rows of 3072 (96.1 %). Dialogues longer than a row are cut: at this
# spread 1.9 % of them at 3840, 3.6 % at 3072. So small a batch has no row for each of 64 devices
# or more: `tensor` divides a row's work (on GPUs inside a node). v5e:16x16, whose 64 shares need
# as many rows: 122 in rows of 1408 (91 % full, 20 % of the dialogues cut). The other reading of
# the batch size, 128 rows of 4096: --config.stages.stage3.rows.count=128
# --config.stages.stage3.rows.length=4096.
# Several devices compute every place for a picture, filled or not: rows have room for little more
# than they hold on average, not for as many as would fit. A record of more pictures than that is
# left out with a word; raise these then.
# Mesh of 1B: fsdp inside a node or over a slice; `data` copies the weights over nodes. Weights,
# moments and gradients of the trained part are 16 bytes each of 2.00 G parameters, 32 GB: 4 GB a
# device at fsdp * tensor 8. One card: 24 GB of weights and moments, 16 GB of gradients and their
# sums, 2 rows at a time. Of 7B: 16 bytes each of 7.34 G parameters, 117 GB: 15 GB a device at
# fsdp * tensor 8, too much beside activations on 40 GB; there fsdp * tensor is 64, 1.8 GB.
# mesh: data, fsdp, tensor. rows: count, length, images to understand and to generate in each.
TARGETS = {
    "": dict(size="1b", mesh=(1, -1, 1), rows=(24, 3840, 4, 3), remat="dots"),
    "a100-80gb:1": dict(
        size="1b", mesh=(1, 1, 1), rows=(24, 3840, 4, 3), remat="dots", accumulate=12
    ),
    "h100:1": dict(size="1b", mesh=(1, 1, 1), rows=(24, 3840, 4, 3), remat="dots", accumulate=12),
    "a100-40gb:128": dict(size="1b", mesh=(16, 2, 4), rows=(32, 3072, 3, 4), remat="dots"),
    "h100:64": dict(size="1b", mesh=(8, 4, 2), rows=(32, 3072, 3, 4), remat="dots"),
    "v5e:16x16": dict(size="1b", mesh=(1, 64, 4), rows=(64, 1408, 2, 2), remat="dots"),
    "v5p:4x4x8": dict(size="1b", mesh=(1, 32, 4), rows=(32, 3072, 3, 4), remat="dots"),
    "7b": dict(size="7b", mesh=(1, -1, 1), rows=(24, 3840, 4, 3), remat="dots"),
    "7b:a100-40gb:128": dict(size="7b", mesh=(2, 16, 4), rows=(32, 3072, 3, 4), remat="dots"),
    "7b:h100:64": dict(size="7b", mesh=(8, 4, 2), rows=(32, 3072, 3, 4), remat="dots"),
    "7b:v5e:16x16": dict(size="7b", mesh=(1, 64, 4), rows=(64, 1408, 2, 2), remat="dots"),
    "7b:v5p:4x4x8": dict(size="7b", mesh=(1, 32, 4), rows=(32, 3072, 3, 4), remat="dots"),
}  # fmt: skip
ROWS = ("count", "length", "understanding_images", "generation_images")


def get_config(target: str = "") -> ConfigDict:
    t = TARGETS[target]
    size = SIZES[t["size"]]
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(size["model"]()) | {"remat": t["remat"]},
        "template": {"user": "<|User|>", "assistant": "<|Assistant|>"},
        "tokenizer": size["before"],
        "data": {"workers": 8, "datasets": {
            "instructions": {
                "kind": "understanding", "path": "data/instructions.json", "images": "data/images",
            },
            "dialogues": {"kind": "text", "path": "data/dialogues.json"},
            "text_to_image": {"kind": "generation", "path": "data/text_to_image/*.tar"},
        }},
        "mesh": dict(zip(("data", "fsdp", "tensor"), t["mesh"])),
        "stages": {
            "stage3": {
                # All but the generation encoder, as in Janus.
                "trainable": (
                    "understanding_encoder", "understanding_adaptor", "generation_adaptor",
                    "generation_embedding", "image_head", "text_embedding", "transformer",
                    "text_head",
                ),
                # From the released weights, in any layout that `janus-jax convert` reads, instead:
                # --config.stages.stage3.init=weights/Janus-Pro-1B
                # --config.tokenizer=weights/Janus-Pro-1B
                # (Janus-Pro is released as pickles: convert it with --allow_pickle first.)
                "init": (size["before"],),
                "steps": size["steps"],  # Table 2: 80,000 for 1B, 40,000 for 7B
                "batch_size": 128,  # Table 2
                "rows": dict(zip(ROWS, t["rows"])),
                "accumulate": t.get("accumulate", 1),
                # Table 2, read as shares of examples.
                "ratio": {"understanding": 5, "text": 1, "generation": 4},
                "supervise": "answers",  # as in Janus: prompts are masked
                "condition_dropout": 0.1,  # as in Janus
                "first_sentence": 0.25,  # as in stage 2: our choice
                # Table 2 throughout; not said there, our choice: eps (1e-8).
                "optim": {
                    "learning_rate": 4e-5, "schedule": "constant", "warmup_steps": 0,
                    "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                },
            },
        },
    })  # fmt: skip
