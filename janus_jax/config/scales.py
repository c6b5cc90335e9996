"""Which models can draw scale by scale. Loaded where a config asks for one."""

import itertools

from janus_jax.model.config import JanusConfig


def scale_problems(model: JanusConfig, at: str) -> list[str]:
    """What of the tokenizer's grids, and of the rest of a model, does not go together; `at` leads the
    names of the fields, with its dot."""
    vq = model.generation_encoder
    path = f"{at}generation_encoder"
    side = vq.grid[0]
    if model.drawing != "scales":
        return [
            f"{path}.scales is {vq.scales} and {at}drawing is {model.drawing!r}: its ids are those of one "
            f"grid; set {at}drawing to 'scales', or leave scales out"
        ]
    such = f"such as {tuple(sorted({1, max(side // 2, 1), side}))}"
    problems = []
    if not vq.scales:
        problems.append(
            f"{at}drawing is 'scales' and {path}.scales is empty: name the sides of a picture's grids, "
            f"coarse to fine, {such}"
        )
    elif vq.scales[0] < 1 or any(b <= a for a, b in itertools.pairwise(vq.scales)):
        problems.append(
            f"{path}.scales is {vq.scales}: sides of grids, each must be larger than the one before, from "
            f"1 on, {such}"
        )
    elif vq.scales[-1] != side:
        problems.append(
            f"{path}.scales is {vq.scales}: must end in the side of the latents' grid, image_size / stride "
            f"= {vq.image_size} / {vq.stride} = {side}, {such}"
        )
    usual = {
        "generation_encoder.codebook_l2_norm": (
            vq.codebook_l2_norm, False, "what a scale leaves to the next is of any length, and so codes are",
        ),
        "generation_encoder.sizes": (vq.sizes, (), "the grids are squares"),
        "generation_encoder.latent": (vq.latent, "vq", "scales are told by codes"),
        "image_head": (model.image_head, "softmax", "scales are told by codes"),
        "understanding": (model.understanding, "siglip", "codes of scales are no features of patches"),
        "generation": (model.generation, "embedding", "a scale reads the tokenizer's codes of those before"),
    }  # fmt: skip
    problems += [
        f"{at}{name} is {value!r} and {at}drawing is 'scales': {why}; set it to {known!r}"
        for name, (value, known, why) in usual.items()
        if value != known
    ]
    if model.attention == "cudnn":
        problems.append(
            f"{at}attention is 'cudnn' and {at}drawing is 'scales': its packed layout sees what came "
            "before alone; take 'auto'"
        )
    return problems
