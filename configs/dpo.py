"""Preferences (DPO, IPO, SimPO) for a Janus that is there, pictures and answers together:
docs/posttraining.md says what each number does.

    janus-jax train --config=configs/dpo.py --workdir=runs/dpo \\
        --config.stages.dpo.init=deepseek-ai/Janus-Pro-1B \\
        --config.data.datasets.pictures.path=pictures.jsonl \\
        --config.data.datasets.answers.path=answers.jsonl

Sizes, tokenizer and template are those of the weights in `init`. `pictures` are records
{"prompt", "chosen", "rejected"} of two pictures, `answers` {"prompt", "image", "chosen", "rejected"}
of two answers; --data.remove=answers leaves one half out. Targets: `1b` (the default) and `7b`, whose
weights are taken where `init` names none; each `lora` (the default) or `full`, as in `7b:lora`,
`1b:full`.
"""

from ml_collections import ConfigDict

from janus_jax.config.schema import ConfigError
from janus_jax.model import config as model_config
from janus_jax.model import presets
from janus_jax.weights.for_config import values_for_config
from janus_jax.weights.table import NoWeightsError

ADAPTORS = ("understanding_adaptor", "generation_adaptor", "generation_embedding", "image_head")
LLM = ("text_embedding", "transformer", "text_head")
# Whose sizes are taken where the weights of this name are not here, as for `janus-jax plan`.
RELEASED = {
    "weights/Janus-1.3B": presets.janus_1_3b, "weights/Janus-Pro-1B": presets.janus_pro_1b,
    "weights/Janus-Pro-7B": presets.janus_pro_7b,
}  # fmt: skip
WEIGHTS = {"1.3b": "weights/Janus-1.3B", "1b": "weights/Janus-Pro-1B", "7b": "weights/Janus-Pro-7B"}
WAYS = ("", "lora", "full")
TARGETS = {
    ":".join(filter(None, (size, way))): (size or "1b", way or "lora")
    for size in ("", *WEIGHTS)
    for way in WAYS
}
# A pair of pictures is two segments of about 616 tokens, one of answers two of about 686 (see
# stage1.py): rows of 2688 hold two pairs. The paper of DPO has batches of 64 pairs (arXiv
# 2305.18290, appendix B): 32 such rows.
PAIRS = 64


def of_weights(path: str) -> dict:
    """`model`, `template`, `tokenizer` and `evaluation` of the weights at a path."""
    try:
        return values_for_config(path)
    except NoWeightsError as error:
        if path not in RELEASED:
            raise ConfigError.of([f"stages.dpo.init is {path!r}: {error}"]) from None
    names = ("User", "Assistant") if path.endswith("1.3B") else ("<|User|>", "<|Assistant|>")
    template = dict(zip(("user", "assistant"), names))
    sizes = model_config.to_dict(RELEASED[path]())
    return {"model": sizes, "template": template, "tokenizer": path, "evaluation": {}}


def get_config(target: str = "", given: dict | None = None) -> ConfigDict:
    size, way = TARGETS[target]
    init = (given or {}).get("stages.dpo.init", WEIGHTS[size]).strip("()'\", ")
    found = of_weights(init)
    lora = way == "lora"
    tokens = most_tokens(
        found["model"]["understanding_encoder"], found["model"]["generation_encoder"]
    )
    return ConfigDict({
        "seed": 0,
        "model": found["model"] | {"remat": "dots"},
        "template": found["template"],
        "tokenizer": found["tokenizer"],
        "data": {"datasets": {
            "pictures": {"kind": "generation", "path": "data/pictures.jsonl"},
            "answers": {"kind": "understanding", "path": "data/answers.jsonl"},
        }},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {
            "dpo": {
                "task": "dpo_lora" if lora else "dpo",
                "trainable": () if lora else (*ADAPTORS, *LLM),
                "init": (init,),
                "steps": 500,  # our choice: 32,000 pairs
                "batch_size": PAIRS,
                "rows": {
                    "count": PAIRS // 2, "length": 4 * (tokens + max(tokens // 6, 24)),
                    "understanding_images": 2, "generation_images": 4,
                },
                "accumulate": 4,
                "ratio": {"understanding": 1, "text": 0, "generation": 1},
                "supervise": "answers",
                "condition_dropout": 0.1,  # of both halves of a pair alike: guidance needs it
                "first_sentence": 0.0,
                "checkpoint_every": 100,
                # beta 0.1: arXiv 2305.18290, appendix B. sft: our choice, against the fall of both
                # halves' probabilities; with 0.1 the toy's drawings got worse. Rank and alpha are
                # configs/finetune.py's.
                "options": {"loss": "dpo", "beta": 0.1, "sft": 1.0}
                | ({"rank": 16, "alpha": 32, "base": "bfloat16"} if lora else {}),
                # Full: 1e-6, warmed up over 150 steps, as the paper of DPO (appendix B, RMSprop
                # there). LoRA at ten times the rate, as in configs/finetune.py.
                "optim": {
                    "learning_rate": 1e-5 if lora else 1e-6, "schedule": "constant", "warmup_steps": 150,
                    "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                },
            },
        },
        "evaluation": found["evaluation"] | {"every": 100, "holdout": 0.05},
        "checkpoints": {"best": "validation_loss"},
    })  # fmt: skip


def most_tokens(seen: dict, drawn: dict) -> int:
    """Of a picture in whichever box has more."""
    towers = (
        model_config.UnderstandingEncoderConfig(**seen),
        model_config.GenerationEncoderConfig(**drawn),
    )
    return max(box.tokens for box in towers)
