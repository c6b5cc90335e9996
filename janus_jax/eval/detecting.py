"""Drawings of the scenes world read back by a detector that was trained on true pictures (task
detector)."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from janus_jax.common import provenance
from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy.scenes import GROUNDS, SIZES, THINGS, Drawing, Scene
from janus_jax.eval.features import Features
from janus_jax.model import batch as bt
from janus_jax.model.detector import STRIDE, Detector
from janus_jax.model.guest import own_jax
from janus_jax.model.keys import Keys
from janus_jax.weights.reader import require_fit
from janus_jax.weights.source import open_source

SURE = 0.4  # a peak of the heat map is a thing from here on
BATCH = 32  # pictures at once


class SceneDetector:
    """A detector whose weights lie in a directory. Raises UsageError where they do not."""

    def __init__(self, path):
        self.path = pathlib.Path(path).expanduser()
        try:
            source = open_source(self.path)
            with own_jax():
                make = lambda: Detector(
                    len(THINGS), len(SIZES), len(GROUNDS), Keys(jax.random.key(0))
                )
                self.graphdef, state = nnx.split(jax.eval_shape(make))
                shapes = {"detector": nnx.to_pure_dict(state)}
                require_fit(source, shapes, partly=True)
                read = lambda path, _: jnp.asarray(source.read(".".join(str(k.key) for k in path)))
                self.params = jax.tree.map_with_path(read, shapes)["detector"]
                source.raise_if_damaged()
            self.sha256 = provenance.weights_hash(source.path)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self.path}: no weights of a detector of scenes ({error}); train one, as "
                "configs/miniature.py:detector does"
            ) from None

    def read(self, pictures: np.ndarray) -> list[Scene]:
        """What is found in pictures, uint8 [n, S, S, 3]: scenes whose drawings have the middle side
        of their size and no turn."""
        out = []
        for maps in self._maps(pictures, "__call__"):
            out += [
                _scene({name: x[i] for name, x in maps.items()}) for i in range(len(maps["size"]))
            ]
        return out

    def features(self) -> Features:
        """The means of its last map, 64 numbers a picture."""
        facts = {"features": "detector of scenes", "weights_sha256": self.sha256}
        extract = lambda pictures: np.concatenate(list(self._maps(np.stack(pictures), "features")))
        return Features("detector Fréchet distance", facts, extract, BATCH)

    def _maps(self, pictures: np.ndarray, method: str):
        side = pictures.shape[1]
        if side % (2 * STRIDE):
            raise UsageError(
                f"pictures of {side} pixels: the detector of scenes reads multiples of {2 * STRIDE}"
            )
        with own_jax():
            for begin in range(0, len(pictures), BATCH):
                some = pictures[begin : begin + BATCH]
                padded = np.pad(some, ((0, BATCH - len(some)), *[(0, 0)] * 3))  # one compiled shape
                found = _run(self.graphdef, method, self.params, padded)
                yield jax.tree.map(functools.partial(_first, len(some)), found)


def _first(count: int, x) -> np.ndarray:
    return np.asarray(x)[:count]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(graphdef, method: str, params, pictures):
    return getattr(nnx.merge(graphdef, params), method)(bt.pixels(pictures))


def _scene(maps: dict) -> Scene:
    """maps: the detector's logits of one picture."""
    centre = maps["centre"]
    cells = len(centre)
    around = np.pad(centre, 1, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3))
    peaks = (centre == windows.max((2, 3))) & (centre > np.log(SURE / (1 - SURE)))
    drawings = []
    for row, column in np.argwhere(peaks):
        thing = list(THINGS)[int(maps["thing"][row, column].argmax())]
        size = list(SIZES)[int(maps["size"][row, column].argmax())]
        x, y = ((place + 0.5) / cells for place in (column, row))
        drawings.append(Drawing(thing, size, float(x), float(y), SIZES[size][1], 0))
    return Scene(list(GROUNDS)[int(maps["ground"].argmax())], (0, 0, 0), tuple(drawings))
