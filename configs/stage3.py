"""Janus stage 3: supervised fine-tuning of everything but the generation encoder, on answers only.

Table 1 of the paper (arXiv 2410.13848), column "Stage 3". It goes on from stage 2's weights.
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

# Rows: the batch size is read as examples, and the rows hold about as many, of a length that
# packing fills. Taken for that: 686 tokens an example of understanding (576 of the picture, 110
# of text), 616 of generation (576 + 40), 1000 of text, log-normal spread. 256 examples are 179 k
# tokens. By simulated packing (benchmarks/packing.py) a step has 263 of them in 48 rows of 3840
# (99.7 % full), 273 in 64 rows of 3072 (96.8 %). A row for each of 128 devices would be 242 in
# rows of 1408 (90 % full), so there `tensor` divides the work of 64. Dialogues longer than a row
# are cut: at this spread 1.9 % of them at 3840, 3.6 % at 3072, and 20 % at 1408.
# Several devices compute every place for a picture, filled or not: rows have room for little more
# than they hold on average, not for as many as would fit (4 and 5 at 3072, 97.9 % full). A record
# of more pictures than that is left out with a word; raise these then.
# Mesh: fsdp inside a node or over a slice; `data` copies the weights over nodes. Weights, moments
# and gradients of the trained part are 16 bytes each of 2.00 G parameters, 32 GB: 4 GB a device at
# fsdp * tensor 8.
# mesh: data, fsdp, tensor. rows: count, length, images to understand and to generate in each.
# One card: 24 GB of weights and moments, 16 GB of gradients and their sums, 2 or 4 rows at a time.
TARGETS = {
    "": dict(mesh=(1, -1, 1), rows=(48, 3840, 3, 4), remat="dots"),
    "a100-80gb:1": dict(mesh=(1, 1, 1), rows=(48, 3840, 3, 4), remat="dots", accumulate=24),
    "h100:1": dict(mesh=(1, 1, 1), rows=(48, 3840, 3, 4), remat="dots", accumulate=12),
    "a100-40gb:128": dict(mesh=(16, 4, 2), rows=(64, 3072, 2, 4), remat="dots"),
    "h100:64": dict(mesh=(8, 8, 1), rows=(64, 3072, 2, 4), remat="dots"),
    "v5e:16x16": dict(mesh=(2, 32, 4), rows=(64, 3072, 2, 4), remat="dots"),
    "v5p:4x4x8": dict(mesh=(1, 32, 4), rows=(64, 3072, 2, 4), remat="dots"),
}  # fmt: skip
ROWS = ("count", "length", "understanding_images", "generation_images")


def get_config(target: str = "") -> ConfigDict:
    t = TARGETS[target]
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(presets.janus_1_3b()) | {"remat": t["remat"]},
        "template": {"user": "User", "assistant": "Assistant"},
        "tokenizer": "runs/stage2/stage2",
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
                # All but the generation encoder (Figure 3).
                "trainable": (
                    "understanding_encoder", "understanding_adaptor", "generation_adaptor",
                    "generation_embedding", "image_head", "text_embedding", "transformer",
                    "text_head",
                ),
                # From the released weights, in any layout that `janus-jax convert` reads, instead:
                # --config.stages.stage3.init=weights/Janus-1.3B
                # --config.tokenizer=weights/Janus-1.3B
                "init": ("runs/stage2/stage2",),
                "steps": 24_000,  # Table 1
                "batch_size": 256,  # Table 1
                "rows": dict(zip(ROWS, t["rows"])),
                "accumulate": t.get("accumulate", 1),
                # Table 1, read as shares of examples.
                "ratio": {"understanding": 7, "text": 3, "generation": 10},
                "supervise": "answers",  # the paper: prompts are masked
                "condition_dropout": 0.1,  # the paper
                "first_sentence": 0.25,  # as in stage 2: our choice
                # Table 1 throughout; not said there, our choice: eps (1e-8).
                "optim": {
                    "learning_rate": 2e-5, "schedule": "constant", "warmup_steps": 0,
                    "weight_decay": 0.1, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                },
            },
        },
    })  # fmt: skip
