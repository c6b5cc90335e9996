"""The options of task grpo, and what of a stage it cannot work with."""

import dataclasses

from janus_jax.config.schema import Experiment
from janus_jax.data.sources import SourceError
from janus_jax.training.grpo_loss import AVERAGES, SCALES
from janus_jax.training.rewards import RewardError, require_weights, reward_problems

OPTIONS = {
    "group": 8,  # drawings, or answers, of a prompt, which are compared with each other
    "updates": 1,  # of the weights, by each step's rollout
    "temperature": 1.0,  # of drawings and answers
    "cfg_scale": 1.0,  # guidance of drawings: what is drawn and learned is the guided distribution
    "clip_low": 0.2,  # a ratio below 1 - clip_low, or above 1 + clip_high, pulls no further
    "clip_high": 0.2,  # DAPO's clip-higher is 0.28 (arXiv 2503.14476)
    "kl": 0.01,  # weight of the divergence from the reference; 0: there is no reference
    "average": "example",  # or token (DAPO), length (Dr. GRPO), see grpo_loss.token_weights
    "scale": "deviation",  # or none (Dr. GRPO), see grpo_loss.advantages
    "resample": 0,  # rounds in which prompts of equal rewards are replaced (DAPO's dynamic sampling)
    "rewards": "",  # of drawings, see rewards.py
    "answer_rewards": "",  # of answers
    "max_new_tokens": 16,  # of an answer
    "rollout_rows": 0,  # of the cache, written at once; 0: see sample/cache.py
    "rollout_weights": "split",  # or whole: on every device, so that a token moves none of them
    # Weights; empty: those that the stage begins with; EMA: the average that optim.ema keeps.
    "reference": "",
    "entropy_floor": 0.001,  # nats an id: below it a policy has collapsed, which is said
    "sheet_every": 0,  # steps between two sheets of the best and worst drawings of SHEET prompts
    "timeout": 30.0,  # seconds of a request for rewards over http
    "retries": 2,  # of such a request
}  # fmt: skip
EMA = "ema"
KINDS = {"generation": ("drawing", "rewards"), "understanding": ("answering", "answer_rewards")}


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of a step: `drawings` and `answers`, both multiples of `group`. A row has one of them."""

    drawings: int
    answers: int
    group: int

    @classmethod
    def of(cls, stage, options: dict) -> "Counts":
        shares = stage.ratio
        draws = shares.generation / (shares.generation + shares.understanding)
        drawings = round(stage.rows.count * draws)
        return cls(drawings, stage.rows.count - drawings, int(options["group"]))


def grpo_problems(experiment: Experiment, name: str) -> list[str]:
    """What of a stage's values the task cannot work with, a line each."""
    stage = experiment.stages[name]
    path = f"stages.{name}"
    options = OPTIONS | stage.options
    found = _model_problems(experiment, name) + _option_problems(f"{path}.options", options)
    if stage.ratio.text:
        found.append(f"{path}.ratio.text is {stage.ratio.text:g}: task grpo draws, and answers about "
                     "pictures; set it to 0")  # fmt: skip
    for kind, (what, field) in KINDS.items():
        if getattr(stage.ratio, kind):
            found += reward_problems(f"{path}.options.{field}", what, str(options[field]))
        elif options[field]:
            found.append(
                f"{path}.options.{field} is {options[field]!r} and {path}.ratio.{kind} 0: no output of "
                f"{what} is made; leave it out, or give ratio.{kind} a share"
            )
    found += [
        f"{path}.{field} is {getattr(stage, field)!r}: task grpo reads no such field; leave it out, or "
        f"set it to {other!r}"
        for field, default, other in (
            ("supervise", "all", "all"), ("condition_dropout", 0.1, 0.0), ("first_sentence", 0.25, 0.0),
        )
        if getattr(stage, field) not in (default, other)
    ]  # fmt: skip
    return found + (_count_problems(stage, path, options) if stage.rows and not found else [])


def require_rewards(name: str, options: dict):
    """Raises SourceError where weights that score the drawings of stage `name` are not there, or not
    of that kind."""
    try:
        if options["rewards"]:
            require_weights(f"stages.{name}.options.rewards", str(options["rewards"]))
    except RewardError as error:
        raise SourceError(str(error)) from None


def _model_problems(experiment: Experiment, name: str) -> list[str]:
    model = experiment.model
    path = f"stages.{name}"
    wrong = {
        "model.image_head": model.image_head != "softmax",
        "model.drawing": model.drawing != "causal",
        "model.senses": bool(model.senses),
        "model.generation_encoder.sizes": bool(model.generation_encoder.sizes),
        "model.understanding or model.generation": not model.is_janus,
    }
    found = [
        f"{field}: task grpo learns of ids that a plain Janus draws one after the other, and this "
        "model does not; train with task janus"
        for field, bad in wrong.items()
        if bad
    ]
    if model.understanding_encoder.tiles > 1 and experiment.stages[name].ratio.understanding:
        found.append(
            f"model.understanding_encoder.tiles is {model.understanding_encoder.tiles}: task grpo asks "
            "about pictures of one tile; set tiles to 1, or ratio.understanding to 0"
        )
    if coded := {"generation_encoder", "semantic_decoder"} & set(experiment.stages[name].trainable):
        found.append(
            f"{path}.trainable has {', '.join(coded)}: no reward reaches the tokenizer; leave it out"
        )
    stage = experiment.stages[name]
    if stage.options.get("reference") == EMA and not stage.optim.ema:
        found.append(
            f"{path}.options.reference is {EMA!r} and {path}.optim.ema 0: no average of the policy is kept; "
            "set optim.ema, such as 0.99, or name another reference"
        )
    if experiment.stages[name].rows is None:
        found.append(f"{path}.rows: missing; task grpo has an example a row: give count and length")
    if experiment.stages[name].optim.ema and experiment.stages[name].options.get("updates", 1) != 1:
        found.append(
            f"{path}.optim.ema averages each update; with options.updates above 1 set it to 0"
        )
    return found


def _option_problems(path: str, options: dict) -> list[str]:
    found = []
    for field in (
        "group", "updates", "max_new_tokens", "resample", "sheet_every", "retries", "rollout_rows"
    ):  # fmt: skip
        least = {"group": 2, "updates": 1, "max_new_tokens": 1}.get(field, 0)
        if options[field] != int(options[field]) or options[field] < least:
            why = "; one drawing cannot be compared with another" if field == "group" else ""
            found.append(
                f"{path}.{field} is {options[field]:g}: must be a whole number, {least} or more{why}"
            )
    for field, known in (
        ("average", AVERAGES), ("scale", SCALES), ("rollout_weights", ("split", "whole"))
    ):  # fmt: skip
        if options[field] not in known:
            found.append(f"{path}.{field} is {options[field]!r}: must be one of {', '.join(known)}")
    for field in ("temperature", "timeout"):
        if not options[field] > 0:
            found.append(f"{path}.{field} is {options[field]:g}: must be above 0")
    if not 0 < options["clip_low"] <= 1 or not options["clip_high"] > 0:
        found.append(
            f"{path}.clip_low is {options['clip_low']:g} and clip_high {options['clip_high']:g}: must "
            "be above 0, clip_low at most 1 (0.2 and 0.2; DAPO's 0.2 and 0.28)"
        )
    if options["reference"] and not options["kl"]:
        found.append(f"{path}.reference is given and kl 0: nothing reads it; give kl a weight")
    return found


def _count_problems(stage, path: str, options: dict) -> list[str]:
    counts = Counts.of(stage, options)
    found = []
    if stage.batch_size != stage.rows.count:
        found.append(
            f"{path}.batch_size is {stage.batch_size} and {path}.rows.count {stage.rows.count}: task "
            "grpo has an example a row; give both the same number"
        )
    for what, n in (("drawings", counts.drawings), ("answers", counts.answers)):
        if n % counts.group:
            found.append(
                f"{path}.rows.count is {stage.rows.count}, of which {n} are {what} by the ratio: must be a "
                f"multiple of options.group, {counts.group}"
            )
    for field, n in (
        ("generation_images", counts.drawings), ("understanding_images", counts.answers)
    ):  # fmt: skip
        if getattr(stage.rows, field) != bool(n):
            found.append(
                f"{path}.rows.{field} is {getattr(stage.rows, field)}: a row has one example; "
                f"set it to {int(bool(n))}"
            )
    return found
