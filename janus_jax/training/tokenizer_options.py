"""The options of task vq, with LlamaGen's numbers (tokenizer_image/vq_train.py), and which of them do
not go together."""

from janus_jax.common.text import near
from janus_jax.training import discriminators, perceptual
from janus_jax.training.tokenizer_loss import (
    DISCRIMINATOR_LOSSES,
    GENERATOR_LOSSES,
    RECONSTRUCTION_LOSSES,
    WEIGHTINGS,
)

OPTIONS = {
    "reconstruction_loss": "l2",
    "commitment": 0.25,  # weight of the commitment loss
    # Weight of the entropy loss. LlamaGen has none, but without it a small tokenizer that is
    # trained from nothing falls onto two or three codes.
    "entropy": 0.0,
    # Files with VGG16 and LPIPS's heads (see perceptual.read_lpips); without, the term is off.
    "lpips": "",
    "perceptual_weight": 1.0,
    "discriminator": "",  # patchgan (LlamaGen's) or stylegan; without, nothing adversarial
    "discriminator_loss": "hinge",
    "generator_loss": "hinge",
    "discriminator_weight": 0.5,
    "discriminator_start": 20_000,  # the first update, counted from 1, at which it counts
    "weighting": "fixed",  # of the discriminator; or adaptive
    "discriminator_width": 64,
    "discriminator_layers": 3,  # of the PatchGAN
    "ema": 0.0,  # decay of the weights' moving average, LlamaGen's is 0.9999; 0: none
    # Least share of a picture's short side that a random crop keeps, LlamaGen's is 0.8; 0: the
    # centre is taken, nothing is left to chance.
    "crop": 0.0,
    "flip": 0.0,  # probability that a picture is mirrored, LlamaGen's is 0.5
}
WORDS = {
    "reconstruction_loss": RECONSTRUCTION_LOSSES,
    "discriminator": ("", *discriminators.KINDS),
    "discriminator_loss": DISCRIMINATOR_LOSSES,
    "generator_loss": GENERATOR_LOSSES,
    "weighting": WEIGHTINGS,
}
ADVERSARIAL = (
    "discriminator_loss", "generator_loss", "discriminator_weight", "discriminator_start", "weighting",
    "discriminator_width", "discriminator_layers",
)  # fmt: skip


def option_problems(stage, path: str, image_size: int) -> list[str]:
    """What of a stage's options cannot be, by itself or together, a line each.

    path: of the stage in the config.
    image_size: of the tokenizer.
    """
    given = stage.options
    o = OPTIONS | given
    found = [
        f"{path}.options.{name} is {o[name]!r}: unknown{near(o[name], [k for k in kinds if k])}"
        for name, kinds in WORDS.items()
        if o[name] not in kinds
    ]
    say = lambda name, why: found.append(f"{path}.options.{name} is {o[name]!r}: {why}")
    for name in ("crop", "flip", "ema"):
        if o[name] > 1 or (name == "ema" and o[name] == 1):
            say(
                name,
                "a share below 1, such as " + {"ema": "0.9999", "crop": "0.8"}.get(name, "0.5"),
            )
    for name in ("discriminator_width", "discriminator_layers", "discriminator_start"):
        if o[name] != int(o[name]) or (o[name] < 1 and name != "discriminator_start"):
            say(name, "must be a whole number" + ", 0 or more" * name.endswith("start"))
    if not o["lpips"] and "perceptual_weight" in given:
        say("perceptual_weight", "options.lpips names no file, so there is no such term; name one")
    if o["lpips"] and o["perceptual_weight"] == 0:
        say(
            "perceptual_weight",
            "the files of options.lpips would count for nothing; leave them out",
        )
    if o["lpips"] and image_size < perceptual.LEAST:
        say(
            "lpips",
            f"VGG16 halves a picture to its last features, for which {image_size} pixels a side are "
            f"too few; leave it out, or raise model.generation_encoder.image_size to "
            f"{perceptual.LEAST} or more",
        )
    if not o["discriminator"]:
        for name in (name for name in ADVERSARIAL if name in given):
            say(name, "there is no discriminator; set options.discriminator, or leave it out")
    elif not found:
        if o["discriminator"] != "patchgan" and "discriminator_layers" in given:
            say("discriminator_layers", "only the patchgan reads it; leave it out")
        if o["discriminator_weight"] == 0:
            say(
                "discriminator_weight",
                "the tokenizer would learn nothing of its discriminator; leave "
                "options.discriminator out, or give a weight, as LlamaGen's 0.5",
            )
        if o["discriminator_start"] > stage.steps:
            say(
                "discriminator_start",
                f"the stage has {stage.steps} steps, so that its discriminator would never count; "
                "lower it, or leave options.discriminator out",
            )
        layers = int(o["discriminator_layers"])
        if wrong := discriminators.size_problem(o["discriminator"], image_size, layers):
            say("discriminator", wrong)
    return found
