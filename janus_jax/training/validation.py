"""The loss of a stage on records that it does not train on."""

from contextlib import closing

import jax

from janus_jax.config.held_out import holdout_of
from janus_jax.distributed import processes
from janus_jax.training.stage_plan import StagePlan

ROWS = 128  # of packed rows or images: so many, or those of one step where that has more


class Validation:
    """Of one stage. All processes call it alike, each for its rows of the same batches.

    Args:
        plan: the stage.
        sources: the data sets, opened, by name.
        processor: the tokenizer and template.
        workdir: where unusable records are listed.
        say: hears of them.

    Its batches are those of a step, packed alike, of held-out records. They are the same every
    time, and stay on the devices.
    """

    def __init__(self, plan: StagePlan, sources: dict, processor, workdir, say):
        self._of = sources, processor, workdir, say
        self._plan = plan.on_held_out()
        self._sums = jax.jit(plan.task.validate(plan))
        self._drawn = None

    def __call__(self, state) -> dict[str, float]:
        """ "validation_<name>" -> the mean, for each loss of the task of which anything is held
        out."""
        if self._drawn is None:
            self._drawn = self._draw()
        totals = {}
        for batch in self._drawn:
            for name, sums in jax.device_get(self._sums(state, batch)).items():
                before = totals.get(name, (0.0, 0.0))
                totals[name] = [a + float(b) for a, b in zip(before, sums, strict=True)]
        return {f"validation_{name}": a / n for name, (a, n) in totals.items() if n}

    def _draw(self) -> list:
        stage = self._plan.stage
        experiment = self._plan.experiment
        if not any(holdout_of(experiment, name) for name in experiment.draws(self._plan.name)):
            return []
        rows = stage.rows.count if stage.rows else stage.batch_size
        with closing(self._plan.task.batches(self._plan, *self._of)) as data:
            batches = [data.next_batch(i)[0] for i in range(-(-ROWS // rows))]
            if data.position is not None:
                data.position.sync_counts(processes.all_gather)
        return batches
