"""What a stage that trains a tokenizer reads: pictures without their text, and the weights that
measure them."""

import functools

import jax
import numpy as np
from jax.sharding import NamedSharding

from janus_jax.data.random_crop import random_crop
from janus_jax.data.random_pictures import RandomPictures
from janus_jax.distributed import arrays
from janus_jax.model import sharding as sh
from janus_jax.training import batch_shapes, stage_data, stage_mixture
from janus_jax.training.perceptual import lpips_shapes, read_lpips
from janus_jax.training.stage_plan import StagePlan


def open_pictures(plan: StagePlan, sources: dict, workdir, say) -> RandomPictures:
    """Batches of pictures by (seed, step), cropped and mirrored as the stage's options say; held-out
    ones neither."""
    mixture = stage_mixture.mixture_of(plan, stage_mixture.entries_of(plan, sources))
    side = plan.model.generation_encoder.image_size
    make = None
    o = plan.options
    if (o["crop"] or o["flip"]) and not plan.held_out:
        make = functools.partial(random_crop, least=o["crop"], flip=o["flip"])
    stats = stage_data.read_stats(plan, mixture, workdir, say)
    return RandomPictures(mixture, side, *arrays.batch_share(), stats, make)


def constants(plan: StagePlan, say) -> dict:
    """What each batch holds that never changes, whole on every device: it goes into the step as an
    argument, so that it lies neither in the program nor in a checkpoint."""
    if not plan.options["lpips"]:
        if not plan.held_out:
            say("  options.lpips names no file: the perceptual term is off")
        return {}
    whole = NamedSharding(jax.sharding.get_mesh(), sh.REPLICATED)
    weights = read_lpips(plan.options["lpips"])
    return {"lpips": {name: arrays.put(x, whole) for name, x in weights.items()}}


def picture_shapes(plan: StagePlan) -> dict:
    """Of a step's whole batch, pictures and `constants`, on the current mesh. LPIPS's files need not
    be there."""
    side = plan.model.generation_encoder.image_size
    images = ((plan.stage.batch_size, side, side, 3), np.uint8)
    out = batch_shapes.abstract({"images": images})
    if plan.options["lpips"]:
        out["lpips"] = batch_shapes.abstract(lpips_shapes(), sh.REPLICATED)
    return out
