"""Reinforcement learning of both halves with groups of drawings and answers (GRPO, arXiv 2402.03300).

A step draws `group` pictures of each of its prompts and answers each question as often, with its own
weights, scores them (training/rewards.py), and makes those above their group's mean likelier
(training/grpo_loss.py). Prompts, seeds and rewards are functions of the seed, the step and the weights
alone, so a run that goes on is the run that was never stopped. The state is that of task janus.
"""

import dataclasses

import jax
import jax.numpy as jnp

from janus_jax.config.lengths import in_steps
from janus_jax.config.schema import Experiment
from janus_jax.model import sharding as sh
from janus_jax.model.config import JanusConfig
from janus_jax.model.low_rank_layers import with_pairs
from janus_jax.training import batch_shapes as bs
from janus_jax.training import grpo_batch, grpo_options, optim, stage_data, stage_mixture
from janus_jax.training.grpo_loss import grpo_loss
from janus_jax.training.log_probabilities import guided, log_probabilities
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import TrainState, update
from janus_jax.training.tasks import janus

PACKS = True
ROLLS = True
NARROWS = False
TEACHERS = ()
OPTIONS = grpo_options.OPTIONS
VALIDATES = ()
problems = grpo_options.grpo_problems
export = janus.export
for_devices = janus.for_devices


def without(experiment: Experiment, name: str) -> tuple[str, ...]:
    """Who only answers needs no tokenizer of pictures."""
    return () if experiment.stages[name].ratio.generation else ("generation_encoder",)


def init_state(key, model: JanusConfig, tx, trainable, without=(), options=OPTIONS):
    return janus.init_state(key, model, tx, trainable, without)


def init_random(seed: int, model: JanusConfig, names: tuple[str, ...], options=OPTIONS) -> dict:
    return janus.init_random(seed, model, names)


def likely(options: dict):
    """(model, batch) -> float32 [B, T], the log-probabilities of what a batch supervises, as these
    options draw it; of a model with low-rank pairs beside its linear maps those with them."""
    heat = float(options["temperature"])
    scale = float(options["cfg_scale"])

    def of(model, batch):
        ids = model.image_ids(batch)
        if scale != 1:
            return guided(with_pairs(model), batch, ids, scale, heat)
        return log_probabilities(with_pairs(model), batch, ids, heat)

    return of


def stretched(plan: StagePlan):
    """The stage's optimiser where each step makes several updates: its schedule goes by steps."""
    times = int(plan.options["updates"])
    if times == 1:
        return plan.tx
    o, steps = plan.stage.optim, plan.stage.steps
    longer = {n: times * in_steps(getattr(o, n), steps) for n in ("warmup_steps", "decay_steps")}
    return optim.make(dataclasses.replace(o, **longer), times * steps)


def step(plan: StagePlan):
    options = plan.options
    tx = stretched(plan)
    now = likely(options)
    how = {name: float(options[name]) for name in ("clip_low", "clip_high", "kl")}
    accumulate = plan.stage.accumulate
    updates = int(options["updates"])

    def loss(model, batch):
        return grpo_loss(now(model, batch), batch, **how)

    def once(state: TrainState, batch: dict):
        if accumulate == 1:
            return update(state, tx, lambda model: loss(model, batch))
        return update(state, tx, loss, jax.tree.map(lambda x: sh.parts(x, accumulate), batch))

    def grpo_step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        """Pure: all updates by a scored rollout. Metrics are means over them."""
        if updates == 1:
            return once(state, batch)
        done, each = jax.lax.scan(lambda s, _: once(s, batch), state, None, length=updates)
        found = {name: x.mean(0) for name, x in each.items()}
        found["nonfinite_updates"] = each["nonfinite_updates"][-1]
        return done.replace(step=state.step + 1), found

    return grpo_step


def validate(plan: StagePlan):
    """What is held out has no loss before it is drawn: benchmarks measure it
    (evaluation.benchmarks)."""
    return lambda state, batch: {"loss": (jnp.float32(0), jnp.float32(0))}


def batches(plan: StagePlan, sources: dict, processor, workdir, say) -> stage_data.StageData:
    """Batch i is the number i: what it asks for is drawn and scored with the weights of its step
    (grpo_rollout.py)."""
    from janus_jax.training import grpo_rollout

    mixture = stage_mixture.mixture_of(plan, stage_mixture.entries_of(plan, sources))
    stats = stage_data.read_stats(plan, mixture, workdir, say)
    images = grpo_options.Counts.of(plan.stage, plan.options).drawings / jax.process_count()

    def around(step, sampler, initial_state, directories):
        def initial(weights):
            weights = directories(plan, workdir) if weights is None else weights
            state, _, named = initial_state(plan, weights, processor.tokenizer, lambda text: None)
            return state, named

        now = likely(plan.options)
        score = jax.jit(lambda state, batch: now(state.model(), batch))
        how = processor, workdir, say, step, score, sampler, initial
        return grpo_rollout.Rollouts(plan, (mixture, stats), *how)

    next_batch = lambda i: (i, {"images": images})
    return stage_data.StageData(next_batch, stats, mixture, around=around)


def read_first(plan: StagePlan, processor):
    grpo_options.require_rewards(plan.name, plan.options)
    return janus.read_first(plan, processor)


def batch_shapes(plan: StagePlan) -> dict:
    is_guided = plan.options["cfg_scale"] != 1
    return bs.abstract(grpo_batch.batch_arrays(plan.stage.rows, plan.model, is_guided))
