"""Drawing alone, at the quick start's sizes, from tokens of several codes: RQ-VAE's residual quantisation
and RQ-Transformer's depth head (arXiv 2203.01941; paper section 3.5). A picture is 9 tokens of 4 codes,
where the quick start has 36 of one. Both parts learn longer than those of
`configs/quickstart_diffusion.py:softmax`, which it is otherwise.

    janus-jax train --config=configs/quickstart_depth.py --workdir=runs/quickstart_depth

docs/training.md says how the two compare: this one loses. All numbers are our choice.
"""

import dataclasses
import pathlib
import runpy

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

ALONE = runpy.run_path(str(pathlib.Path(__file__).with_name("quickstart_diffusion.py")))


def get_config() -> ConfigDict:
    config = ALONE["get_config"]("softmax")
    model = presets.quickstart()
    codes = dataclasses.replace(
        model.generation_encoder, multipliers=(1, 1, 2, 2), depth=4, codebook_l2_norm=False,
        codebook_size=128,
    )  # fmt: skip
    model = dataclasses.replace(
        model, generation_encoder=codes, image_head="depth", image_head_layers=2
    )
    config.model = ConfigDict(model_config.to_dict(model))
    config.stages.stage0.steps = 3000
    config.stages.stage0.options.entropy = 0.0
    config.stages.stage1.steps = 1600
    config.stages.stage1.rows.length = 112  # three prompts with 9 tokens each, not 36
    return config
