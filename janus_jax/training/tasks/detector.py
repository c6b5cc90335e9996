"""Training the detector that reads drawings of the scenes world, whose accuracy stands beside every
score that it gives."""

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.config.schema import Experiment
from janus_jax.data import scene_batches
from janus_jax.data.sources import SourceError
from janus_jax.data.toy.scenes import GROUNDS, SIZES, THINGS
from janus_jax.distributed import arrays
from janus_jax.model.config import JanusConfig
from janus_jax.model.detector import STRIDE, Detector
from janus_jax.model.keys import Keys
from janus_jax.training import batch_shapes as bs
from janus_jax.training import stage_data, stage_mixture
from janus_jax.training.detector_loss import detector_loss
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import new_state, update
from janus_jax.weights.load import export as export_weights

PACKS = False
NARROWS = False
TEACHERS = ()
VALIDATES = ("loss", "thing_accuracy")
OPTIONS = {}


class _Holder(nnx.Module):
    """Holds the detector as a child, so that its weights have a name."""

    def __init__(self, rngs: nnx.Rngs):
        self.detector = Detector(len(THINGS), len(SIZES), len(GROUNDS), rngs)


def problems(experiment: Experiment, name: str) -> list[str]:
    stage = experiment.stages[name]
    path = f"stages.{name}"
    found = []
    if stage.trainable != ("detector",):
        found.append(
            f"{path}.trainable is {stage.trainable}: task detector trains the detector alone; set it "
            "to ('detector',)"
        )
    if stage.ratio.understanding or stage.ratio.text:
        asked = ":".join(f"{share:g}" for share in vars(stage.ratio).values())
        found.append(
            f"{path}.ratio is {asked}: task detector learns from scenes of generation alone; set it "
            "to 0:0:1"
        )
    found += [
        f"data.datasets.{dataset}.path is {line.path!r}: task detector learns from scenes of all "
        "combinations alone, as it has to judge them all alike; give scenes:all"
        for dataset, line in experiment.data.drawn_by(name).items()
        if line.kind == "generation" and line.path != "scenes:all"
    ]
    side = experiment.model.generation_encoder.image_size
    if side % (2 * STRIDE):
        found.append(
            f"model.generation_encoder.image_size is {side}: the detector halves it three times; give "
            f"a multiple of {2 * STRIDE}"
        )
    unused = {
        "rows": None, "accumulate": 1, "supervise": "all", "condition_dropout": 0.1, "first_sentence": 0.25
    }  # fmt: skip
    found += [
        f"{path}.{field} is {getattr(stage, field)!r}: task detector reads no such field; leave it out"
        for field, default in unused.items()
        if getattr(stage, field) != default
    ]
    if name == list(experiment.stages)[-1] and experiment.evaluation.count:
        found.append(
            f"evaluation.count is {experiment.evaluation.count}: the last stage, {name}, hands on "
            "the detector alone, which neither draws nor answers; set it to 0"
        )
    return found


def without(experiment: Experiment, name: str) -> tuple[str, ...]:
    return ()  # its state has no other child in the first place


def init_state(key, model: JanusConfig, tx, trainable=(), without=(), options=OPTIONS):
    """Random weights of the detector alone."""
    graphdef, params = nnx.split(_Holder(Keys(key)))
    return new_state(graphdef, nnx.to_pure_dict(params), {}, tx)


@jax.jit
def _draw(key) -> dict:
    return nnx.to_pure_dict(nnx.state(_Holder(Keys(key))))


def init_random(seed: int, model: JanusConfig, names: tuple[str, ...], options=OPTIONS) -> dict:
    return _draw(jax.random.key(seed + 3))


def for_devices(plan: StagePlan, say) -> StagePlan:
    return plan


def step(plan: StagePlan):
    loss = lambda batch: lambda model: detector_loss(model.detector, batch)
    return lambda state, batch: update(state, plan.tx, loss(batch))


def validate(plan: StagePlan):
    def sums(state, batch):
        loss, metrics = detector_loss(state.model().detector, batch)
        pictures = jnp.float32(len(batch["images"]))
        things = (batch["things"] >= 0).sum().astype(jnp.float32)
        return {
            "loss": (loss * pictures, pictures),
            "thing_accuracy": (metrics["thing_accuracy"] * things, things),
        }

    return sums


def batches(plan: StagePlan, sources: dict, processor, workdir, say) -> stage_data.StageData:
    """Scenes by (seed, step) alone, this process's part of each step's. Raises SourceError for a
    data set without scenes."""
    mixture = stage_mixture.mixture_of(plan, stage_mixture.entries_of(plan, sources))
    others = [e.name for e in mixture.entries if not scene_batches.shows_scenes(e.source)]
    if others:
        raise SourceError(
            f"data.datasets: {', '.join(others)}: does not say what is in its pictures, which task "
            "detector learns; give scenes:all"
        )
    found = scene_batches.SceneBatches(
        mixture,
        plan.model.generation_encoder.image_size,
        *arrays.batch_share(),
        stage_data.read_stats(plan, mixture, workdir, say),
        clean=plan.held_out,
    )
    part = {"images": plan.stage.batch_size / jax.process_count()}
    next_batch = lambda i: (arrays.put_batch(found[i]), part)
    return stage_data.StageData(next_batch, found.stats, mixture)


def batch_shapes(plan: StagePlan) -> dict:
    side = plan.model.generation_encoder.image_size
    return bs.abstract(scene_batches.shapes(plan.stage.batch_size, side))


def read_first(plan: StagePlan, processor):
    def read(line, source, index: int) -> str:
        return f"picture of {len(scene_batches.scene_of(source, index).drawings)} drawings"

    return read


def export(plan: StagePlan, directory, params: dict, processor):
    export_weights(directory, params)
