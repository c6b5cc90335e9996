"""A world of 3D point clouds: one to three solids, seen from all sides, with noise."""

import numpy as np

NAMES = ("sphere", "cube", "cone", "cylinder", "torus")
COUNTS = ("one", "two", "three")
POINTS = 1200  # of a cloud, about
NOISE = 0.02
_TUBE = 0.35  # of a torus' outer radius


def surface(rng: np.random.Generator, name: str, n: int) -> np.ndarray:
    """n points, evenly spread, on a solid of outer radius 1 about 0, float64 [n, 3]."""
    turn = rng.uniform(0, 2 * np.pi, n)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    if name == "sphere":
        out = rng.normal(size=(n, 3))
        return out / np.linalg.norm(out, axis=1, keepdims=True)
    if name == "cube":
        out = rng.uniform(-1, 1, (n, 3))
        out[np.arange(n), rng.integers(3, size=n)] = rng.choice((-1.0, 1.0), n)
        return out / 3**0.5
    if name == "torus":
        # As often as its ring there is long.
        angle = rng.uniform(0, 2 * np.pi, 4 * n)
        wide = 1 - _TUBE + _TUBE * np.cos(angle)
        angle = angle[rng.random(4 * n) < wide][:n]
        wide = 1 - _TUBE + _TUBE * np.cos(angle)
        return np.concatenate(
            [ring[: len(wide)] * wide[:, None], _TUBE * np.sin(angle)[:, None]], 1
        )
    # A disc below, and the side; a cylinder's second disc above.
    r, half = 0.5**0.5, 0.5**0.5
    side = np.pi * r * np.hypot(r, 2 * half) if name == "cone" else 4 * np.pi * r * half
    disc = np.pi * r * r
    where = rng.choice(3, n, p=np.array([disc, side, disc * (name == "cylinder")]) / (
        disc * (1 + (name == "cylinder")) + side))  # fmt: skip
    level = rng.random(n)
    up = np.sqrt(level) if name == "cone" else level  # of the side, from the tip where it has one
    radius = np.where(where == 1, up if name == "cone" else 1.0, np.sqrt(level)) * r
    low = np.where(where == 0, -half, half)
    height = np.where(where == 1, half * (1 - 2 * up), low)
    return np.concatenate([ring * radius[:, None], height[:, None]], 1)


def rotation(rng: np.random.Generator) -> np.ndarray:
    """Any rotation, all equally likely, float64 [3, 3]."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def cloud(rng: np.random.Generator, solids: list[tuple[str, float]]) -> np.ndarray:
    """float32 [n, 3]: the solids (name, radius) apart from each other, the same number of points on
    the same area, as near as that goes."""
    share = np.array([radius**2 for _, radius in solids])
    counts = np.maximum(POINTS * share / share.sum(), 60).astype(int)
    middles = []
    parts = []
    for (name, radius), n in zip(solids, counts):
        while True:
            middle = rng.uniform(-1.6, 1.6, 3) * (len(solids) > 1)
            gaps = [
                np.linalg.norm(middle - other) - radius - size
                for other, (_, size) in zip(middles, solids)
            ]
            if min(gaps, default=1) > 0.2:
                break
        middles.append(middle)
        parts.append(radius * surface(rng, name, n) @ rotation(rng) + middle)
    whole = np.concatenate(parts)
    return (whole + rng.normal(scale=NOISE, size=whole.shape)).astype(np.float32)
