"""Fine-tuning a released Janus on your own pictures, read both ways: as questions and as captions.

    janus-jax convert --source=deepseek-ai/Janus-Pro-1B --target=weights/Janus-Pro-1B \\
        --format=janus_jax --allow_pickle
    janus-jax train --config=configs/finetune.py:a100-80gb:1 --workdir=runs/finetune \\
        --config.data.datasets.chats.path=mine.json \\
        --config.data.datasets.chats.images=pictures \\
        --config.data.datasets.captions.path=mine.json \\
        --config.data.datasets.captions.images=pictures

The file is LLaVA's JSON beside a folder of pictures. All numbers are our choice, after stage 3 of
the Janus-Pro report (arXiv 2501.17811, Table 2): batches of 32 examples for 128, so half its
learning rate (square root), a warm-up for Adam's fresh moments, and no share of text.
Text against forgetting: --config.data.datasets.text.path=dialogues.json
--config.stages.finetune.ratio.text=1. Only to read pictures, or only to draw them: a ratio of 0 for
the other. Janus-1.3B: --config.stages.finetune.init=weights/Janus-1.3B
--config.tokenizer=weights/Janus-1.3B --config.template.user=User
--config.template.assistant=Assistant.
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

ADAPTORS = ("understanding_adaptor", "generation_adaptor", "generation_embedding", "image_head")
LLM = ("text_embedding", "transformer", "text_head")
# All but the generation encoder, as in stage 3.
EVERYTHING = ("understanding_encoder", *ADAPTORS, *LLM)

# 32 examples (686 tokens of understanding, 616 of generation; see stage1.py) are 8 rows of 2688: 4
# pictures each, 96 % full. A trained parameter takes 16 bytes (weight, two moments, gradient), 4
# more where microbatches' gradients are summed; a frozen one 4; activations come on top. 80 GB:
# everything, 40 GB. 40 GB: SigLIP and the vocabulary stay as they are, one microbatch and a first
# moment in bfloat16: 21 GB. Less: the adaptors and the image head, 9 GB, by
# --config.stages.finetune.trainable=\
#     understanding_adaptor,generation_adaptor,generation_embedding,image_head
TARGETS = {
    "": dict(accumulate=1, remat="dots", trainable=EVERYTHING, mu_dtype="float32"),
    "h100:1": dict(accumulate=4, remat="dots", trainable=EVERYTHING, mu_dtype="float32"),
    "a100-80gb:1": dict(accumulate=4, remat="dots", trainable=EVERYTHING, mu_dtype="float32"),
    "a100-40gb:1": dict(
        accumulate=1, remat="full", trainable=(*ADAPTORS, "transformer"), mu_dtype="bfloat16"
    ),
}


def get_config(target: str = "") -> ConfigDict:
    t = TARGETS[target]
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(presets.janus_pro_1b()) | {"remat": t["remat"]},
        "template": {"user": "<|User|>", "assistant": "<|Assistant|>"},
        "tokenizer": "weights/Janus-Pro-1B",
        "data": {"datasets": {
            "chats": {"kind": "understanding", "path": "data/mine.json", "images": "data/images"},
            "captions": {"kind": "generation", "path": "data/mine.json", "images": "data/images"},
            "text": {"kind": "text", "path": "data/dialogues.json"},
        }},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {
            "finetune": {
                "trainable": t["trainable"],
                "init": ("weights/Janus-Pro-1B",),
                "steps": 2_000,  # 64,000 examples; three times through your data is a fair start
                "batch_size": 32,
                "rows": {
                    "count": 8, "length": 2688, "understanding_images": 4, "generation_images": 4,
                },
                "accumulate": t["accumulate"],
                "ratio": {"understanding": 1, "text": 0, "generation": 1},
                "supervise": "answers",
                "first_sentence": 0.0,
                "checkpoint_every": 500,
                "optim": {
                    "learning_rate": 2e-5, "schedule": "constant", "warmup_steps": 100,
                    "weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                    "mu_dtype": t["mu_dtype"],
                },
            },
        },
    })  # fmt: skip
