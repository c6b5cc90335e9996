"""Fine-tuning of a Janus that is there on your own pictures: docs/finetuning.md goes through it.

    janus-jax train --config=configs/finetune.py --workdir=runs/mine \\
        --config.stages.finetune.init=deepseek-ai/Janus-Pro-1B \\
        --config.data.datasets.captions.path=mine.jsonl

Sizes, tokenizer and template are those of the weights in `init`: a released Janus in any layout, or
what a run here has left. `chats` are records to read pictures by, `captions` to draw them, `text`
dialogues against forgetting, one example of each; what is given no path is not trained, and what
--data.add names takes their place. Targets:
`lora` (the default), small matrices beside the frozen weights; `full`, all weights but the VQ
tokenizer; `full:h100:1` and the like for a card.
"""

from ml_collections import ConfigDict

from janus_jax.config.schema import ConfigError
from janus_jax.model import config as model_config
from janus_jax.model import presets
from janus_jax.weights.for_config import values_for_config
from janus_jax.weights.table import NoWeightsError

ADAPTORS = ("understanding_adaptor", "generation_adaptor", "generation_embedding", "image_head")
LLM = ("text_embedding", "transformer", "text_head")
# All but the generation encoder, as in stage 3.
EVERYTHING = ("understanding_encoder", *ADAPTORS, *LLM)
# Whose sizes are taken where the weights of this name are not here, as for `janus-jax plan`.
RELEASED = {
    "weights/Janus-Pro-1B": presets.janus_pro_1b, "weights/Janus-Pro-7B": presets.janus_pro_7b,
}  # fmt: skip
DATA = {"chats": "understanding", "captions": "generation", "text": "text"}

# 32 examples (686 tokens of understanding, 616 of generation; see stage1.py) are 8 rows of 2688: 4
# pictures each, 96 % full. A trained parameter takes 16 bytes (weight, two moments, gradient), 4
# more where microbatches' gradients are summed; a frozen one 4, with LoRA 2 (bfloat16) or 1 (int8);
# activations come on top. Of Janus-Pro-1B: 80 GB hold everything, 40 GB. 40 GB: SigLIP and the
# vocabulary stay as they are, one microbatch and a first moment in bfloat16: 21 GB. LoRA takes 12 GB
# on one card; on those of 24 and 12 GB the base is int8, which leaves room for Janus-Pro-7B.
FULL = dict(accumulate=1, remat="dots", trainable=EVERYTHING)
LORA = dict(accumulate=1, remat="dots", base="bfloat16")
ONE = {"accumulate": 4}
SMALL = dict(accumulate=8, remat="full", base="int8")
OF_LORA = {
    "": LORA, "h100:1": LORA | ONE, "a100-80gb:1": LORA | ONE, "a100-40gb:1": LORA | ONE,
    "rtx4090:1": SMALL, "rtx4070:1": SMALL,
}  # fmt: skip
TARGETS = (
    OF_LORA
    | {f"lora:{chips}".strip(":"): t for chips, t in OF_LORA.items()}
    | {
        "full": FULL,
        "full:h100:1": FULL | ONE,
        "full:a100-80gb:1": FULL | ONE,
        "full:a100-40gb:1": dict(
            accumulate=1, remat="full", trainable=(*ADAPTORS, "transformer"), mu_dtype="bfloat16"
        ),
    }
)


def of_weights(path: str) -> dict:
    """`model`, `template`, `tokenizer` and `evaluation` of the weights at a path."""
    try:
        return values_for_config(path)
    except NoWeightsError as error:
        if path not in RELEASED:
            raise ConfigError.of([f"stages.finetune.init is {path!r}: {error}"]) from None
    template = {"user": "<|User|>", "assistant": "<|Assistant|>"}
    sizes = model_config.to_dict(RELEASED[path]())
    return {"model": sizes, "template": template, "tokenizer": path, "evaluation": {}}


def get_config(target: str = "", given: dict | None = None) -> ConfigDict:
    t = TARGETS[target]
    given = given or {}
    init = given.get("stages.finetune.init", "weights/Janus-Pro-1B").strip("()[]'\" ").split(",")[0]
    found = of_weights(init)
    added = [key.removeprefix("data.add.") for key in given if key.startswith("data.add.")]
    named = [n for n in DATA if f"data.datasets.{n}.path" in given and n not in added]
    kinds = {name: DATA[name] for name in named or ("chats", "captions") if named or not added}
    drawn = {*kinds.values(), *(given.get(f"data.datasets.{name}.kind") for name in added)}
    lora = "base" in t
    sizes = found["model"]["understanding_encoder"], found["model"]["generation_encoder"]
    tokens = most_tokens(*sizes)
    # All numbers are our choice. Full: after stage 3 of the Janus-Pro report (arXiv 2501.17811,
    # Table 2), batches of 32 examples for 128, so half its learning rate (square root), and a
    # warm-up for Adam's fresh moments. LoRA learns at ten times the rate (arXiv 2106.09685 and
    # after), at the same batch.
    return ConfigDict({
        "seed": 0,
        "model": found["model"] | {"remat": t["remat"]},
        "template": found["template"],
        "tokenizer": found["tokenizer"],
        "data": {"datasets": {
            name: {"kind": kind, "path": "data/mine.json", "images": "" if named else "data/images"}
            for name, kind in kinds.items()
        }},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {
            "finetune": {
                "task": "lora" if lora else "janus",
                "trainable": () if lora else t["trainable"],
                "init": (init,),
                "steps": 1_000,
                "batch_size": 32,
                "rows": {
                    "count": 8, "length": 4 * (tokens + max(tokens // 6, 24)),
                    "understanding_images": 4 * ("understanding" in drawn),
                    "generation_images": 4 * ("generation" in drawn),
                },
                "accumulate": t["accumulate"],
                "ratio": {kind: int(kind in drawn) for kind in ("understanding", "text", "generation")},
                "supervise": "answers",
                "condition_dropout": 0.1,  # without it guidance has nothing to lead away from
                "first_sentence": 0.0,
                "checkpoint_every": 250,
                "options": {"rank": 16, "alpha": 32, "base": t["base"]} if lora else {},
                "optim": {
                    "learning_rate": 2e-4 if lora else 2e-5, "schedule": "constant", "warmup_steps": 0.05,
                    "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                    "mu_dtype": t.get("mu_dtype", "float32"),
                },
            },
        },
        # A twentieth of the records is not trained on; the best checkpoint by their loss stays, and
        # training ends where it has not fallen for five evaluations.
        "evaluation": found["evaluation"] | {"every": 100, "holdout": 0.05, "patience": 5},
        "checkpoints": {"best": "validation_loss"},
    })  # fmt: skip


def most_tokens(*boxes) -> int:
    """Of a picture in whichever box has more."""
    seen, drawn = boxes
    towers = (
        model_config.UnderstandingEncoderConfig(**seen),
        model_config.GenerationEncoderConfig(**drawn),
    )
    return max(box.tokens for box in towers)
