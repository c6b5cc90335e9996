"""Preferences for both halves, learned from the quick start's weights in minutes on a laptop CPU:

    janus-jax train --config=configs/quickstart_dpo.py --workdir=runs/dpo
    janus-jax generate --model=runs/dpo/dpo --prompt="two blue circles"

Pairs of the shapes world: pictures of which one fits the sentence, answers of which one is right
(docs/posttraining.md). Targets: dpo (the default), ipo and simpo.
"""

import pathlib
import runpy

from ml_collections import ConfigDict

from janus_jax.weights.for_config import values_for_config

QUICKSTART = str(pathlib.Path(__file__).with_name("quickstart.py"))
# beta: of dpo the paper's 0.1 (arXiv 2305.18290, appendix B), of simpo 2 and gamma 1, of the values
# that its paper tries (arXiv 2405.14734); of ipo our choice, as are sft and the learning rate.
TARGETS = {
    "": {"loss": "dpo", "beta": 0.1, "sft": 1.0},
    "dpo": {"loss": "dpo", "beta": 0.1, "sft": 1.0},
    "ipo": {"loss": "ipo", "beta": 0.1, "sft": 1.0},
    "simpo": {"loss": "simpo", "beta": 2.0, "gamma": 1.0, "sft": 1.0},
}


def get_config(target: str = "") -> ConfigDict:
    config = runpy.run_path(QUICKSTART)["get_config"]()
    last = config.stages.stage3
    last.task = "dpo"
    last.options = TARGETS[target]
    last.init = ("quickstart",)
    last.steps = 80
    last.batch_size = 16
    last.ratio = {"understanding": 1, "text": 0, "generation": 1}
    last.rows = {"count": 8, "length": 192, "understanding_images": 2, "generation_images": 4}
    last.optim.learning_rate = 5e-5
    last.optim.warmup_steps = 10
    last.optim.weight_decay = 0.0
    config.stages = {"dpo": last}
    config.tokenizer = values_for_config("quickstart")["tokenizer"]
    config.data.datasets = {
        "answers": {"kind": "understanding", "path": "shapes:pairs", "form": "chat"},
        "pictures": {"kind": "generation", "path": "shapes:pairs", "form": "chat"},
    }
    return config
