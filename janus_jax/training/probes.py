"""How hard each task pulls at the transformer that they share, and whether they pull together.

Of each kind of example: the norm of the gradient of its own mean loss, over its own supervised tokens
of the step, by the transformer's weights before the step. Of understanding and generation: the
cosine between their two gradients, below 0 where a small step for the one alone would raise the
other's loss. Each of the transformer as a whole and of each of its layers.

It is a program of its own beside the step's, which stays the very same.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import batch as bt
from janus_jax.model import sharding as sh
from janus_jax.training.curves import PROBES
from janus_jax.training.loss import counts, janus_loss
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import TrainState

PAIR = ("understanding", "generation")


def beside(plan: StagePlan, step: Callable, options: dict) -> Callable:
    """The stage's compiled step, whose metrics also hold what its option `probe_every` asks for.

    plan: the stage, of any task.
    step: (state, batch) -> (state, metrics), jitted.
    options: of the compiler.
    """
    if not (every := int(plan.options.get("probe_every", 0))):
        return step
    stage = plan.stage
    kinds = tuple(kind for kind in plan.keeps if getattr(stage.ratio, kind))
    how = {"every": every, "kinds": kinds, "accumulate": stage.accumulate}
    look = jax.jit(functools.partial(probe, **how), compiler_options=options)

    def stepped(state: TrainState, batch: dict):
        found = look(state, batch)  # first: the step takes the state's memory
        state, metrics = step(state, batch)
        return state, metrics | found

    return stepped


def probe(
    state: TrainState, batch: dict, every: int, kinds: tuple[str, ...], accumulate: int
) -> dict:
    """ "probes/cosine" of the whole, "probes/cosine/03" of a layer and so on: float32 scalars. NaN
    where the step that comes is no multiple of `every`, and where the batch has nothing to learn of
    a kind. Pure.

    state: before the step.
    batch: as in model/batch.py.
    every: steps.
    kinds: of bt.TASKS, those that are looked at.
    accumulate: the parts in which the batch is gone through, for no more memory than the step needs.
    """
    names = [f"norm_{kind}" for kind in kinds]
    names += ["cosine"] if set(PAIR) <= set(kinds) else []
    layers = len(jax.tree.leaves(state.trainable["transformer"]["blocks"])[0])
    # Decided on the device: the host does not wait to learn which step this is.
    found = jax.lax.cond(
        (state.step + 1) % every == 0,
        lambda: looked_at(state, batch, kinds, accumulate),
        lambda: jnp.full((len(names), 1 + layers), jnp.nan),
    )
    out = {}
    width = len(str(layers - 1))
    for name, values in zip(names, found, strict=True):
        out[PROBES + name] = values[0]
        out |= {f"{PROBES}{name}/{i:0{width}}": values[1 + i] for i in range(layers)}
    return out


def looked_at(state: TrainState, batch: dict, kinds: tuple[str, ...], accumulate: int) -> jax.Array:
    """The norms of the kinds' gradients, and the cosine where both of PAIR are among them: float32
    [values, 1 + layers], the whole transformer's first."""
    codes = jnp.array([1 + bt.TASKS.index(kind) for kind in kinds])
    # One after the other, by one program.
    gradients, tokens = jax.lax.map(lambda code: gradient_of(state, batch, code, accumulate), codes)
    each = [jax.tree.map(lambda x, i=i: x[i], gradients) for i in range(len(kinds))]
    norms = [jnp.sqrt(products(one, one)) for one in each]
    out = [jnp.where(n > 0, norm, jnp.nan) for n, norm in zip(tokens, norms)]
    if set(PAIR) <= set(kinds):
        a, b = (kinds.index(kind) for kind in PAIR)
        # 0 / 0, a NaN, where one has nothing to learn
        out.append(products(each[a], each[b]) / (norms[a] * norms[b]))
    return jnp.stack(out)


def gradient_of(state: TrainState, batch: dict, code: jax.Array, accumulate: int) -> tuple:
    """(the gradient of the mean loss of one kind's examples by the transformer's weights, of how
    many supervised tokens). code: the kind's, as in `tasks` of a batch."""
    here = batch["tasks"] == code
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

    return jax.grad(mean_loss)(state.trainable["transformer"]), sum(counted.values())


def products(a: dict, b: dict) -> jax.Array:
    """Scalar products of two gradients by the transformer: float32 [1 + layers]."""
    blocks = jax.tree.map(lambda x, y: (x * y).sum(range(1, x.ndim)), a["blocks"], b["blocks"])
    layers = sum(jax.tree.leaves(blocks))
    last = (a["norm"]["scale"] * b["norm"]["scale"]).sum()
    return jnp.concatenate([(layers.sum() + last)[None], layers])


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
