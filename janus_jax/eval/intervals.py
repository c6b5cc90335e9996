"""How sure a score is: the same score of units that are drawn again."""

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import stdtrit  # SciPy comes with JAX

DRAWS = 1000
MASS = 0.95  # of the draws lie in the interval


def total(units: list[Mapping[str, float]]) -> dict[str, float]:
    """The sum of all units' counts."""
    sums = Counter()
    for unit in units:
        sums.update(unit)
    return dict(sums)


def over_seeds(values: list[float]) -> dict:
    """The scores of several seeds, and Student's interval of their mean (None of one alone): how
    the score would vary with other seeds and the same prompts."""
    if len(values) < 2:
        return {"values": values, "interval": None}
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stdtrit(len(values) - 1, (1 + MASS) / 2)) * error
    return {"values": values, "interval": (mean - half, mean + half)}


def bootstrap(
    units: list[Mapping[str, float]], scores: Callable, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Score -> (low, high): where the middle 95 % of DRAWS draws of as many units lie, with
    replacement (Efron's percentile interval). It says how the score would vary with other questions
    or prompts of the same kind, not with other weights or judges.

    units: the counts of each independent unit.
    scores: sums of counts -> scores by name.
    """
    names = sorted({name for unit in units for name in unit})
    counts = np.array([[unit.get(name, 0.0) for name in names] for unit in units])
    rng = np.random.default_rng(seed)
    drawn = {}
    for _ in range(DRAWS):
        picks = np.bincount(rng.integers(len(units), size=len(units)), minlength=len(units))
        found = scores(dict(zip(names, (picks @ counts).tolist())))
        for name, value in found.items():
            drawn.setdefault(name, []).append(value)
    edges = 100 * (1 - MASS) / 2
    return {
        name: tuple(np.nanpercentile(values, (edges, 100 - edges)).tolist())
        for name, values in drawn.items()
    }
