"""Janus stage 1: the adaptors and the image head learn to speak with a frozen language model.

Table 1 of the paper (arXiv 2410.13848), column "Stage 1". Trained on image-text pairs read both
ways: 1.25 M captions of ShareGPT4V and 1.2 M pictures of ImageNet-1k with their category names.
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

# Rows: the batch size is read as examples, and the rows hold about as many, of a length that
# packing fills. Taken for that: 686 tokens an example of understanding (576 of the picture, 110
# of text), 616 of generation (576 + 40), log-normal spread of the text. 256 examples are 167 k
# tokens. By simulated packing (benchmarks/packing.py) a step has 255 of them in 64 rows of 2688
# (96.3 % full): four in a row, whatever their text. A row for each of 128 devices would be two in
# a row, 89.7 % full with 248 examples at 1408: on GPUs 64 rows and tensor = 2 do better, by
# `janus-jax plan` 5.5 % more useful tokens a second at most (2 % where nothing overlaps). TPUs
# keep 128 rows: 64 and tensor = 4 (v5p:4x4x8 has no axis of 2 chips) are 5 % more at most, and 14
# % less where nothing overlaps.
# Several devices compute every place for a picture, filled or not: rows have room for little more
# than they hold on average, not for as many as would fit. A record of more pictures than that is
# left out with a word; raise these then.
# Mesh: fsdp inside a node or over a slice; `data` copies the weights over nodes. The frozen model
# is 8 GB, the trained part's weights, moments and gradients 0.8 GB; divided by fsdp either is
# small.
# mesh: data, fsdp, tensor. rows: count, length, images to understand and to generate in each.
TARGETS = {
    "": dict(mesh=(1, -1, 1), rows=(64, 2688, 2, 2), remat="dots"),
    "a100-40gb:128": dict(mesh=(16, 4, 2), rows=(64, 2688, 2, 2), remat="dots"),
    "h100:64": dict(mesh=(8, 8, 1), rows=(64, 2688, 2, 2), remat="dots"),
    "v5e:16x16": dict(mesh=(4, 32, 2), rows=(128, 1408, 1, 1), remat="dots"),
    "v5p:4x4x8": dict(mesh=(4, 32, 1), rows=(128, 1408, 1, 1), remat="dots"),
}  # fmt: skip
ROWS = ("count", "length", "understanding_images", "generation_images")


def get_config(target: str = "") -> ConfigDict:
    t = TARGETS[target]
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(presets.janus_1_3b()) | {"remat": t["remat"]},
        "template": {"user": "User", "assistant": "Assistant"},
        # A tokenizer.json that has the pictures' control tokens: a released Janus's.
        "tokenizer": "weights/Janus-1.3B",
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
                # Figure 3; the generation embedding counts as part of its adaptor: our choice.
                "trainable": (
                    "understanding_adaptor", "generation_adaptor", "generation_embedding",
                    "image_head",
                ),
                # Converted to this layout: SigLIP-Large-patch16-384, DeepSeek-LLM-1.3B, LlamaGen's
                # VQ-16.
                "init": (
                    "weights/siglip_l16_384", "weights/deepseek_llm_1_3b", "weights/llamagen_vq16",
                ),
                "steps": 10_000,  # Table 1
                "batch_size": 256,  # Table 1
                "rows": dict(zip(ROWS, t["rows"])),
                # Table 1, read as shares of examples.
                "ratio": {"understanding": 1, "text": 0, "generation": 1},
                # Text of the sequence. So records are plain, as in the paper: <image><text>,
                # <category_name><image>; see docs/data.md for "form".
                "supervise": "all",
                "condition_dropout": 0.1,  # the paper
                "first_sentence": 0.0,  # category names have one
                # Table 1 throughout; not said there, our choice: eps (1e-8) and where the
                # cosine ends (0).
                "optim": {
                    "learning_rate": 1e-3, "schedule": "cosine", "warmup_steps": 300,
                    "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                },
            },
        },
    })  # fmt: skip
