"""How hard each task pulls at the transformer that they share, and whether they pull together.

Of each kind of example: the norm of the gradient of its own mean loss, over its own supervised tokens
of the step, by the transformer's weights before the step. Of understanding and generation: the
cosine between their two gradients, below 0 where a step for the one alone would raise the other's
loss. Each of the transformer as a whole and of each of its layers. The step itself stays as it is.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import batch as bt
from janus_jax.model import sharding as sh
from janus_jax.training.curves import PROBES
from janus_jax.training.loss import counts, janus_loss
from janus_jax.training.state import TrainState

PAIR = ("understanding", "generation")


def probed(step: Callable, every: int, kinds: tuple[str, ...], accumulate: int) -> Callable:
    """The step, whose metrics also hold what is said above; NaN in steps that are no multiple of
    `every`, and where the batch has nothing to learn of a kind.

    step: (state, batch) -> (state, metrics).
    every: steps.
    kinds: of bt.TASKS, those that are looked at.
    accumulate: the parts in which a batch is gone through, for no more memory than the step needs.
    """

    names = [f"norm_{kind}" for kind in kinds]
    names += ["cosine"] if set(PAIR) <= set(kinds) else []

    def stepped(state: TrainState, batch: dict):
        blocks = jax.tree.leaves(state.trainable["transformer"]["blocks"])
        found = jax.lax.cond(
            (state.step + 1) % every == 0,
            lambda: looked_at(state, batch, kinds, accumulate),
            lambda: jnp.full((len(names), 1 + len(blocks[0])), jnp.nan),
        )
        state, metrics = step(state, batch)
        return state, metrics | named(dict(zip(names, found, strict=True)))

    return stepped


def looked_at(state: TrainState, batch: dict, kinds: tuple[str, ...], accumulate: int) -> jax.Array:
    """The norms of the kinds' gradients, and the cosine where both of PAIR are among them: float32
    [values, 1 + layers], the whole transformer's first."""
    gradients = {kind: gradient_of(state, batch, kind, accumulate) for kind in kinds}
    norms = {kind: jnp.sqrt(products(g, g)) for kind, g in gradients.items()}
    tokens = counts(batch)
    out = [jnp.where(tokens[kind] > 0, x, jnp.nan) for kind, x in norms.items()]
    if set(PAIR) <= gradients.keys():
        a, b = PAIR
        # 0 / 0, a NaN, where one has nothing to learn
        out.append(products(gradients[a], gradients[b]) / (norms[a] * norms[b]))
    return jnp.stack(out)


def gradient_of(state: TrainState, batch: dict, kind: str, accumulate: int) -> dict:
    """The gradient of one kind's mean loss by the transformer's weights."""
    here = batch["tasks"] == 1 + bt.TASKS.index(kind)
    alone = batch | {
        "text_targets": jnp.where(here, batch["text_targets"], bt.IGNORE),
        "image_targets": jnp.where(here, batch["image_targets"], 0),
    }
    counted = counts(alone)
    parts = jax.tree.map(lambda x: sh.parts(x, accumulate), alone)

    def mean_loss(transformer):
        params = state.params | {"transformer": transformer}

        def of_part(part):
            return janus_loss(nnx.merge(state.graphdef, params), part, counted)[0]

        # Each part runs forwards again for its gradient, so that one at a time is held.
        return jax.lax.map(jax.checkpoint(of_part), parts).sum()

    return jax.grad(mean_loss)(state.trainable["transformer"])


def products(a: dict, b: dict) -> jax.Array:
    """Scalar products of two gradients by the transformer: float32 [1 + layers]."""
    blocks = jax.tree.map(lambda x, y: (x * y).sum(range(1, x.ndim)), a["blocks"], b["blocks"])
    layers = sum(jax.tree.leaves(blocks))
    last = (a["norm"]["scale"] * b["norm"]["scale"]).sum()
    return jnp.concatenate([(layers.sum() + last)[None], layers])


def named(found: dict) -> dict:
    """Rows of `looked_at` as metrics: "probes/cosine" of the whole, "probes/cosine/03" of a layer."""
    out = {}
    for name, values in found.items():
        out[PROBES + name] = values[0]
        width = len(str(len(values) - 2))
        out |= {f"{PROBES}{name}/{i:0{width}}": x for i, x in enumerate(values[1:])}
    return out


def probe_problems(path: str, every: float, stage) -> list[str]:
    """What is wrong with the option probe_every of a stage. path: of the stage, for messages."""
    if not every:
        return []
    told = f"{path}.options.probe_every is {every:g}"
    found = []
    if stage.log_every > 0 and every % stage.log_every:
        found.append(
            f"{told}: what such a step gives is told where steps are logged; set it to a multiple of "
            f"{path}.log_every, {stage.log_every}"
        )
    if every > stage.steps:
        found.append(f"{told}: the stage has {stage.steps} steps, so that none is looked at")
    if "transformer" not in stage.trainable:
        found.append(
            f"{told}: {path}.trainable has no transformer, so that no gradient pulls at it; set "
            f"probe_every to 0"
        )
    return found
