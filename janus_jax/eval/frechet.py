"""The Fréchet distance of two sets of features, each taken for a normal distribution.

d = |mu_a - mu_b|^2 + trace(sigma_a + sigma_b - 2 (sigma_a sigma_b)^(1/2)), in float64 (Heusel et
al., arXiv 1706.08500). Statistics are stored as pytorch-fid's `--save-stats` and clean-fid's
references are: an .npz file with `mu` and `sigma`.
"""

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from janus_jax.common import files
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import short


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of a set of features.

    Args:
        mu: their mean, float64 [D].
        sigma: their covariance, float64 [D, D], divided by count - 1.
        count: of how many; 0 where that is not known.
        name: where they come from, for messages.
        facts: how they were made; empty where that is not known.
    """

    mu: np.ndarray
    sigma: np.ndarray
    count: int = 0
    name: str = "statistics"
    facts: Mapping = dataclasses.field(default_factory=dict)


class Moments:
    """Mean and covariance of features that come in batches: one pass, float64, and memory of D^2
    numbers however many come. Chan's update, which cancels nothing (Chan et al. 1979)."""

    def __init__(self, name: str = "features"):
        self.name = name
        self.count = 0
        self.mean = self.squares = np.zeros(())

    def add(self, features):
        """features: [n, D], of any real type. Raises UsageError for another shape, and for numbers
        that are not finite."""
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or (self.count and x.shape[1] != len(self.mean)):
            due = f"[n, {len(self.mean)}]" if self.count else "[n, D]"
            raise UsageError(f"{self.name}: features of shape {list(x.shape)}, needs {due}")
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if bad.size:
            raise UsageError(
                f"{self.name}: the features of number {self.count + bad[0]} ({bad.size} of these "
                f"{len(x)}) hold NaN or infinity; check the weights that give the features"
            )
        n = len(x)
        if not n:
            return
        mean = x.mean(axis=0)
        x = x - mean
        apart = mean - self.mean
        total = self.count + n
        self.squares = self.squares + x.T @ x + np.outer(apart, apart) * (self.count * n / total)
        self.mean = self.mean + apart * (n / total)
        self.count = total

    def statistics(self, facts: Mapping | None = None) -> Statistics:
        """Of all that came. facts: how they were made. Raises UsageError where that is fewer than two."""
        if self.count < 2:
            raise UsageError(
                f"{self.name}: {self.count} features; a covariance needs two, and a distance that "
                f"means something thousands"
            )
        return Statistics(
            self.mean, self.squares / (self.count - 1), self.count, self.name, facts or {}
        )


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The squared Fréchet distance, as everyone reports it. Raises UsageError where the statistics
    do not fit or are none.

    trace((sigma_a sigma_b)^(1/2)) is the sum of the singular values of A^T B for sigma_a = A A^T
    and sigma_b = B B^T: exact for singular covariances too, where a matrix root loses half of the
    digits.
    """
    problems = [*_problems(a), *_problems(b)]
    if not problems and a.mu.shape != b.mu.shape:
        problems = [
            f"{a.name} has {len(a.mu)} features and {b.name} {len(b.mu)}: they are of different "
            f"networks or layers; make both anew with the same features"
        ]
    if problems:
        raise UsageError("\n".join(problems))
    apart = a.mu - b.mu
    common = np.linalg.svd(_root(a.sigma).T @ _root(b.sigma), compute_uv=False).sum()
    found = apart @ apart + np.trace(a.sigma) + np.trace(b.sigma) - 2 * common
    return max(float(found), 0.0)  # rounding alone brings it below


def too_few(statistics: Statistics) -> str:
    """A warning where there are too few features for a covariance of full rank; else empty."""
    dims = len(statistics.mu)
    if not statistics.count or statistics.count > dims:
        return ""
    return (
        f"{statistics.name}: {statistics.count:,} pictures for {dims:,} features, so the covariance "
        f"is singular and the distance too large; compare it with none of other counts (30,000 are "
        f"usual)"
    )


def save_statistics(path, statistics: Statistics):
    """Writes `mu` and `sigma`, as pytorch-fid and clean-fid read them, with `count` and `facts`
    (JSON) beside them."""
    facts = json.dumps(dict(statistics.facts))
    held = dict(mu=statistics.mu, sigma=statistics.sigma, count=statistics.count, facts=facts)
    files.write(pathlib.Path(path), lambda file: np.savez(file, **held))


def read_statistics(path) -> Statistics:
    """Of an .npz file of pytorch-fid's, clean-fid's or ours. Raises UsageError."""
    path = pathlib.Path(path)
    try:
        with np.load(path, allow_pickle=False) as held:
            lacking = [name for name in ("mu", "sigma") if name not in held]
            if lacking:
                there = short(", ".join(held.files)) or "nothing"
                raise UsageError(
                    f"{path}: lacks {' and '.join(lacking)} (it holds {there}); statistics of "
                    f"pytorch-fid and clean-fid have both"
                )
            mu = np.asarray(held["mu"], np.float64)
            sigma = np.asarray(held["sigma"], np.float64)
            count = int(held["count"]) if "count" in held else 0
            facts = json.loads(str(held["facts"])) if "facts" in held else {}
    except UsageError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: no statistics in .npz form ({short(error)})") from None
    found = Statistics(mu, sigma, count, str(path), facts)
    problems = _problems(found)
    if problems:
        raise UsageError("\n".join(problems))
    return found


def _problems(s: Statistics) -> list[str]:
    """What makes statistics unusable."""
    if s.mu.ndim != 1 or s.sigma.shape != (len(s.mu), len(s.mu)):
        return [
            f"{s.name}: mu {list(s.mu.shape)} and sigma {list(s.sigma.shape)}, needs [D] and [D, D]"
        ]
    out = [
        f"{s.name}: {name} holds NaN or infinity; make the statistics anew"
        for name, x in (("mu", s.mu), ("sigma", s.sigma))
        if not np.isfinite(x).all()
    ]
    if not out and not np.allclose(s.sigma, s.sigma.T, rtol=1e-3, atol=1e-6 * _size(s.sigma)):
        out = [f"{s.name}: sigma is not symmetric, so it is no covariance; make it anew"]
    return out


def _size(sigma: np.ndarray) -> float:
    return float(np.abs(sigma).max(initial=0))


def _root(sigma: np.ndarray) -> np.ndarray:
    """A with A A^T = sigma [D, D]. Eigenvalues that rounding alone lifts from 0 are 0."""
    values, vectors = np.linalg.eigh((sigma + sigma.T) / 2)
    least = len(values) * np.finfo(np.float64).eps * np.abs(values).max(initial=0)
    if values.min(initial=0) < -1e-3 * np.abs(values).max(initial=0):
        raise UsageError(
            f"a covariance has the eigenvalue {values.min():.3g} beside {values.max():.3g}; none of a "
            f"covariance is below 0: make the statistics anew"
        )
    return vectors * np.sqrt(np.where(values > least, values, 0))
