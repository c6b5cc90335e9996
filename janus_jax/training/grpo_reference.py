"""The weights that a policy is kept near while task grpo trains it: option `reference`."""

from collections.abc import Callable

import jax
import numpy as np

from janus_jax.distributed import arrays
from janus_jax.training.ema import averaged
from janus_jax.training.grpo_options import EMA
from janus_jax.training.stage_plan import StagePlan
from janus_jax.weights.table import WeightsError


class ReferenceWeights:
    """Of one stage: those that it begins with, the average of those that it had (EMA), or those of the
    directory that the option names. Beside low-rank pairs the first are the Janus without them, of which
    there is no copy, and the average is one of the pairs.

    Args:
        plan: the stage.
        initial: weights directories, or None for those of the stage's `init` -> (state as the stage
            would begin with them, child -> where it is from).

    Raises WeightsError for weights that lack a child.
    """

    def __init__(self, plan: StagePlan, initial: Callable):
        path = plan.options["reference"]
        self.trainable = None
        self.apart = {}
        self.averages = path == EMA
        if self.averages or (plan.adapted and not path):
            return
        state, named = initial([path] if path else None)
        due = {*state.trainable, *(state.frozen if path else ())} - {"lora"}
        if missing := sorted(due - set(named)):
            raise WeightsError(
                f"stages.{plan.name}: the reference, {path or 'what the stage begins with'}, has no "
                f"{', '.join(missing)}: a whole Janus is due; name one in options.reference or init"
            )
        self.trainable = state.trainable
        if path:
            self.apart = {"frozen": state.frozen}

    def held(self, state):
        """The state of the policy with the reference's weights; what is frozen is its own too where
        it is named. Pairs of zeros change nothing."""
        if self.averages:
            return state.replace(trainable=averaged(state.opt_state))
        if self.trainable is None:
            zeros = lambda x: arrays.put(np.zeros(x.shape, x.dtype), x.sharding)
            self.trainable = jax.tree.map(zeros, state.trainable)
        return state.replace(trainable=self.trainable, **self.apart)
