"""3D point clouds: their sizes, and how a file becomes an array. Read without JAX."""

import dataclasses
import io

import numpy as np

_MOST = 10_000_000  # points of a file


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A cloud becomes `points` points of `channels` numbers (3: its place; 6: its colour or normal
    too), these `groups` tokens of `neighbours` points each, and these go through `layers` of a
    transformer."""

    points: int = 1024
    channels: int = 6
    groups: int = 64
    neighbours: int = 32
    width: int = 384
    layers: int = 12
    heads: int = 6

    dtype = np.float32
    suffixes = (".npy", ".npz", ".ply")

    @property
    def tokens(self) -> int:
        return self.groups

    @property
    def shape(self) -> tuple[int, int]:
        return self.points, self.channels

    @property
    def mlp_width(self) -> int:
        return 4 * self.width

    def problems(self) -> list[tuple[str, str]]:
        found = []
        if self.channels not in (3, 6):
            found.append(("channels", "a point has 3 numbers, or 6 with colour or normal"))
        for name in ("groups", "neighbours"):
            if getattr(self, name) > self.points:
                found.append((name, f"a cloud has points = {self.points}; take no more"))
        if self.width % (2 * self.heads):
            found.append(("width", f"2 * heads = {2 * self.heads} must divide it"))
        return found

    def flops(self) -> float:
        """Groups' maps, centres' map, and the layers' products and attention."""
        c = self.width
        half = c // 2
        point = self.channels * half + half * half + c * c + c * c
        blocks = self.layers * (12 * c * c + 2 * self.groups * c)
        return 2.0 * self.groups * (self.neighbours * point + 4 * c + c * c + blocks)

    def array(self, file) -> np.ndarray:
        """float32 [points, channels] of a path, bytes or an array [n, channels]: a choice of the
        points that is always the same, or all and some of them again; the middle of the cloud lies at
        0, its outermost point at distance 1. Raises ValueError, OSError."""
        cloud = _read(file)
        if cloud.ndim != 2 or cloud.shape[1] != self.channels:
            raise ValueError(
                f"has the shape {list(cloud.shape)}, needs [n, {self.channels}]: "
                f"model.senses.points.channels is {self.channels}; give x, y and z of each point"
                + (" and its colour or normal" if self.channels == 6 else "")
            )
        if not self.groups <= len(cloud) <= _MOST:
            raise ValueError(
                f"has {len(cloud):,} points, needs {self.groups} (model.senses.points.groups) to "
                f"{_MOST:,}; leave such records out"
            )
        if not np.isfinite(cloud).all():
            bad = int(np.flatnonzero(~np.isfinite(cloud).all(1))[0])
            raise ValueError(f"point {bad} is {cloud[bad].tolist()}; take out what is not finite")
        cloud = cloud.astype(np.float64)
        order = np.random.default_rng(0).permutation(len(cloud))
        cloud = cloud[np.resize(order, self.points)]
        places = cloud[:, :3] - cloud[:, :3].mean(0)
        furthest = np.linalg.norm(places, axis=1).max()
        if not 0 < furthest < np.inf:
            raise ValueError(f"all its points are one, {cloud[0, :3].tolist()}; leave it out")
        return np.concatenate([places / furthest, cloud[:, 3:]], 1).astype(np.float32)


def _read(file) -> np.ndarray:
    """The numbers of a .npy, a .npz of one array, or an ASCII .ply; of any other array."""
    if not isinstance(file, str | bytes):
        return _numbers(np.asarray(file))
    if isinstance(file, str):
        with open(file, "rb") as opened:
            file = opened.read()
    if file[:3] == b"ply":
        return _ply(file)
    if file[:6] != b"\x93NUMPY" and file[:2] != b"PK":
        raise ValueError(f"begins with {file[:16]!r}: no .npy, .npz or .ply; save it with np.save")
    found = np.load(io.BytesIO(file), allow_pickle=False)
    if isinstance(found, np.ndarray):
        return _numbers(found)
    if len(found.files) != 1:
        raise ValueError(f"holds the arrays {found.files}; keep one, the points")
    return _numbers(found[found.files[0]])


def _numbers(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"holds {array.dtype}; needs numbers")
    return array


def _ply(file: bytes) -> np.ndarray:
    """x, y, z of the vertices, and what three of their properties come next."""
    head, mark, body = file.partition(b"end_header")
    lines = head.decode("latin-1").split("\n")
    words = [line.split() for line in lines]
    if not mark or ["format", "ascii", "1.0"] not in words:
        raise ValueError("is no ASCII .ply; save it as one, or as .npy")
    elements = [k for k, line in enumerate(words) if line[:1] == ["element"]]
    first = words[elements[0]] if elements else []
    if first[1:2] != ["vertex"]:
        raise ValueError("its first element is no vertex; save its points as .npy")
    end = elements[1] if len(elements) > 1 else len(words)
    properties = [line[-1] for line in words[elements[0] : end] if line[:1] == ["property"]]
    if properties[:3] != ["x", "y", "z"]:
        raise ValueError(f"a vertex has {properties}, needs x, y, z first; save it as .npy")
    rows = body.decode("latin-1").split("\n", 1)[-1].splitlines()[: int(first[2])]
    return np.array([[float(x) for x in row.split()] for row in rows])
