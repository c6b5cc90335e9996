"""Learning from pairs of a chosen and a rejected picture or answer (`preference_loss.py`): packed
rows of pairs, both halves of one in a row, and a frozen reference beside what learns.

Records are those of `data/pairs.py`. The reference is a copy of what the stage begins with, or its
log-probabilities are read from a folder (`stored_reference.py`).
"""

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.config.schema import Experiment
from janus_jax.data.pair_encoder import most_pairs, of_chosen, pair_encoder, split
from janus_jax.distributed import arrays
from janus_jax.model import batch as bt
from janus_jax.model import sharding as sh
from janus_jax.model.config import JanusConfig
from janus_jax.model.janus import build
from janus_jax.model.keys import Keys
from janus_jax.training import batch_shapes as bs
from janus_jax.training import frozen_reference, stage_data
from janus_jax.training import preference_loss as pl
from janus_jax.training.log_probabilities import log_probabilities
from janus_jax.training.preference_options import preference_problems
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import TrainState, new_state, update
from janus_jax.training.state import split as split_state
from janus_jax.training.stored_reference import StoredReference
from janus_jax.training.tasks import janus

PACKS = True
NARROWS = True
TEACHERS = ()
OPTIONS = pl.OPTIONS
VALIDATES = ("loss", "accuracy", *(f"{kind}_loss" for kind in bt.TASKS))
ENCODER = pair_encoder  # of the records: see stage_mixture.encoder
without = janus.without
for_devices = janus.for_devices


def problems(experiment: Experiment, name: str) -> list[str]:
    options = OPTIONS | experiment.stages[name].options
    found = preference_problems(experiment, name, options)
    return found or janus.problems(experiment, name)


def init_state(key, model: JanusConfig, tx, trainable, without=(), options=OPTIONS):
    janus_model = build(model, Keys(key))
    for name in without:
        delattr(janus_model, name)
    if pl.needs_reference(options) and not options["reference"]:
        frozen_reference.attach(janus_model, trainable)
    return new_state(*split_state(janus_model, trainable), tx)


def init_random(seed: int, model: JanusConfig, names: tuple[str, ...], options=OPTIONS) -> dict:
    return janus.init_random(seed, model, names)


def step(plan: StagePlan):
    return preference_step(plan, lambda model, key: model, frozen_reference.reference_of)


def preference_step(plan: StagePlan, policy_of, reference_of):
    """policy_of: (the state's model, a key of the microbatch) -> what learns; reference_of: the
    state's model -> what it is held to."""
    most = most_pairs(plan.stage.rows.length)
    kinds = tuple(kind for kind in bt.TASKS if getattr(plan.stage.ratio, kind))

    def preference_task_step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        """Pure."""
        counted = pl.pair_counts(batch, most)

        def of_part(model, part):
            key, batch = part
            sums = halves(plan, model, batch, lambda model: policy_of(model, key), reference_of)
            return pl.preference_loss(*sums, batch, counted, plan.options, kinds)

        key = jax.random.fold_in(jax.random.key(plan.experiment.seed), state.step)
        parts = plan.stage.accumulate
        if parts == 1:
            return update(state, plan.tx, lambda model: of_part(model, (key, batch)))
        split_batch = jax.tree.map(lambda x: sh.parts(x, parts), batch)
        return update(state, plan.tx, of_part, (jax.random.split(key, parts), split_batch))

    return preference_task_step


def halves(plan: StagePlan, model, batch: dict, policy_of, reference_of):
    """(log-probabilities of the halves of all pairs under the policy, and under its reference, None
    where there is none), float32 [B, P, 2]."""
    most = most_pairs(plan.stage.rows.length)
    ids = model.image_ids(batch)
    sums = lambda model: pl.of_halves(log_probabilities(model, batch, ids), batch, most)
    policy = sums(policy_of(model))
    if not pl.needs_reference(plan.options):
        return policy, None
    stored = batch.get("reference")
    reference = sums(reference_of(model)) if stored is None else stored
    return policy, jax.lax.stop_gradient(reference)


def validate(plan: StagePlan):
    return preference_sums(plan, lambda model: model, frozen_reference.reference_of)


def preference_sums(plan: StagePlan, policy_of, reference_of):
    """Means over pairs, without the cross-entropy of the chosen ones."""
    most = most_pairs(plan.stage.rows.length)

    def of_part(model, batch):
        policy, reference = halves(plan, model, batch, policy_of, reference_of)
        of = pl.facts(batch, most)
        each, rewards = pl.preference_losses(policy, reference, of["tokens"], plan.options)
        count = lambda there: there.sum().astype(jnp.float32)
        found = {
            f"{kind}_loss": (jnp.where(of[kind], each, 0).sum(), count(of[kind]))
            for kind in bt.TASKS
        }
        there = of["tokens"][..., 0] > 0
        right = there & (rewards[..., 0] > rewards[..., 1])
        whole = jnp.where(there, each, 0).sum(), count(there)
        return found | {"loss": whole, "accuracy": (count(right), count(there))}

    def sums(state, batch):
        parts = jax.tree.map(lambda x: sh.parts(x, plan.stage.accumulate), batch)
        each = jax.lax.map(lambda part: of_part(state.model(), part), parts)
        return jax.tree.map(jnp.sum, each)

    return sums


def batches(plan: StagePlan, sources: dict, processor, workdir, say) -> stage_data.StageData:
    """The stage's mixture of pairs, packed into this process's part of its batches."""
    data = stage_data.open_batches(plan, sources, processor, workdir, say)
    stored = StoredReference.of(plan, processor)
    if stored is not None:
        stored.require({entry.name: entry.source for entry in data.mixture.entries})
        of = stored.facts.get("weights")
        if not plan.held_out and of not in plan.stage.init:
            say(
                f"WARNING: {stored.folder}: its log-probabilities are of {of}, and stage {plan.name} begins "
                f"with {', '.join(plan.stage.init)}: the policy does not begin at its reference"
            )
    part = arrays.batch_share()[1] / jax.process_count()
    most = most_pairs(plan.stage.rows.length)

    def next_batch(i):
        batch, examples = next(data)
        batch = split(batch, processor.tokenizer.bos)
        how = plan.experiment.model, plan.stage.trainable, plan.adapted
        seen = janus.batch_facts(of_chosen(batch), examples, *how)
        if stored is not None:
            batch["reference"] = stored.rows(data.mixture.entries, examples, data.numbers, most)
        return arrays.put_batch(batch), {key: part * n for key, n in seen.items()}

    return stage_data.StageData(next_batch, data.stats, data.mixture, data)


def batch_shapes(plan: StagePlan) -> dict:
    rows = plan.stage.rows
    shapes = janus.batch_shapes(plan)
    if plan.options["reference"]:
        of_pairs = (rows.count, most_pairs(rows.length), 2), np.float32
        shapes |= bs.abstract({"reference": of_pairs})
    return shapes


def read_first(plan: StagePlan, processor):
    read = janus.read_first(plan, processor)
    stored = StoredReference.of(plan, processor)

    def read_pair(line, source, index: int) -> str:
        if stored is not None:
            lines = plan.experiment.data.datasets.items()
            stored.require({name: source for name, one in lines if one is line})
        return f"a pair of {read(line, source, index)}"

    return read_pair


def export(plan: StagePlan, directory, params: dict, processor):
    learned = {name: x for name, x in params.items() if name != "reference"}
    janus.export(plan, directory, learned, processor)
