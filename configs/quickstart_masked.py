"""Drawing all image tokens at once, learned from the quick start's weights in minutes on a laptop CPU:

    janus-jax train --config=configs/quickstart_masked.py --workdir=runs/masked
    janus-jax generate --model=runs/masked/masked --prompt="two blue circles" --steps=8

The quick start's last stage once more, in which ids of the pictures to draw are masked
(docs/training.md).
"""

import pathlib
import runpy

from ml_collections import ConfigDict

from janus_jax.weights.for_config import values_for_config

QUICKSTART = str(pathlib.Path(__file__).with_name("quickstart.py"))


def get_config() -> ConfigDict:
    config = runpy.run_path(QUICKSTART)["get_config"]()
    last = config.stages.stage3
    last.init = ("quickstart",)
    last.steps = 2400
    config.stages = {"masked": last}
    config.tokenizer = values_for_config("quickstart")["tokenizer"]
    config.model.drawing = "masked"
    del config.data.datasets["pictures"]
    config.data.datasets.scenes.stages = ()
    return config
