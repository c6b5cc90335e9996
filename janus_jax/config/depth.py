"""Which models whose tokens are several codes there can be. Loaded where a config asks for one."""

from janus_jax.config.sizes import divides, positive
from janus_jax.model.config import JanusConfig

MOST = 32  # codes of a token; RQ-VAE's pictures gain little beyond 4


def depth_problems(model: JanusConfig, at: str) -> list[str]:
    """What of the tokenizer, the image head and the rest does not go together; `at` leads the names of
    the fields, with its dot."""
    box = model.generation_encoder
    path = f"{at}generation_encoder"
    if not 1 <= box.depth <= MOST:
        return [
            f"{path}.depth is {box.depth}: a token is 1 to {MOST} codes; RQ-VAE's has 4, Janus' own 1"
        ]
    if model.image_head != "depth":
        return [
            f"{path}.depth is {box.depth} and {at}image_head {model.image_head!r}: several codes a token "
            f"are predicted in turn by a depth head; set {at}image_head to 'depth', or depth to 1"
        ]
    if box.depth == 1:
        return [
            f"{at}image_head is 'depth' and {path}.depth is 1: the head predicts several codes a token; "
            f"set depth to 2 or more, or {at}image_head to 'softmax'"
        ]
    usual = {
        "understanding": (model.understanding, "siglip"),
        "generation": (model.generation, "embedding"),
        "drawing": (model.drawing, "causal"),
        "generation_encoder.latent": (box.latent, "vq"),
        "generation_encoder.sizes": (box.sizes, ()),
    }
    problems = [
        f"{at}{name} is {value!r} and {path}.depth is {box.depth}: the two do not go together; set it to "
        f"{known!r}, or depth to 1 (and {at}image_head to 'softmax')"
        for name, (value, known) in usual.items()
        if value != known
    ]
    if box.codebook_l2_norm:
        problems.append(
            f"{path}.codebook_l2_norm is True and {path}.depth {box.depth}: what a code leaves of a latent "
            "grows shorter with each, and codes of length 1 cannot be near it; set codebook_l2_norm to "
            "False"
        )
    problems += [
        f"{at}{name} is {value}: nothing reads it with image_head 'depth'; leave it out"
        for name, value, known in (
            ("generation_encoder.latent_scale", box.latent_scale, 1.0),
            ("denoising_steps", model.denoising_steps, JanusConfig.denoising_steps),
        )
        if value != known
    ]
    problems += positive(at[:-1] or "this model", model, ("image_head_layers",))
    llm = model.transformer
    if llm.heads > 0 and llm.width > 0 and llm.width % llm.heads == 0:
        size = llm.width // llm.heads
        why = "the depth head's heads are as wide as the language model's, width / heads ="
        problems += divides(f"{at}image_head_width", model.image_head_width, size, why)
    return problems
