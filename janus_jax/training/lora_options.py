"""The options of task lora, which linear maps they choose, and which of them cannot be."""

import dataclasses
import fnmatch
import re

from janus_jax.common.text import near
from janus_jax.config.schema import Experiment
from janus_jax.model.config import JanusConfig
from janus_jax.model.low_rank import LOGITS, linears, scaling

BASES = ("", "float32", "bfloat16", "int8")
OPTIONS = {
    "keep": "",  # as of task janus
    "rank": 16,  # columns of a, and rows of b
    # A pair's product is multiplied by alpha / rank, or with rslora 1 by alpha / sqrt(rank).
    "alpha": 32,
    "rslora": 0,
    "dropout": 0.0,  # probability that an input of a pair is left out
    # Words of WORDS and patterns of paths such as "transformer/*/q", with commas between them.
    "targets": "attention,mlp",
    # What weights that do not learn are kept in; int8 of linear maps alone. Empty: the compute type.
    "base": "",
}
WORDS = {
    "attention": ("transformer/*/attention/*",),
    "mlp": ("transformer/*/gate", "transformer/*/up", "transformer/*/down"),
    "adaptors": ("understanding_adaptor/*", "generation_adaptor/*"),
    "tower": ("understanding_encoder/*",),
    "heads": ("text_head/*", "image_head/*"),
}


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """What a stage's options mean. paths: of the linear maps with a pair; dtype: of the base's
    matrices, as far as they are not int8."""

    paths: tuple[str, ...]
    rank: int
    scaling: float
    dropout: float
    dtype: str
    int8: bool


def adaptation(options: dict, model: JanusConfig, trainable: tuple[str, ...]) -> Adaptation:
    """Of options without problems. What `trainable` names learns whole, without pairs."""
    base = options["base"]
    return Adaptation(
        paths=tuple(
            path
            for path in linears(model)
            if path.split("/")[0] not in trainable
            and any(_matches(path, pattern) for pattern in _patterns(options["targets"]))
        ),
        rank=int(options["rank"]),
        scaling=scaling(int(options["rank"]), options["alpha"], bool(options["rslora"])),
        dropout=options["dropout"],
        dtype=model.dtype if base in ("", "int8") else base,
        int8=base == "int8",
    )


def _patterns(targets: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", targets) if word]


def _matches(path: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(path, one) for one in WORDS.get(pattern, (pattern,)))


def lora_problems(experiment: Experiment, name: str) -> list[str]:
    """What of the options of stage `name` cannot be, by itself or beside the rest, a line each."""
    stage = experiment.stages[name]
    path = f"stages.{name}.options"
    o = OPTIONS | stage.options
    found = []
    if o["rank"] < 1 or o["rank"] % 1:
        found.append(f"{path}.rank is {o['rank']}: must be a whole number, 1 or more")
    if not o["alpha"]:
        found.append(f"{path}.alpha is 0: the pairs would change nothing; give rank or twice that")
    if o["rslora"] not in (0, 1):
        found.append(
            f"{path}.rslora is {o['rslora']}: 1 for alpha / sqrt(rank), 0 for alpha / rank"
        )
    if not 0 <= o["dropout"] < 1:
        found.append(f"{path}.dropout is {o['dropout']}: a probability lies in [0, 1)")
    if o["base"] not in BASES:
        found.append(f"{path}.base is {o['base']!r}: unknown{near(o['base'], BASES[1:])}")
    return found + _target_problems(f"{path}.targets", o, experiment.model, stage.trainable)


def _target_problems(path: str, o: dict, model: JanusConfig, trainable) -> list[str]:
    there = linears(model)
    patterns = _patterns(o["targets"])
    if not patterns:
        return [f"{path} is empty: no linear map would get a pair; give {OPTIONS['targets']!r}"]
    found = []
    for pattern in patterns:
        hit = [x for x in there if _matches(x, pattern)]
        if not hit:
            known = [*WORDS, *there]
            found.append(f"{path} has {pattern!r}, which no linear map fits{near(pattern, known)}")
        elif not (paired := [x for x in hit if x.split("/")[0] not in trainable]):
            children = ", ".join(sorted({x.split("/")[0] for x in hit}))
            found.append(
                f"{path} has {pattern!r}, all of {children}, which trainable trains whole; take one "
                "of the two out"
            )
        elif o["dropout"] and (logits := [x for x in paired if x in LOGITS]):
            found.append(
                f"{path} has {', '.join(logits)}, and dropout is {o['dropout']}: the loss takes these "
                "maps' kernels, whose inputs it cannot leave out; set dropout to 0, or name what else "
                f"{pattern!r} stands for, such as image_head/fc1"
            )
    return found
