"""Pictures of scenes beside what is in them, for the detector of drawings."""

import numpy as np
from PIL import Image, ImageFilter

from janus_jax.data.holdout import Part
from janus_jax.data.mixture import Mixture
from janus_jax.data.read_stats import ReadStats
from janus_jax.data.toy.scenes import GROUNDS, MOST, SIZES, THINGS, Scene, draw
from janus_jax.data.toy.scenes_sources import ScenesWorld

# What a drawing may suffer in a tokenizer's decode: half of the pictures stay as they are.
_SPOILED = 0.5
_BLUR = 1.2  # pixels of the Gaussian's radius, at most
_NOISE = 10.0  # levels of the noise's standard deviation, at most


class SceneBatches:
    """Batches of scenes, a function of (seed, step) only; host h of `hosts` makes the h-th part of
    each.

    mixture: of data sets of the scenes world, drawn at random by weight, a stream a picture.
    side: pixels of a picture.
    clean: pictures stay as they are, in the order of the data set: for validation.
    """

    def __init__(
        self,
        mixture: Mixture,
        side: int,
        host: int = 0,
        hosts: int = 1,
        stats: ReadStats | None = None,
        clean: bool = False,
    ):
        self.mixture = mixture
        self.side = side
        self.stats = stats or ReadStats(mixture)
        self.clean = clean
        self.own = range(host * mixture.streams // hosts, (host + 1) * mixture.streams // hosts)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """images uint8 [B, side, side, 3]; centres float32 [B, MOST, 2], x and y as shares of the
        side; things and sizes int32 [B, MOST], -1 where a scene has no more; ground int32 [B]. B is
        batch / hosts."""
        reads = {}
        found = [self._pick(int(step), i, reads) for i in self.own]
        self.stats.merge([{"news": [(reads, [])], "counts": {}}])
        return {name: np.stack([one[name] for one in found]) for name in found[0]}

    def _pick(self, step: int, i: int, reads: dict) -> dict:
        rng = np.random.default_rng((self.mixture.seed, step, i))
        numbers, shares = self.mixture.shares(self.mixture.phase(step), "generation")
        entry = numbers[int(rng.choice(len(numbers), p=shares))]
        reads[entry] = reads.get(entry, 0) + 1
        source = self.mixture.entries[entry].source
        scene = scene_of(source, int(rng.integers(len(source))))
        picture = draw(scene, self.side)
        return {"images": picture if self.clean else spoiled(rng, picture), **labels(scene)}


def shapes(count: int, side: int) -> dict:
    """name -> (shape, dtype) of a batch of `count` scenes; see `SceneBatches`."""
    return {
        "images": ((count, side, side, 3), np.uint8),
        "centres": ((count, MOST, 2), np.float32),
        "things": ((count, MOST), np.int32),
        "sizes": ((count, MOST), np.int32),
        "ground": ((count,), np.int32),
    }


def scene_of(source, i: int) -> Scene:
    """The scene of record `i` of a source of the scenes world, or of a part of one."""
    if isinstance(source, Part):
        return scene_of(source.source, source.index(i))
    return source.scene(i)


def shows_scenes(source) -> bool:
    """Whether `scene_of` knows what is in a source's pictures."""
    return isinstance(source.source if isinstance(source, Part) else source, ScenesWorld)


def labels(scene: Scene) -> dict[str, np.ndarray]:
    """What is in a scene, as `SceneBatches` gives it, without the picture."""
    centres = np.zeros((MOST, 2), np.float32)
    things = np.full(MOST, -1, np.int32)
    sizes = np.full(MOST, -1, np.int32)
    for k, d in enumerate(scene.drawings):
        centres[k] = d.x, d.y
        things[k] = list(THINGS).index(d.thing)
        sizes[k] = list(SIZES).index(d.size)
    ground = np.int32(list(GROUNDS).index(scene.ground))
    return {"centres": centres, "things": things, "sizes": sizes, "ground": ground}


def spoiled(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """The picture, blurred and with noise, or for a share of them as it is."""
    if rng.random() >= _SPOILED:
        return picture
    radius = rng.uniform(0, _BLUR)
    blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius))
    noise = rng.normal(0, rng.uniform(0, _NOISE), picture.shape)
    return np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8)
