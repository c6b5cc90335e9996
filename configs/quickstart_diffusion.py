"""Drawing alone, at the quick start's sizes: from latents of a KL tokenizer by MAR's diffusion loss (arXiv
2406.11838; paper section 3.5), or, `:softmax`, from codes by cross-entropy as the quick start does, in
equal steps.

    janus-jax train --config=configs/quickstart_diffusion.py --workdir=runs/quickstart_diffusion

docs/training.md says how the two compare. All numbers are our choice.
"""

import dataclasses
import pathlib
import runpy

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

TARGETS = ("", "softmax")
QUICKSTART = runpy.run_path(str(pathlib.Path(__file__).with_name("quickstart.py")))


def get_config(target: str = "") -> ConfigDict:
    config = QUICKSTART["get_config"]()
    stage0 = config.stages.stage0
    stage0.steps = 600
    flames = ("generation_adaptor", "generation_embedding", "image_head", *QUICKSTART["LLM"])
    if target != "softmax":
        model = presets.quickstart()
        latents = dataclasses.replace(
            model.generation_encoder, latent="kl", z_channels=4, code_dim=4,
            latent_scale=1.33,  # 1 / latent_std at the end of stage 0
        )  # fmt: skip
        model = dataclasses.replace(model, generation_encoder=latents, image_head="diffusion")
        config.model = ConfigDict(model_config.to_dict(model))
        stage0.task = "kl"
        stage0.options = {"kl_weight": 3e-5}
        flames = tuple(name for name in flames if name != "generation_embedding")
    draw = QUICKSTART["stage"](
        rows={"count": 8, "length": 184, "understanding_images": 0, "generation_images": 3},
        trainable=flames, steps=400, batch_size=24, ratio={"understanding": 0, "text": 0, "generation": 1},
        optim=QUICKSTART["optim"](2e-3, schedule="cosine", warmup_steps=20),
    )  # fmt: skip
    config.stages = {"stage0": stage0, "stage1": draw}
    pictures = config.data.datasets.pictures
    scenes = config.data.datasets.scenes
    scenes.stages = ("stage1",)
    config.data.datasets = {"scenes": scenes, "pictures": pictures}
    guidance, heat = (1.5, 0.5) if target else (3.0, 1.0)
    config.evaluation = {"count": 0, "cfg_scale": guidance, "temperature": heat}
    return config
