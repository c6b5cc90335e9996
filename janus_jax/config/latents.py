"""Which models with continuous latents there can be. Loaded where a config asks for one."""

from janus_jax.common import float32
from janus_jax.config.sizes import named, positive
from janus_jax.model.config import JanusConfig

LATENTS = ("vq", "kl")
HEADS = ("softmax", "diffusion", "depth")
MOST = 1000  # steps of the noise schedule, model/diffusion_head.py


def latent_problems(model: JanusConfig, at: str) -> list[str]:
    """What of the tokenizer, the image head and the adaptors does not go together; `at` leads the names
    of the fields, with its dot."""
    box = model.generation_encoder
    path = f"{at}generation_encoder"
    problems = named(f"{path}.latent", box.latent, LATENTS)
    problems += named(f"{at}image_head", model.image_head, HEADS)
    problems += positive(at[:-1] or "this model", model, ("image_head_layers",))
    if not 2 <= model.denoising_steps <= MOST:
        problems.append(
            f"{at}denoising_steps is {model.denoising_steps}: the noise schedule has {MOST} steps, of which "
            "2 or more are taken; give a number between, such as 100"
        )
    if not (box.latent_scale > 0 and float32.finite(box.latent_scale)):
        problems.append(
            f"{path}.latent_scale is {box.latent_scale}: latents are multiplied by it; give a finite "
            "number above 0, 1 / their standard deviation (task kl logs it as latent_std)"
        )
    if problems:
        return problems
    if (model.image_head, box.latent) == ("softmax", "vq"):
        return [
            f"{at}{name} is {value}: nothing reads it with image_head 'softmax' and latent 'vq'; leave "
            "it out"
            for name, value, known in (
                ("generation_encoder.latent_scale", box.latent_scale, 1.0),
                ("image_head_layers", model.image_head_layers, JanusConfig.image_head_layers),
                ("denoising_steps", model.denoising_steps, JanusConfig.denoising_steps),
            )
            if value != known
        ]
    if model.image_head == "softmax":
        return [
            f"{at}image_head is 'softmax' and {path}.latent is 'kl': a KL tokenizer has no ids to choose "
            f"from; set {at}image_head to 'diffusion', or latent to 'vq'"
        ]
    if box.latent == "vq":
        return [
            f"{at}image_head is 'diffusion' and {path}.latent is 'vq': the head draws latents, which a VQ "
            f"tokenizer would round to codes; set {path}.latent to 'kl', or {at}image_head to 'softmax'"
        ]
    usual = {
        "understanding": (model.understanding, "siglip"),
        "generation": (model.generation, "embedding"),
        "drawing": (model.drawing, "causal"),
        "generation_encoder.decoder_norm": (box.decoder_norm, "group"),
        "generation_encoder.sizes": (box.sizes, ()),
    }
    return [
        f"{at}{name} is {value!r} and {path}.latent is 'kl': it needs the ids of a VQ tokenizer, and "
        f"there are none; set it to {known!r}, or latent to 'vq'"
        for name, (value, known) in usual.items()
        if value != known
    ]
