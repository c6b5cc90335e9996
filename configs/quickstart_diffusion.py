"""The quick start with continuous latents: a KL tokenizer in place of the VQ one, and MAR's diffusion
loss (arXiv 2406.11838) in place of the cross-entropy over codes (paper section 3.5); `:softmax` is the
quick start itself at the same steps, to compare with.

    janus-jax train --config=configs/quickstart_diffusion.py --workdir=runs/quickstart_diffusion

docs/training.md says how the two compare. All numbers are our choice.
"""

import dataclasses
import pathlib
import runpy

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

BASE = runpy.run_path(str(pathlib.Path(__file__).with_name("quickstart.py")))["get_config"]
TARGETS = ("", "softmax")
STEPS = {"stage0": 600, "stage1": 60, "stage2": 300, "stage3": 200}


def get_config(target: str = "") -> ConfigDict:
    config = BASE()
    for name, steps in STEPS.items():
        config.stages[name].steps = steps
    if target == "softmax":
        return config
    model = presets.quickstart()
    latents = dataclasses.replace(
        model.generation_encoder, latent="kl", z_channels=4, code_dim=4,
        latent_scale=1.33,  # 1 / latent_std at the end of stage 0
    )  # fmt: skip
    changed = {"generation_encoder": latents, "image_head": "diffusion"}
    config.model = ConfigDict(model_config.to_dict(dataclasses.replace(model, **changed)))
    config.stages.stage0.task = "kl"
    config.stages.stage0.options = {"kl_weight": 3e-5}
    for name in list(STEPS)[1:]:  # no table of ids
        flames = config.stages[name].trainable
        config.stages[name].trainable = tuple(x for x in flames if x != "generation_embedding")
    config.evaluation = {"count": 50, "cfg_scale": 2.0, "temperature": 0.9}
    return config
