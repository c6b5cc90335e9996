"""Training the semantic tokenizer (the paper's appendix A): task vq with all its options, and a
causal ViT on the codes that learns by a cosine what a frozen SigLIP says of the same picture.

Gradients of the cosine pass straight through the nearest code into the encoder, as BEiT-v2's do
(arXiv 2208.06366, section 2.2): codes are chosen for what they mean too. The codebook learns by its
own term alone.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.config.schema import Experiment
from janus_jax.model import sharding as sh
from janus_jax.model.config import JanusConfig
from janus_jax.model.generation_encoder import normalise
from janus_jax.model.keys import Keys
from janus_jax.model.layers import Linear
from janus_jax.model.semantic_decoder import SemanticDecoder
from janus_jax.model.understanding_encoder import encoder
from janus_jax.training import optim, picture_stages
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import new_state
from janus_jax.training.tasks import vq
from janus_jax.training.tokenizer_loss import Painted, tokenizer_terms
from janus_jax.weights.load import export as export_weights
from janus_jax.weights.table import WeightsError

PACKS = False
NARROWS = False
TEACHERS = ("understanding_encoder",)
VALIDATES = (*vq.VALIDATES, "semantic")  # and no cosine: of a loss, less is better
OPTIONS = vq.OPTIONS | {"semantic": 0.25}  # weight of the semantic loss (appendix A)
LEARNS = (*vq.LEARNS, "semantic_decoder", "semantic_head")
TRAINABLE = ("generation_encoder", "semantic_decoder")  # of the model's children
without = vq.without
for_devices = vq.for_devices
batches = vq.batches
batch_shapes = vq.batch_shapes
read_first = vq.read_first


class SemanticTokenizer(vq.Tokenizer):
    """What a stage's state holds, named as in `Janus` where Janus has it. `semantic_head` leads from
    the semantic decoder's width to that of its teacher, `understanding_encoder`."""

    def __init__(self, model: JanusConfig, options: dict, rngs):
        super().__init__(model, options, rngs)
        tower = model.understanding_encoder
        box = model.semantic_decoder
        how = model.dtype, model.remat
        self.semantic_decoder = SemanticDecoder(model.generation_encoder, box, *how, rngs)
        self.semantic_head = Linear(box.width, tower.width, sh.W_DD, sh.ACT_BTD, model.dtype, rngs)
        self.understanding_encoder = encoder(tower, *how, "plain", rngs)


def mean_cosine(model: SemanticTokenizer, painted: Painted):
    """Between what the head makes of each code and the teacher's features of its patch after the
    teacher's last LayerNorm: float32, the mean over all tokens. Pictures in [-1, 1] are what SigLIP
    was trained on."""
    codes = painted.codes
    flat = codes.reshape(len(codes), -1, codes.shape[-1])
    said = model.semantic_head(model.semantic_decoder(flat))  # [B, N, C]
    taught = jax.lax.stop_gradient(model.understanding_encoder(painted.seen))  # [B, N, C]
    unit = lambda features: normalise(features.astype(jnp.float32))
    return jnp.mean(jnp.sum(unit(said) * unit(taught), -1))


def semantic_terms(model: SemanticTokenizer, painted: Painted, options: dict):
    """(the summand that the loss has more than task vq's, by name; metrics)."""
    cosine = mean_cosine(model, painted)
    return {"semantic": options["semantic"] * (1 - cosine)}, {"cosine": cosine}


# The task.


def problems(experiment: Experiment, name: str) -> list[str]:
    stage = experiment.stages[name]
    path = f"stages.{name}"
    found = picture_stages.field_problems(experiment, name)
    found += picture_stages.code_problems(experiment, name)
    if sorted(stage.trainable) != sorted(TRAINABLE):
        found.append(
            f"{path}.trainable is {stage.trainable}: task semantic trains the tokenizer and its "
            f"semantic decoder, with the head that the teacher is compared with; set it to {TRAINABLE}"
        )
    if stage.options.get("ema"):
        found.append(
            f"{path}.options.ema is {stage.options['ema']}: the semantic decoder learns the codes of "
            "the weights as they are, not of their average; leave it out"
        )
    if stage.options.get("semantic") == 0:
        found.append(
            f"{path}.options.semantic is 0: the semantic decoder would learn nothing and be handed on "
            "as it was drawn at random; that is task vq, so set task to vq, or give a weight, as the "
            "paper's 0.25"
        )
    if not stage.init:
        found.append(
            f"{path}.init is empty: task semantic learns from a SigLIP that knows something; name "
            f"weights that hold {TEACHERS[0]}, such as weights/siglip_l16_384"
        )
    return found + _grid_problems(experiment.model) + _decoder_problems(experiment)


def _grid_problems(model: JanusConfig) -> list[str]:
    """How the teacher's tokens are not the tokenizer's, one to one."""
    tokenizer = model.generation_encoder
    tower = model.understanding_encoder
    found = []
    if tower.image_size != tokenizer.image_size:
        found.append(
            f"model.understanding_encoder.image_size is {tower.image_size}, "
            f"model.generation_encoder.image_size {tokenizer.image_size}: the teacher sees the very "
            "picture that the tokenizer encodes; give both the size that the teacher's weights are "
            "of"
        )
    if tower.patch_size != tokenizer.stride:
        found.append(
            f"model.understanding_encoder.patch_size is {tower.patch_size}, and a code of "
            f"model.generation_encoder stands for {tokenizer.stride} pixels a side, 2 to the number "
            "of its multipliers less one: each code learns what the teacher says of its own patch; "
            f"take a teacher with patches of {tokenizer.stride}, or other multipliers"
        )
    return found


def _decoder_problems(experiment: Experiment) -> list[str]:
    """What of the semantic decoder's sizes its heads, or the mesh, cannot split; told of every model
    that draws or understands by it already."""
    model = experiment.model
    box = model.semantic_decoder
    if "semantic_decoder" in model.children or min(vars(box).values()) < 1:
        return []
    path = "model.semantic_decoder"
    found = []
    if box.width % box.heads:
        found.append(f"{path}.width is {box.width}: must be a multiple of heads = {box.heads}")
    tensor = max(experiment.mesh.tensor, 1)
    return found + [
        f"{path}.{n} is {getattr(box, n)}: must be a multiple of mesh.tensor = {tensor}"
        for n in ("heads", "width", "mlp_width")
        if getattr(box, n) % tensor
    ]


def init_state(key, model: JanusConfig, tx, trainable=(), without=(), options=OPTIONS):
    graphdef, params = nnx.split(SemanticTokenizer(model, options, Keys(key)))
    params = nnx.to_pure_dict(params)
    learns = {name: params.pop(name) for name in LEARNS if name in params}
    return new_state(graphdef, learns, params, tx)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _draw(key, model: JanusConfig, names: tuple[str, ...], options: tuple) -> dict:
    params = nnx.to_pure_dict(nnx.state(SemanticTokenizer(model, dict(options), Keys(key))))
    return {name: params[name] for name in names}


def init_random(seed: int, model: JanusConfig, names: tuple[str, ...], options=OPTIONS) -> dict:
    """Raises WeightsError where the teacher is asked for: random weights teach nothing."""
    if missing := set(TEACHERS) & set(names):
        raise WeightsError(
            f"no directory of the stage's init holds {', '.join(missing)}, the teacher of task "
            "semantic; name weights that do, such as weights/siglip_l16_384"
        )
    return _draw(jax.random.key(seed), model, names, tuple(options.items()))


def step(plan: StagePlan):
    tx = optim.make(plan.stage.optim, plan.stage.steps, each=True)
    return functools.partial(vq.vq_step, tx=tx, options=plan.options, also=semantic_terms)


def validate(plan: StagePlan):
    def sums(state, batch):
        model = state.model()
        terms, painted = tokenizer_terms(model.generation_encoder, batch, plan.options)
        more, metrics = semantic_terms(model, painted, plan.options)
        terms |= more
        means = {"loss": sum(terms.values()), **terms, **metrics}
        n = jnp.float32(len(batch["images"]))
        return {name: (means[name] * n, n) for name in VALIDATES if name in means}

    return sums


def export(plan: StagePlan, directory, params: dict, processor):
    """All that has learned. Stages of Janus take the tokenizer and its semantic decoder; the head
    and the discriminator are for a stage that goes on here. The teacher is where `init` found it."""
    learned = {name: params[name] for name in LEARNS if name in params}
    export_weights(directory, learned, part_of=plan.model)
