"""Drawing pictures of several sizes, learned from the quick start's weights in minutes on a laptop CPU:

    janus-jax train --config=configs/quickstart_sizes.py --workdir=runs/sizes
    janus-jax generate --model=runs/sizes/sizes --prompt="two blue circles" --size=24x16

The quick start's last stage once more, whose pictures to draw are squares, wide and tall ones
(docs/extensions.md).
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
    config.stages = {"sizes": last}
    config.tokenizer = values_for_config("quickstart")["tokenizer"]
    config.model.generation_encoder.sizes = ("24x16", "16x24")
    del config.data.datasets["pictures"]
    config.data.datasets.scenes.stages = ()
    config.data.datasets.scenes.path = "shapes:sizes"
    return config
