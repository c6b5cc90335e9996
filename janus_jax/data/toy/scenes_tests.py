"""What the test asks of the world of scenes, of held-out combinations and of others: questions and
prompts."""

import dataclasses
import math
from collections import Counter

import numpy as np

from janus_jax.data.toy.scenes import MAKEUPS, Scene, random_scene
from janus_jax.data.toy.scenes_words import (
    ANSWERS,
    QUESTIONS,
    absent,
    clear_relation,
    describe,
    lead,
    relation,
)

SPLITS = {"held_out": True, "seen": False}
PROMPTS = ("one", "count", "two", "groups", "relation")
ASPECTS = ("things", "counts", "sizes", "ground", "relation", "overall")


def questions(count: int, seed: int, held_out: bool) -> list[tuple[str, Scene, str, str]]:
    """(kind, scene, question, answer): `count` of each kind, the answers of a kind equally often as
    far as they come out even. Those of existence come in pairs about one scene, yes and no."""
    rng = np.random.default_rng((seed, 1, held_out))
    out = []
    for kind in QUESTIONS:
        if kind == "exists":
            out += [one for _ in range(count // 2) for one in _pair(rng, held_out)]
            continue
        most = math.ceil(count / len(ANSWERS[kind]))
        asked = Counter()
        while asked.total() < count:
            scene, (question, answer) = lead(rng, kind, held_out)
            if asked[answer] < most:
                asked[answer] += 1
                out.append((kind, scene, question, answer))
    return out


def _pair(rng, held_out: bool) -> list:
    while True:
        scene, (question, answer) = lead(rng, "exists", held_out)
        if answer == "yes":
            return [("exists", scene, *turn) for turn in ((question, answer), absent(rng, scene))]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What is drawn.

    Args:
        task: one of PROMPTS.
        text: the prompt.
        scene: one that fits.
        relation: how its first thing lies to its second, where the text says so.
    """

    task: str
    text: str
    scene: Scene
    relation: str | None = None

    def fits(self, found: Scene) -> dict[str, bool]:
        """What of a drawing is right, by what was found in it: which things there are and no
        others, how many of each, all of the sizes asked, the ground, and how two lie, where that is
        asked; and all of it."""
        asked = self.scene.groups
        things = found.groups.keys() == asked.keys()
        right = {
            "things": things,
            "counts": things and all(len(of) == len(found.groups[t]) for t, of in asked.items()),
            "sizes": things
            and all(d.size == of[0].size for t, of in asked.items() for d in found.groups[t]),
            "ground": found.ground == self.scene.ground,
        }
        if self.relation:
            pair = [found.groups[thing][0] for thing in asked] if right["counts"] else None
            right["relation"] = bool(pair) and relation(*pair) == self.relation
        return right | {"overall": all(right.values())}


def prompts(count: int, seed: int, held_out: bool) -> list[Prompt]:
    """`count` of each of PROMPTS."""
    rng = np.random.default_rng((seed, 2, held_out))
    out = []
    for task in PROMPTS:
        makeup = task if task in MAKEUPS else "two"
        found = []
        while len(found) < count:
            scene = random_scene(rng, makeup, held_out)
            link = clear_relation(scene) if task == "relation" else None
            if task != "relation" or link:
                text = describe(scene, related=task == "relation")
                found.append(Prompt(task, text, scene, link))
        out += found
    return out
