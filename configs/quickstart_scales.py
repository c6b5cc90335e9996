"""Drawing scale by scale, coarse to fine, on a laptop CPU:

    janus-jax train --config=configs/quickstart_scales.py --workdir=runs/scales
    janus-jax generate --model=runs/scales/stage3 --prompt="two blue circles"

The quick start with another tokenizer, whose codes tell a picture on grids of 1, 2, 3, 4 and 6 a side
(docs/extensions.md). Nothing is taken from the quick start's weights.
"""

import pathlib
import runpy

from ml_collections import ConfigDict

QUICKSTART = str(pathlib.Path(__file__).with_name("quickstart.py"))


def get_config() -> ConfigDict:
    config = runpy.run_path(QUICKSTART)["get_config"]()
    config.model.drawing = "scales"
    config.model.generation_encoder.scales = (1, 2, 3, 4, 6)
    config.model.generation_encoder.codebook_l2_norm = False
    config.model.generation_encoder.codebook_size = 128
    config.stages.stage0.steps = 1500
    config.stages.stage0.options.entropy = 0.0  # as in VAR
    for stage, examples in zip(list(config.stages.values())[1:], (47, 62, 56)):
        stage.trainable = tuple(x for x in stage.trainable if x != "generation_embedding")
        stage.rows.length = 256  # a picture to draw is 66 tokens, not 36
        stage.batch_size = examples
    return config
