"""What was read of each data set (read_stats.py) where a stage keeps some kinds of example alone."""

import numpy as np

from janus_jax.data.kept import of_kinds
from janus_jax.data.mixture import Mixture
from janus_jax.data.read_stats import ReadStats
from janus_jax.model import batch as bt


def asked_of(kinds: tuple[str, ...], mixture: Mixture, step: int) -> dict[str, float]:
    """Data set of a kept kind -> its share of the kept examples of a step."""
    kind = {e.name: e.kind for e in mixture.entries}
    asked = {name: x for name, x in mixture.asked(step).items() if kind[name] in kinds}
    total = sum(asked.values())
    return {name: x / total for name, x in asked.items()}


class KeptStats(ReadStats):
    """Of what is learned from: shares, tokens and examples are of the kept kinds alone. Bad records
    are those of all that is read."""

    def __init__(self, kinds: tuple[str, ...], mixture: Mixture, *how):
        super().__init__(mixture, *how)
        self.kinds = kinds

    def count(self, step: int, examples: np.ndarray):
        super().count(step, of_kinds(self.kinds, examples))

    def shares(self, first: int) -> list[tuple]:
        asked = asked_of(self.kinds, self.mixture, first)
        return [
            (name, kind, asked.get(name, 0.0), *seen)
            for name, kind, _, *seen in super().shares(first)
        ]

    def report(self) -> list[str]:
        drawn = (kind for kind in bt.TASKS if self.mixture.ratio[kind])
        others = ", ".join(kind for kind in drawn if kind not in self.kinds)
        return [*super().report(), f"  (of what was kept; examples of {others} were taken out)"]
