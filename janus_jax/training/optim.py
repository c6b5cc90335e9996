"""Table 1 to optax: AdamW, global-norm clipping, warm-up and a schedule."""

import jax
import jax.numpy as jnp
import optax

from janus_jax.config.lengths import DEFAULT, by_part, in_steps
from janus_jax.config.schema import Optim
from janus_jax.training import ema


def schedules(optim: Optim, steps: int) -> dict[str, optax.Schedule]:
    """Part -> its learning rate by count of updates, all of one form: linear from 0 over the
    warm-up, then as `optim.schedule` says. DEFAULT stands for the parts that are not named."""
    return {
        part: _schedule(optim, steps, peak) for part, peak in by_part(optim.learning_rate).items()
    }


def _schedule(optim: Optim, steps: int, peak: float) -> optax.Schedule:
    warmup = in_steps(optim.warmup_steps, steps)
    left = max(steps - warmup, 1)
    falls = min(in_steps(optim.decay_steps, steps), left) or left
    straight = optax.linear_schedule(peak, optim.end_factor * peak, falls, left - falls)
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, left, optim.end_factor),
        "linear": straight,
        "wsd": straight,
    }[optim.schedule]
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def logged(schedules: dict[str, optax.Schedule], count: int) -> dict[str, float]:
    """What to log of the learning rates at a count of updates, by name."""
    return {
        "learning_rate" if part == DEFAULT else f"learning_rate/{part}": float(rate(count))
        for part, rate in schedules.items()
    }


def make(optim: Optim, steps: int, each: bool = False) -> optax.GradientTransformation:
    """Clip, then AdamW, with rates and decay by part: the children at the top of the tree. Weight
    decay reaches matrices and tables of embeddings. It does not reach norms, biases, the tower's
    positions (as is usual for ViTs) and the VQ tokenizer's codebook, of whose codes the direction
    alone counts. With `optim.ema` the state holds the weights' average too.

    optim: the numbers.
    steps: of the stage.
    each: every child's gradient is clipped by its own norm, not by that of all; the state is the
      same.
    """
    clip = optax.clip_by_global_norm(optim.clip_norm)
    own = lambda grads: {name: clip.update(part, None)[0] for name, part in grads.items()}
    adamw = optax.chain(
        optax.scale_by_adam(optim.b1, optim.b2, optim.eps, mu_dtype=optim.mu_dtype),
        _add_decay(by_part(optim.weight_decay)),
        _scale_by_rates(schedules(optim, steps)),
    )
    first = optax.stateless(lambda grads, _: own(grads)) if each else clip
    tx = _of_what_learned(optax.chain(first, adamw))
    return optax.chain(tx, ema.averaging(optim.ema)) if optim.ema else tx


def _of_what_learned(tx) -> optax.GradientTransformation:
    """A child of which the step had nothing to learn stays as it is: decay alone would shrink it."""

    def update(grads, state, params):
        updates, state = tx.update(grads, state, params)
        norms = {part: optax.tree.norm(grad) for part, grad in grads.items()}
        unless_0 = lambda norm, of: jax.tree.map(lambda x: jnp.where(norm == 0, 0, x), of)
        return {part: unless_0(norms[part], of) for part, of in updates.items()}, state

    return optax.GradientTransformation(tx.init, update)


def _add_decay(decay: dict[str, float]) -> optax.GradientTransformation:
    """Adds to each part its weights times its decay. Parts that `decay` does not name have that of
    DEFAULT, or none."""

    def update(updates, params):
        added = {}
        reached = decays(params)
        for part, of in updates.items():
            much = decay.get(part, decay.get(DEFAULT, 0.0))
            add = lambda u, p, yes: u + much * p if yes else u  # noqa: B023
            added[part] = jax.tree.map(add, of, params[part], reached[part])
        return added

    return optax.stateless(update)


def _scale_by_rates(rates: dict[str, optax.Schedule]) -> optax.GradientTransformation:
    """Each part times its negative learning rate; the state is that of optax.scale_by_schedule."""

    def update(updates, state, params=None):
        scaled = {}
        for part, of in updates.items():
            rate = -1 * rates.get(part, rates[DEFAULT])(state.count)
            scaled[part] = jax.tree.map(lambda u: jnp.asarray(rate, u.dtype) * u, of)  # noqa: B023
        count = optax.safe_increment(state.count)
        return scaled, optax.ScaleByScheduleState(count)

    init = lambda params: optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))
    return optax.GradientTransformation(init, update)


def decays(params):
    """True for the leaves that weight decay reaches, by their name; pairs of low rank are
    matrices."""
    names = ("kernel", "patch_kernel", "table")
    matrix = lambda path, _: path[-1].key in names or path[0].key == "lora"
    return jax.tree.map_with_path(matrix, params)
