"""LlamaGen's VQ-16 (arXiv 2406.06525, section 2.1; the tokenizer of Janus): ImageNet at 256 pixels,
then its continuation for text to image.

Numbers are those of LlamaGen's code (tokenizer_image/vq_train.py, its defaults, and
scripts/tokenizer/train_vq_finetune.sh) where nothing else is said. Not as there: products are in
float32 (theirs in bfloat16), pictures are drawn at random instead of in epochs, the batch statistics
of the discriminator are those of all devices, LPIPS has no dropout, and the second stage begins with
fresh moments.

    janus-jax train --config=configs/vq16.py:h100:8 --workdir=runs/vq16

needs torchvision's VGG16 and LPIPS's heads: docs/training.md says which files.
"""

import dataclasses

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

IMAGENET = 1_281_167  # pictures
BATCH = 128
# Mesh: data, fsdp, tensor. The weights are whole on every device, only the batch is split.
TARGETS = {
    "": dict(mesh=(1, -1, 1)),
    "h100:8": dict(mesh=(1, 8, 1)),
    "v5e:8x8": dict(mesh=(1, 64, 1)),
}


def stage(**changes) -> dict:
    base = {
        "task": "vq",
        "trainable": ("generation_encoder",),
        "batch_size": BATCH,
        "ratio": {"understanding": 0, "text": 0, "generation": 1},
        # Constant; the code's weight decay is an argument that nothing reads.
        "optim": {
            "learning_rate": 1e-4, "schedule": "constant", "weight_decay": 0.0, "clip_norm": 1.0,
            "b1": 0.9, "b2": 0.95,
        },
        "checkpoint_every": 5_000,
        "log_every": 100,
    }  # fmt: skip
    return base | changes


def options(start: int) -> dict:
    """start: the update from which the discriminator counts."""
    return {
        "lpips": "weights/vgg16-397923af.pth,weights/lpips_v0.1_vgg.pth",
        "discriminator": "patchgan",
        "discriminator_start": start,
        "crop": 0.8,
        "flip": 0.5,
    }


def get_config(target: str = "") -> ConfigDict:
    t = TARGETS[target]
    model = presets.janus_1_3b()
    vq = dataclasses.replace(model.generation_encoder, image_size=256)
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(dataclasses.replace(model, generation_encoder=vq)),
        "template": {"user": "User", "assistant": "Assistant"},
        "tokenizer": "",
        "data": {"datasets": {
            "imagenet": {
                "kind": "generation", "path": "data/imagenet/train",
                "names": "data/imagenet_names.tsv", "stages": ("imagenet",),
            },
            # 10 M pictures of high aesthetic score and 2 M faces.
            "aesthetic": {
                "kind": "generation", "path": "data/aesthetic/*.tar", "weight": 10,
                "stages": ("text_to_image",),
            },
            "faces": {
                "kind": "generation", "path": "data/faces/*.tar", "weight": 2,
                "stages": ("text_to_image",),
            },
        }},
        "mesh": dict(zip(("data", "fsdp", "tensor"), t["mesh"])),
        "stages": {
            # 40 epochs of whole batches.
            "imagenet": stage(init=(), steps=40 * (IMAGENET // BATCH), options=options(20_000)),
            # The tokenizer and the discriminator of the stage before. How long it trained is not
            # said; our choice: each of the 12 M pictures once.
            "text_to_image": stage(
                init=("previous",), steps=12_000_000 // BATCH, options=options(0)
            ),
        },
    })  # fmt: skip
