"""Reinforcement learning (GRPO) of a released Janus' drawings, scored by a program of your own over HTTP
(docs/posttraining.md says what it is asked and replies).

    janus-jax train --config=configs/grpo.py --workdir=runs/grpo \\
        --config.stages.grpo.options.rewards=http://localhost:8000/score

Targets: `1.3b` (the default), Janus-1.3B; `pro_7b`, Janus-Pro-7B; each `lora` (the default: low-rank
pairs beside frozen weights, which are the reference too) or `full`, as in `pro_7b:lora`, `1.3b:full`,
for eight cards of 80 GB.

Before, every 100 steps, and after, four prompts are drawn, one thousandth of what those steps draw. What
becomes of the other half is scored then too where you have a benchmark's file (docs/training.md):
--config.evaluation.benchmarks=pope@200=/data/POPE.tsv
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

# The learning rate of 7B, the group, the temperature, the guidance, the weight of the divergence and
# the steps are those of T2I-R1 for Janus-Pro-7B (arXiv 2505.00703; run_grpo.sh of CaraJ7/T2I-R1: 1e-6,
# 8, 1.0, 5, 0.01, 1,600); the learning rate of the small model is that of CoRL for Janus-Pro-1B
# (arXiv 2505.17534; corl_unified.sh of mm-vl/ULM-R1: 4e-6). Prompts a step, clipping and Adam's numbers
# are our choice, and so is LoRA at ten times the rate; rank and alpha are configs/finetune.py's. No run
# of these has been made here.
PROMPTS = (
    "a photo of a red apple beside a blue cup", "three cats on a wooden sofa",
    "a yellow bird above a stone bridge", "an old lighthouse in a storm, oil painting",
)  # fmt: skip
WAYS = ("", "lora", "full")
TARGETS = {
    ":".join(filter(None, (size, way))): (size or "1.3b", way or "lora")
    for size in ("", "1.3b", "pro_7b")
    for way in WAYS
}
SIZES = {
    "1.3b": dict(
        model=presets.janus_1_3b, init="weights/Janus-1.3B", rates=dict(full=4e-6, lora=4e-5),
        roles=("User", "Assistant"),
    ),
    "pro_7b": dict(
        model=presets.janus_pro_7b, init="weights/Janus-Pro-7B", rates=dict(full=1e-6, lora=1e-5),
        roles=("<|User|>", "<|Assistant|>"),
    ),
}  # fmt: skip


def get_config(target: str = "") -> ConfigDict:
    name, way = TARGETS[target]
    size = SIZES[name]
    lora = way == "lora"
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(size["model"]()) | {"remat": "dots"},
        "template": dict(zip(("user", "assistant"), size["roles"])),
        "tokenizer": size["init"],
        # Of the records the captions alone are read.
        "data": {"datasets": {
            "prompts": {"kind": "generation", "path": "data/prompts.json", "images": "data/images"},
        }},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {
            "grpo": {
                "task": "grpo_lora" if lora else "grpo",
                # What draws. The tower and its adaptor, and so what answers see, stay as they are.
                "trainable": () if lora else (
                    "generation_adaptor", "generation_embedding", "image_head", "text_embedding",
                    "transformer", "text_head",
                ),
                "init": (size["init"],),
                "steps": 1_600,
                "batch_size": 64,  # drawings: 8 of each of 8 prompts
                # A drawing and its unconditional twin, each of 576 ids and a prompt of at most 128.
                "rows": {
                    "count": 64, "length": 1408, "understanding_images": 0, "generation_images": 1,
                },
                "accumulate": 4,  # two rows of a card at a time
                "ratio": {"understanding": 0, "text": 0, "generation": 1},
                "options": {
                    "group": 8, "temperature": 1.0, "cfg_scale": 5.0, "kl": 0.01,
                    "rewards": "http://localhost:8000/score", "timeout": 120, "sheet_every": 100,
                    # All drawings and their twins at once, by weights that no token has to gather.
                    "rollout_rows": 128, "rollout_weights": "whole",
                } | ({"rank": 16, "alpha": 32, "base": "bfloat16"} if lora else {}),
                "spikes": {"sigma": 0},
                "checkpoint_every": 100, "log_every": 1,
                "optim": {
                    "learning_rate": size["rates"][way], "schedule": "constant", "warmup_steps": 0,
                    "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                },
            },
        },
        "evaluation": {"every": 100, "at_start": True, "prompts": PROMPTS},
    })  # fmt: skip
