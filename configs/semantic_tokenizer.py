"""The semantic tokenizer of the paper's appendix A: LlamaGen's VQ-16, and on its codes a causal ViT
that learns what SigLIP-L/16-384 says of the same picture. Ablations B and C of Table 5 read it.

From the appendix: 12 layers, 12 heads, width 768; cosine distillation of weight 0.25 beside the RGB
loss of LlamaGen (arXiv 2406.06525); from scratch, 40 epochs of ImageNet-1k, then one epoch of 50 M
pictures of Janus's generation data; learning rate 1e-4, constant; batch 128.

Where it is silent, our choice:
* 384 pixels throughout, so that the 24 x 24 codes stand one to one beside SigLIP's 576 tokens;
* a linear map of a code (8 to 768) and learned positions in, LayerNorm before each part and at the
  end, exact GELU, MLPs of 3072; out of it LayerNorm and a linear map to SigLIP's 1024, the head,
  which Janus does not take over;
* the target is SigLIP after its last LayerNorm, of the very crop that the tokenizer sees, in the
  same [-1, 1]; 1 less the mean cosine over tokens; no gradient to SigLIP;
* the semantic loss trains the encoder too, straight through the nearest code, as BEiT-v2's does (arXiv
  2208.06366); the codebook learns by LlamaGen's terms alone;
* the rest of the RGB loss, its discriminator, Adam's betas, clipping, crops and mirroring are
  LlamaGen's, see vq16.py; in the second phase the discriminator counts from the first step, as in
  LlamaGen's text-to-image continuation.
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config
from janus_jax.model import presets

# Mesh: data, fsdp, tensor. The VQ tokenizer is whole on every device, SigLIP and the semantic decoder
# are split over fsdp.
TARGETS = {
    "": dict(mesh=(1, -1, 1), remat="dots"),
    "h100:8": dict(mesh=(1, 8, 1), remat="dots"),
    "v5e:8x8": dict(mesh=(1, 64, 1), remat="dots"),
}
IMAGENET, PICTURES = 1_281_167, 50_000_000
BATCH = 128
TEACHER = "weights/siglip_l16_384"  # converted


def stage(steps: int, init: tuple, start: int) -> dict:
    """start: the update from which the discriminator counts."""
    return {
        "task": "semantic",
        "trainable": ("generation_encoder", "semantic_decoder"),
        "init": init,
        "steps": steps,
        "batch_size": BATCH,
        "ratio": {"understanding": 0, "text": 0, "generation": 1},
        "options": {
            "semantic": 0.25,
            "lpips": "weights/vgg16-397923af.pth,weights/lpips_v0.1_vgg.pth",
            "discriminator": "patchgan",
            "discriminator_start": start,
            "crop": 0.8,
            "flip": 0.5,
        },
        "optim": {
            "learning_rate": 1e-4, "schedule": "constant", "weight_decay": 0.0, "clip_norm": 1.0,
            "b1": 0.9, "b2": 0.95,
        },
        "checkpoint_every": 5_000,
        "log_every": 100,
    }  # fmt: skip


def get_config(target: str = "") -> ConfigDict:
    t = TARGETS[target]
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(presets.janus_1_3b()) | {"remat": t["remat"]},
        "template": {"user": "User", "assistant": "Assistant"},
        "tokenizer": "",
        "data": {"datasets": {
            "imagenet": {
                "kind": "generation", "path": "data/imagenet/train",
                "names": "data/imagenet_names.tsv", "stages": ("imagenet",),
            },
            "pictures": {
                "kind": "generation", "path": "data/text_to_image/*.tar", "min_side": 384,
                "stages": ("text_to_image",),
            },
        }},
        "mesh": dict(zip(("data", "fsdp", "tensor"), t["mesh"])),
        "stages": {
            # 40 epochs of whole batches.
            "imagenet": stage(40 * (IMAGENET // BATCH), (TEACHER,), start=20_000),
            "text_to_image": stage(PICTURES // BATCH, ("previous", TEACHER), start=0),
        },
    })  # fmt: skip
