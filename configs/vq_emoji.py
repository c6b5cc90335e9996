"""A small VQ tokenizer of real pictures, OpenMoji's at 64 pixels, in minutes on a laptop CPU: plain,
with a discriminator (`configs/vq_emoji.py:gan`), with spatial norms in its decoder (`:spatial`), or
with these and free codes, as MoVQ (`:movq`), and all else alike.

    janus-jax train --config=configs/vq_emoji.py:gan --workdir=runs/vq_emoji_gan

Needs the extra: pip install "janus_jax[emoji]". A picture becomes 64 codes of 512. LPIPS is off: it
would need VGG16. All numbers are our choice. Pictures by OpenMoji, CC BY-SA 4.0.
"""

import dataclasses

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

ADVERSARIAL = {
    # Half of the steps without it, as LlamaGen begins with reconstruction alone.
    "discriminator": "patchgan", "discriminator_start": 250, "discriminator_width": 16,
    "weighting": "adaptive", "discriminator_weight": 0.1,
}  # fmt: skip
TARGETS = {"": {}, "plain": {}, "gan": ADVERSARIAL, "spatial": {}, "movq": {}}
SIZES = {  # of the tokenizer, by target
    "spatial": {"decoder_norm": "spatial"},
    "movq": {"decoder_norm": "spatial", "codebook_l2_norm": False},
}


def get_config(target: str = "") -> ConfigDict:
    model = presets.emoji()
    vq = dataclasses.replace(
        model.generation_encoder, image_size=64, multipliers=(1, 1, 2, 4), codebook_size=512,
        **SIZES.get(target, {}),
    )  # fmt: skip
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(dataclasses.replace(model, generation_encoder=vq)),
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "tokenizer": "",
        "data": {"datasets": {"pictures": {"kind": "generation", "path": "emoji:"}}},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {
            "tokenizer": {
                "task": "vq", "init": (), "trainable": ("generation_encoder",), "steps": 500,
                "batch_size": 16, "ratio": {"understanding": 0, "text": 0, "generation": 1},
                "options": {"entropy": 0.005, **TARGETS[target]},
                "optim": {
                    "learning_rate": 2e-3, "schedule": "cosine", "warmup_steps": 20,
                    "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                },
                "checkpoint_every": 200, "log_every": 50,
            },
        },
        # Every tenth picture is never trained on.
        "evaluation": {"every": 200, "holdout": 0.1},
    })  # fmt: skip
