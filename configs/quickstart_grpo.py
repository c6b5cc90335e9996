"""Reinforcement learning of the quick start's drawings: from the weights that come with the package, by
the exact reward of its world, in minutes on a laptop CPU.

    janus-jax train --config=configs/quickstart_grpo.py --workdir=runs/grpo
    janus-jax train --config=configs/quickstart_grpo.py:self --workdir=runs/grpo_self

Targets: nothing, drawings by the exact reward; `self`, drawings by what the model answers about them;
`siglip`, by a trained pair of towers that configs/siglip.py:shapes leaves in runs/siglip;
`answers`, questions by the right words; `both`, drawings and answers at once; `lora`, drawings by the
exact reward, with low-rank pairs of the adaptors and heads as what learns.
"""

from ml_collections import ConfigDict

from janus_jax.weights.for_config import values_for_config

INIT = "quickstart"
ADAPTORS = ("generation_adaptor", "generation_embedding", "image_head")
LLM = ("text_embedding", "transformer", "text_head")  # learns only where answers are judged
TARGETS = {
    "": {"generation": 1, "rewards": "shapes"},
    "self": {"generation": 1, "rewards": "self"},
    "siglip": {"generation": 1, "rewards": "siglip:runs/siglip/siglip"},
    "answers": {"understanding": 1, "answer_rewards": "match"},
    "lora": {"generation": 1, "rewards": "shapes"},
    "both": {"generation": 1, "understanding": 1, "rewards": "shapes", "answer_rewards": "match"},
}


def get_config(target: str = "") -> ConfigDict:
    t = TARGETS[target]
    lora, answers = target == "lora", "understanding" in t
    found = values_for_config(INIT)
    ratio = {kind: t.get(kind, 0) for kind in ("understanding", "text", "generation")}
    return ConfigDict({
        "seed": 0,
        "model": found["model"],
        "template": found["template"],
        "tokenizer": found["tokenizer"],
        "data": {"datasets": {
            "scenes": {"kind": "generation", "path": "shapes:"},
            "questions": {"kind": "understanding", "path": "shapes:"},
        }},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {"grpo": {
            "task": "grpo_lora" if lora else "grpo",
            # Nothing that drawings learn by is read by answers, so those stay what they are to the bit.
            "trainable": () if lora else (*ADAPTORS, *LLM) if answers else ADAPTORS,
            "init": (INIT,),
            "steps": 300, "batch_size": 64,
            # A prompt of at most 15 tokens with its template, and a drawing of 36.
            "rows": {
                "count": 64, "length": 52, "understanding_images": int(ratio["understanding"] > 0),
                "generation_images": int(ratio["generation"] > 0),
            },
            "ratio": ratio,
            "options": {
                "group": 8, "kl": 0.01, "rewards": t.get("rewards", ""),
                "answer_rewards": t.get("answer_rewards", ""), "max_new_tokens": 8,
                "sheet_every": 50,
            } | ({"rank": 8, "alpha": 16, "targets": "adaptors,heads"} if lora else {}),
            "spikes": {"sigma": 0},  # the loss is near 0 and says nothing
            "checkpoint_every": 50, "log_every": 5,
            "optim": {
                "learning_rate": 1e-2 if lora else 1e-4 if answers else 3e-3, "schedule": "cosine", "warmup_steps": 5,
                "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
            },
        }},
        # Drawings and answers alike, before, during and after: what one half gains, the other may lose.
        "evaluation": found["evaluation"] | {
            "count": 50, "every": 50, "at_start": True, "benchmarks": ("shapes=shapes:10",),
        },
    })  # fmt: skip
