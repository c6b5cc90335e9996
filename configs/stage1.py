"""Janus stage 1: the adaptors and the image head learn to speak with a frozen language model.

Table 1 of the paper (arXiv 2410.13848), column "Stage 1". Trained on image-text pairs read both ways: 1.25 M
captions of ShareGPT4V and 1.2 M pictures of ImageNet-1k with their category names.
"""

from ml_collections import ConfigDict

from janus_jax.model import config as model_config


def get_config() -> ConfigDict:
    return ConfigDict({
        "seed": 0,
        "model": model_config.to_dict(model_config.janus_1_3b()),
        "template": {"user": "User", "assistant": "Assistant"},
        "tokenizer": "weights/deepseek_llm_1_3b",
        "data": {
            "source": "llava",
            "understanding": "data/sharegpt4v.json",
            "generation": "data/imagenet_names.json",
            "images": "data/images",
        },
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {
            "stage1": {
                "trainable": ("understanding_adaptor", "generation_adaptor", "generation_embedding", "image_head"),
                # SigLIP-Large-patch16-384, DeepSeek-LLM-1.3B and LlamaGen's VQ-16, converted to this layout.
                "init": ("weights/siglip_l16_384", "weights/deepseek_llm_1_3b", "weights/llamagen_vq16"),
                "steps": 10_000,
                "batch_size": 256,
                # 256 examples of about 690 tokens: 44 rows of 4096, rounded up to a multiple of 8.
                "rows": {"count": 48, "length": 4096, "pictures": 4, "images": 4},
                "ratio": {"understanding": 1, "text": 0, "generation": 1},
                "supervise": "all",
                "optim": {
                    "learning_rate": 1e-3, "schedule": "cosine", "warmup_steps": 300, "weight_decay": 0.0,
                    "clip_norm": 1.0, "b1": 0.9, "b2": 0.95,
                },
            },
        },
    })  # fmt: skip
