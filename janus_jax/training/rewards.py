"""What drawings and answers are worth: rewards of reinforcement learning behind one protocol.

A reward is a function (prompts, outputs) -> float32 [n]: prompts are `Asked`, outputs PIL pictures of
drawings or the texts of answers. It is named in a config by NAME, by `siglip:PATH` (weights,
`rewards_siglip.py`), by `package.module:function`, or by a http address (`rewards_http.py`); several
stand with their weights, "shapes=1+self=0.5".
"""

import dataclasses
import importlib
import re
from collections.abc import Callable

import numpy as np

from janus_jax.common.text import near

OWN = {  # what comes with the package, by what it scores
    "drawing": {"shapes": "rewards_shapes:shapes_reward", "self": "rewards_self:self_reward"},
    "answering": {"match": "rewards_words:words_reward", "number": "rewards_words:words_reward"},
}
SIGLIP = "siglip:"  # and the path of weights
PATIENCE = 20  # steps in a row without a difference in any group, after which it is said
FAILED = 5  # steps in a row in which a reward left no group whole: the run ends


class RewardError(ValueError):
    """A reward cannot be used, or not any more. Names it, and says what it gave."""

    exit_code = "data"


@dataclasses.dataclass(frozen=True)
class Asked:
    """words: a prompt to draw, or a question; answer: the right one, empty where nobody knows it;
    picture: what the question is about, uint8 [H, W, 3] or PIL."""

    words: str
    answer: str = ""
    picture: object = None


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A reward, its name and its share of the sum."""

    name: str
    weight: float
    reward: Callable


def parsed(text: str) -> list[tuple[str, float]]:
    """(name, weight) of each reward in "shapes=1+http://host/score=0.5"; a weight that is not given
    is 1. Raises ValueError for a weight that is 0 or no number, and for none at all."""
    found = []
    for part in filter(None, re.split(r"\+(?=[a-zA-Z])", text)):
        name, _, weight = part.rpartition("=")
        query = part.partition("?")[2]
        if query and query.count("=") <= query.count("&") + 1:
            name, weight = "", part  # the last "=" is the address's own
        try:
            pair = (name, float(weight)) if name else (weight, 1.0)
        except ValueError:
            pair = (part, 1.0)
        if not 0 < pair[1] < float("inf"):
            raise ValueError(f"{part!r}: the weight of a reward is a finite number above 0")
        found.append(pair)
    names = [name for name, _ in found]
    if not found or len(set(names)) < len(names):
        raise ValueError("names no reward, or one twice")
    return found


def reward_problems(path: str, kind: str, text: str) -> list[str]:
    """What is wrong with the rewards of a config's field. kind: "drawing" or "answering"."""
    try:
        names = parsed(text)
    except ValueError as error:
        return [f"{path} is {text!r}: {error}; {_known(kind)}"]
    found = []
    for name, _ in names:
        if name in OWN[kind] or name.startswith(("http://", "https://")):
            continue
        if name.startswith(SIGLIP):
            found += _siglip_problems(path, kind, name)
            continue
        if ":" not in name:
            found.append(
                f"{path} has {name!r}: no reward of {kind}{near(name, OWN[kind])}; or give "
                "siglip:PATH of weights, package.module:function, or an address http://..."
            )
            continue
        try:
            _function(name)
        except (ImportError, AttributeError) as error:
            found.append(f"{path} has {name!r}: cannot be imported ({error})")
    return found


def _siglip_problems(path: str, kind: str, name: str) -> list[str]:
    if kind != "drawing":
        return [f"{path} has {name!r}: that scores pictures, and here are answers; {_known(kind)}"]
    if name == SIGLIP:
        return [
            f"{path} has {name!r}, without a path; give that of weights, such as "
            f"{SIGLIP}runs/siglip/siglip"
        ]
    return []


def _known(kind: str) -> str:
    return f"give one such as {', '.join(OWN[kind])}"


def require_weights(path: str, text: str):
    """Raises RewardError where weights that a config's field names cannot score. Nothing is read of
    them but what they hold."""
    for name, _ in parsed(text):
        if name.startswith(SIGLIP):
            pair = importlib.import_module("janus_jax.training.rewards_siglip")
            try:
                pair.opened_pair(name.removeprefix(SIGLIP))
            except RewardError as error:
                raise RewardError(f"{path} has {name!r}: {error}") from None


def _function(name: str) -> Callable:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def opened(kind: str, text: str, **how) -> list[Weighted]:
    """The rewards of a config's field. how: what those of the package need, by name: ask, which asks
    Janus about pictures (self); timeout, retries, say (http)."""
    found = []
    for name, weight in parsed(text):
        if name in OWN[kind]:
            reward = _function(f"janus_jax.training.{OWN[kind][name]}")(name, **how)
        elif name.startswith(SIGLIP):
            pair = importlib.import_module("janus_jax.training.rewards_siglip")
            reward = pair.siglip_reward(name.removeprefix(SIGLIP))
        elif name.startswith(("http://", "https://")):
            http = importlib.import_module("janus_jax.training.rewards_http")
            reward = http.HttpReward(name, how["timeout"], int(how["retries"]), how["say"])
        else:
            reward = _function(name)
        found.append(Weighted(name, weight, reward))
    return found


class Scorer:
    """Scores the outputs of a step by several rewards, and watches each of them.

    kind: "drawing" or "answering". say: hears what is wrong, by the reward's name.
    """

    def __init__(self, kind: str, rewards: list[Weighted], say: Callable):
        self.kind = kind
        self.rewards = rewards
        self.say = say
        self.flat = dict.fromkeys((r.name for r in rewards), 0)
        self.failed = dict.fromkeys((r.name for r in rewards), 0)

    def __call__(self, prompts: list[Asked], outputs: list) -> dict[str, np.ndarray]:
        """ "" -> the weighted sum, float32 [n], and the name of each reward -> its own; NaN where a
        reward has failed, so that the sum is NaN as well and nothing is learned of the group. Raises
        RewardError for a reward of another length."""
        found = {r.name: self._of(r, prompts, outputs) for r in self.rewards}
        total = sum((r.weight * found[r.name] for r in self.rewards), np.zeros(len(outputs)))
        return {"": np.asarray(total, np.float32)} | found

    def _of(self, r: Weighted, prompts: list[Asked], outputs: list) -> np.ndarray:
        try:
            given = np.asarray(r.reward(prompts, outputs), np.float32)
        except RewardError:
            raise
        except Exception as error:  # whatever a user's function raises: no zero is made of it
            self.say(
                f"WARNING: reward {r.name} failed for {len(outputs)} outputs of {self.kind} "
                f"({type(error).__name__}: {error}); nothing is learned of them"
            )
            return np.full(len(outputs), np.nan, np.float32)
        if given.shape != (len(outputs),):
            raise RewardError(
                f"reward {r.name} gave an array of shape {given.shape} for {len(outputs)} outputs of "
                f"{self.kind}: it has to give one number for each; mend the reward"
            )
        if bad := int((~np.isfinite(given)).sum()):
            self.say(
                f"WARNING: reward {r.name} gave no finite number for {bad} of {len(given)} outputs of "
                f"{self.kind}: nothing is learned of their groups"
            )
        return np.where(np.isfinite(given), given, np.nan).astype(np.float32)

    def watch(self, step: int, by_name: dict[str, np.ndarray]):
        """Says where a reward has told nothing apart for PATIENCE steps. Raises RewardError where one
        has left no group whole in FAILED steps in a row.

        by_name: of the step, each reward's float32 [groups, G]."""
        for r in self.rewards:
            rewards = by_name[r.name]
            good = rewards[np.isfinite(rewards).all(1)]
            self.failed[r.name] = 0 if len(good) else self.failed[r.name] + 1
            if self.failed[r.name] >= FAILED:
                raise RewardError(
                    f"reward {r.name} has left no group of {self.kind} whole in {FAILED} steps up to "
                    f"step {step}: nothing can be learned; mend it (see the WARNING lines), and start "
                    "the same command again: it goes on from the last checkpoint"
                )
            flat = len(good) > 0 and not (np.ptp(good, axis=1) > 0).any()
            self.flat[r.name] = self.flat[r.name] + 1 if flat else 0
            if self.flat[r.name] and self.flat[r.name] % PATIENCE == 0:
                same = f"always {good.flat[0]:g}" if np.ptp(good) == 0 else "equal in every group"
                self.say(
                    f"WARNING: reward {r.name} of {self.kind} was {same} for {PATIENCE} steps up to "
                    f"step {step}: it tells nothing apart, and nothing is learned of it; are the "
                    "prompts too hard or too easy, or does the reward not read these outputs?"
                )
