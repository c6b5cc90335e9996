"""What a config says about a stage's data, opened: this process's part of its batches."""

import dataclasses
from collections.abc import Callable

from janus_jax.data.mixture import Mixture
from janus_jax.data.pipeline import Batches
from janus_jax.data.read_stats import ReadStats
from janus_jax.distributed import arrays, processes
from janus_jax.training import stage_mixture
from janus_jax.training.preflight_effects import undrawn
from janus_jax.training.stage_plan import StagePlan


@dataclasses.dataclass(frozen=True)
class StageData:
    """The data of one stage, as its task opened it.

    Args:
        next_batch: i -> (arrays on the mesh, what to log about them in numbers that add up), for i
            = 0, 1, 2, ...
        stats: what was read and what was bad, by data set.
        mixture: what is drawn, and when.
        position: a pipeline.Batches, whose position is saved with each checkpoint; None where batch
            i is a function of i alone.
        with_ids: the sources whose records carry stored image ids.
        alarms: metric -> what it warns of, see spikes.LossMonitor.
        around: (compiled step, sampler, stages.initial_state, stages.directories) -> the step that the
            loop runs, where a batch is made with the weights of its step; see grpo_rollout.py.
    """

    next_batch: Callable
    stats: ReadStats
    mixture: Mixture
    position: Batches | None = None
    with_ids: list = dataclasses.field(default_factory=list)
    alarms: dict[str, str] = dataclasses.field(default_factory=dict)
    around: Callable | None = None

    def close(self):
        if self.position is not None:
            self.position.close()


def open_batches(
    plan: StagePlan, sources: dict, processor, workdir, say, stats=ReadStats
) -> Batches:
    """The stage's mixture, packed into this process's part of its batches. stats: makes a ReadStats
    of what that is given."""
    data = plan.experiment.data
    entries = stage_mixture.entries_of(plan, sources)
    for name, why in undrawn(plan.experiment).items():
        say(f"  {name} is never drawn: {why}")
    for entry in entries:
        if entry.steps and entry.steps[0] >= plan.stage.steps:
            say(
                f"  {entry.name} is never drawn: its steps begin at {entry.steps[0]}, the stage "
                f"has {plan.stage.steps}"
            )
    mixture = stage_mixture.mixture_of(plan, entries)
    share, of = arrays.batch_share()
    return Batches(
        mixture,
        stage_mixture.encoder(plan, processor),
        share=share,
        of=of,
        workers=data.workers,
        stats=read_stats(plan, mixture, workdir, say, stats),
        accept=True,  # what changed between two starts was asked before the first step
    )


def read_stats(plan: StagePlan, mixture: Mixture, workdir, say, make=ReadStats) -> ReadStats:
    listing = workdir / "bad_records.jsonl" if processes.is_lead() else None
    return make(mixture, say, listing, plan.experiment.data.max_bad_fraction)
