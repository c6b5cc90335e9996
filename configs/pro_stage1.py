"""Janus-Pro stage 1: the adaptors and the image head learn to speak with a frozen language model.

Table 2 of the Janus-Pro report (arXiv 2501.17811), stage 1. The data are Janus's (captions of
ShareGPT4V, names of ImageNet-1k), drawn 1:3 and for twice as long.

    janus-jax train --config=configs/pro_stage1.py --workdir=runs/pro_1b_stage1
    janus-jax train --config=configs/pro_stage1.py:7b --workdir=runs/pro_7b_stage1
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

# Table 2 has one column a stage for both sizes; they differ in the language model that they begin
# with. The tokenizer is any tokenizer.json that has the pictures' control tokens: a released
# Janus's.
SIZES = {
    "1b": dict(
        model=presets.janus_pro_1b,
        tokenizer="weights/Janus-Pro-1B",
        language_model="weights/deepseek_llm_1_3b",
    ),
    "7b": dict(
        model=presets.janus_pro_7b,
        tokenizer="weights/Janus-Pro-7B",
        language_model="weights/deepseek_llm_7b",
    ),
}

# A target is a size (none: 1B) and perhaps the chips: `:7b`, `:h100:64`, `:7b:h100:64`.
# Rows: the batch size is read as examples, and the rows hold about as many, of a length that
# packing fills. Taken for that: 686 tokens an example of understanding (576 of the picture, 110
# of text), 616 of generation (576 + 40), log-normal spread of the text. 256 examples are 162 k
# tokens. By simulated packing (benchmarks/packing.py) a step has 251 of them in 64 rows of 2560
# (97.1 % full): four in a row, whatever their text. A row for each of 128 devices would be two in
# a row, 89.3 % full with 254 examples at 1408: on GPUs 64 rows and tensor = 2 do better (figures
# in stage1.py). TPUs keep 128.
# Several devices compute every place for a picture, filled or not: rows have room for little more
# than they hold on average, not for as many as would fit (4 and 4 at 2560, 97.8 % full). A record
# of more pictures than that is left out with a word; raise these then.
# Mesh of 1B: fsdp inside a node or over a slice; `data` copies the weights over nodes. The frozen
# model is 8 GB, the trained part's weights, moments and gradients 0.8 GB; divided by fsdp either is
# small. Of 7B: the frozen model is 29 GB in float32, the trained part's weights, moments and
# gradients 2 GB, both divided by fsdp: over 64 of the 40 GB cards, inside a node of the 80 GB ones.
# mesh: data, fsdp, tensor. rows: count, length, images to understand and to generate in each.
TARGETS = {
    "": dict(size="1b", mesh=(1, -1, 1), rows=(64, 2560, 1, 3), remat="dots"),
    "a100-40gb:128": dict(size="1b", mesh=(16, 4, 2), rows=(64, 2560, 1, 3), remat="dots"),
    "h100:64": dict(size="1b", mesh=(8, 8, 1), rows=(64, 2560, 1, 3), remat="dots"),
    "v5e:16x16": dict(size="1b", mesh=(4, 32, 2), rows=(128, 1408, 1, 2), remat="dots"),
    "v5p:4x4x8": dict(size="1b", mesh=(4, 32, 1), rows=(128, 1408, 1, 2), remat="dots"),
    "7b": dict(size="7b", mesh=(1, -1, 1), rows=(64, 2560, 1, 3), remat="dots"),
    "7b:a100-40gb:128": dict(size="7b", mesh=(2, 32, 2), rows=(64, 2560, 1, 3), remat="dots"),
    "7b:h100:64": dict(size="7b", mesh=(8, 8, 1), rows=(64, 2560, 1, 3), remat="dots"),
    "7b:v5e:16x16": dict(size="7b", mesh=(4, 32, 2), rows=(128, 1408, 1, 2), remat="dots"),
    "7b:v5p:4x4x8": dict(size="7b", mesh=(4, 32, 1), rows=(128, 1408, 1, 2), remat="dots"),
}  # fmt: skip
ROWS = ("count", "length", "understanding_images", "generation_images")


def get_config(target: str = "") -> ConfigDict:
    t = TARGETS[target]
    size = SIZES[t["size"]]
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(size["model"]()) | {"remat": t["remat"]},
        "template": {"user": "<|User|>", "assistant": "<|Assistant|>"},
        "tokenizer": size["tokenizer"],
        # Section 3.3: captions of ShareGPT4V, and ImageNet's class names as what to draw.
        "data": {"workers": 8, "datasets": {
            "sharegpt4v": {
                "kind": "understanding", "path": "data/sharegpt4v.json", "images": "data/images",
                "caption": "conversations",  # <image><text>: its first answer, without the question
            },
            "imagenet": {
                "kind": "generation", "path": "data/imagenet/train",
                "names": "data/imagenet_names.tsv",
            },
        }},
        "mesh": dict(zip(("data", "fsdp", "tensor"), t["mesh"])),
        "stages": {
            "stage1": {
                # As in Janus's Figure 3; the generation embedding counts as part of its adaptor:
                # our choice.
                "trainable": (
                    "understanding_adaptor", "generation_adaptor", "generation_embedding",
                    "image_head",
                ),
                # Converted to this layout: SigLIP-Large-patch16-384, the size's DeepSeek-LLM (1.3B
                # or 7B), LlamaGen's VQ-16.
                "init": (
                    "weights/siglip_l16_384", size["language_model"], "weights/llamagen_vq16",
                ),
                "steps": 20_000,  # Table 2
                "batch_size": 256,  # Table 2
                "rows": dict(zip(ROWS, t["rows"])),
                # Table 2, read as shares of examples.
                "ratio": {"understanding": 1, "text": 0, "generation": 3},
                # Text of the sequence. So records are plain, as in the paper: <image><text>,
                # <category_name><image>; see docs/data.md for "form".
                "supervise": "all",
                "condition_dropout": 0.1,  # as in Janus
                "first_sentence": 0.0,  # category names have one
                # Table 2 throughout; not said there, our choice: eps (1e-8).
                "optim": {
                    "learning_rate": 1e-3, "schedule": "constant", "warmup_steps": 600,
                    "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                },
            },
        },
    })  # fmt: skip
