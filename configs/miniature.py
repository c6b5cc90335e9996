"""The paper's Table 5 in miniature: experiments A to F on scenes of OpenMoji drawings, 64 pixels.

What is compared, on what, and what each outcome would mean stands in docs/table5.md, written before
the first run; `python benchmarks/table5.py` runs all of it. Targets: `vq`, `siglip`, `semantic` and
`detector` train what the experiments share, once; `A` to `F` are the experiments, which differ in
a line of EXPERIMENTS. Needs the extra: pip install "janus_jax[emoji]".
"""

import pathlib
import runpy

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

EXPERIMENTS = runpy.run_path(str(pathlib.Path(__file__).with_name("ablations.py")))["EXPERIMENTS"]
SHARED = ("vq", "siglip", "semantic", "detector")
TARGETS = dict.fromkeys((*SHARED, *EXPERIMENTS))
PLACE = "runs/miniature"
# What stage 1 begins with, of what the experiments share.
INIT = {
    "siglip": (f"{PLACE}/siglip/siglip", f"{PLACE}/vq/vq"),
    "vq": (f"{PLACE}/vq/vq",),
    "semantic": (f"{PLACE}/semantic/semantic",),
}
ENCODER = ("understanding_encoder", "pooling_head", "text_tower", "contrast")
ADAPTORS = ("understanding_adaptor", "generation_adaptor", "generation_embedding", "image_head")
LLM = ("text_embedding", "transformer", "text_head")


def optim(learning_rate, **changes) -> dict:
    base = {"weight_decay": 0.0, "clip_norm": 1.0, "b1": 0.9, "b2": 0.95}
    return {"learning_rate": learning_rate, **base, **changes}


def alone(task: str, trainable: tuple, steps: int, batch_size: int, rate: float, **changes) -> dict:
    """The one stage of what is trained without a language model."""
    return {
        "task": task, "trainable": trainable, "init": (), "steps": steps, "batch_size": batch_size,
        "ratio": {"understanding": 0, "text": 0, "generation": 1}, "checkpoint_every": 200, "log_every": 50,
        "optim": optim(rate, schedule="cosine", warmup_steps=50), **changes,
    }  # fmt: skip


def shared() -> dict:
    codes = {"commitment": 0.25, "entropy": 0.005}
    tokenizer = ("generation_encoder",)
    teacher = {"init": (f"{PLACE}/siglip/siglip",)}
    return {
        "vq": alone("vq", tokenizer, 1000, 16, 3e-3, options=codes),
        "siglip": alone("siglip", ENCODER, 900, 96, 2e-3, options={"text_length": 48}),
        "semantic": alone("semantic", (*tokenizer, "semantic_decoder"), 1000, 16, 3e-3, options=codes, **teacher),
        "detector": alone("detector", ("detector",), 600, 32, 2e-3),
    }  # fmt: skip


def experiment(e: dict) -> dict:
    lacking = {"understanding_encoder"} if e["understanding"] != "siglip" else set()
    lacking |= {"generation_embedding"} if e["generation"] != "embedding" else set()

    def stage(steps: int, size: int, ratio: tuple, flames: tuple, rate: dict, **changes) -> dict:
        shares = dict(zip(("understanding", "text", "generation"), ratio))
        names = [kind for kind in e["keep"].split("+") if shares.get(kind)]
        return {
            "init": ("previous",), "steps": steps, "batch_size": size, "ratio": shares,
            "rows": {"count": 16, "length": 232, "understanding_images": 2, "generation_images": 3},
            "trainable": tuple(name for name in flames if name not in lacking),
            "supervise": "all", "first_sentence": 0.0, "checkpoint_every": 200, "log_every": 20,
            "options": {"keep": "+".join(names)} if names else {}, "optim": optim(**rate), **changes,
        }  # fmt: skip

    begin, go_on = (
        {"learning_rate": 1e-3, "warmup_steps": 20},
        {"learning_rate": 2e-3, "warmup_steps": 50},
    )
    tune = {"learning_rate": 1e-3, "schedule": "cosine", "weight_decay": 0.1}
    everything = (*ADAPTORS, *LLM, "understanding_encoder")
    return {
        "stage1": stage(60, 23, (1, 0, 1), ADAPTORS, begin, init=INIT[e["understanding"]]),
        "stage2": stage(800, 32, (2, 1, 4), ADAPTORS + LLM, go_on),
        "stage3": stage(400, 31, (7, 3, 10), everything, tune, supervise="answers"),
    }


def get_config(target: str) -> ConfigDict:
    whole = target in EXPERIMENTS
    e = EXPERIMENTS[target] if whole else EXPERIMENTS["D"]
    sets = {
        "questions": {"kind": "understanding", "path": "scenes:", "form": "chat"},
        "sentences": {"kind": "text", "path": "scenes:", "form": "chat"},
        "prompts": {"kind": "generation", "path": "scenes:", "form": "chat"},
    }
    # Pictures with whole descriptions; the detector's are of every combination.
    of = "scenes:all" if target == "detector" else "scenes:pairs"
    pairs = {"pairs": {"kind": "generation", "path": of}}
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(presets.miniature())
        | {"understanding": e["understanding"], "generation": e["generation"]},
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "tokenizer": "",
        "data": {"datasets": sets if whole else pairs},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": experiment(e) if whole else {target: shared()[target]},
        "evaluation": {"count": 0, "cfg_scale": 1.5, "temperature": 0.5},
    })  # fmt: skip
