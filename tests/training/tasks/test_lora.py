"""Task lora: its step against plain task janus, what its base is kept in, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
from support import tiny

from janus_jax.config.read import resolve
from janus_jax.model import low_rank
from janus_jax.training.stage_plan import StagePlan

EVERYWHERE = {"rank": 2, "alpha": 4, "targets": "attention,mlp,adaptors,tower,heads"}


def plan_of(options=EVERYWHERE, model=tiny.CONFIG, **changes) -> StagePlan:
    stage = {
        "task": "lora",
        "options": options,
        "trainable": (),
        "init": (),
        "steps": 8,
        "batch_size": 8,
        "rows": {
            "count": 8,
            "length": tiny.LENGTH,
            "understanding_images": 2,
            "generation_images": 2,
        },
        "ratio": {"understanding": 1, "text": 1, "generation": 1},
        "optim": {"learning_rate": 1e-2, "eps": 1e-3},
        **changes,
    }
    values = {"model": dataclasses.asdict(model), **tiny.WORLD, "stages": {"one": stage}}
    return StagePlan.of(resolve(values, {})[0], "one")


def begun(plan, seed=0):
    """A state whose pairs are drawn both, and the params as a plain Janus of these weights has
    them."""
    like = plan.state()
    params = tiny.drawn(sh_params(like), seed)
    params = low_rank.kept_as(params, like.params)
    state = like.replace(
        step=jnp.int32(3),
        nonfinite_updates=jnp.int32(0),
        trainable={name: params[name] for name in like.trainable},
        frozen={name: params[name] for name in like.frozen},
    )
    return state.replace(opt_state=jax.jit(plan.tx.init)(state.trainable))


def sh_params(state):
    return low_rank.unscaled(state.params)
