"""How well a drawing fits its prompt, by a trained pair of an image tower and a text tower: the reward
`siglip:PATH` (SigLIP, arXiv 2303.15343).

It is what SigLIP is trained to tell, the probability sigmoid(exp(t) * cosine + b) that a text belongs to
a picture. Between 0 and 1 as the package's other rewards are, it can be weighed against them, and it
ends where nothing is left to gain; the cosine, or the log-odds, a policy could raise further without an
end. A weights directory of task siglip has both towers, and so has big_vision's
layout as this project writes it, each with the tokenizer that its texts are of.
"""

import contextlib
import dataclasses
import math

import jax
import numpy as np
from flax import nnx

from janus_jax.data.images import understanding_image
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.model import sharding as sh
from janus_jax.model.batch import pixels
from janus_jax.model.config import JanusConfig, UnderstandingEncoderConfig
from janus_jax.model.guest import own_jax
from janus_jax.model.keys import Keys
from janus_jax.model.siglip import CHILDREN, SigLIP
from janus_jax.training.rewards import RewardError
from janus_jax.weights import encoders
from janus_jax.weights.load import placed
from janus_jax.weights.processor_files import file_hash
from janus_jax.weights.reader import WeightReader, children, require_fit
from janus_jax.weights.source import open_source

BATCH = 16  # texts, or pictures, that are embedded at once
REMEDY = (
    "name what task siglip has made, such as runs/siglip/siglip (configs/siglip.py), or a function of "
    "your own that scores by other weights"
)


def siglip_reward(path: str, **_):
    """The reward `siglip:PATH`. Raises RewardError, see `opened_pair`."""
    return SiglipReward(*opened_pair(path))


def opened_pair(path: str) -> tuple[WeightReader, Tokenizer]:
    """Weights of both towers, not read yet, and the tokenizer of their texts. Raises RewardError that
    says why there is none of them, and what to do."""
    try:
        source = open_source(path).require()
    except (OSError, ValueError) as error:
        raise RewardError(f"no weights can be read there ({error}); {REMEDY}") from None
    held = children(source)
    if missing := [child for child in CHILDREN if child not in held]:
        left = [why for why in source.ignored.values() if "text tower" in why][:1]
        raise RewardError(
            f"these weights have no {', '.join(missing)} ({'; '.join([', '.join(held), *left])}): a picture "
            f"is scored by a trained pair of image and text tower; {REMEDY}"
        )
    if others := encoders.beyond_siglip(source.leaves, source.unshaped):
        raise RewardError(
            f"their understanding_encoder is no SigLIP as task siglip trains it ({others[0]}); {REMEDY}"
        )
    return source, _tokenizer(source)


def _tokenizer(source: WeightReader) -> Tokenizer:
    """Of a source's texts. Raises RewardError where it is not there, or another."""
    directory = source.path if source.path.is_dir() else source.path.parent
    try:
        tokenizer = Tokenizer.load(directory)
    except (OSError, ValueError) as error:
        raise RewardError(
            f"no tokenizer beside them ({error}): ids of texts mean nothing without it; put the "
            "tokenizer.json of their run there"
        ) from None
    rows = source.leaves["text_tower.embedding.table"][0][0]
    saved = source.manifest.get("tokenizer", {}).get("sha256")
    why = ""
    if saved and saved != file_hash(directory / "tokenizer.json"):
        why = "tokenizer.json is not the file that was saved with them"
    elif len(tokenizer) > rows:
        why = f"tokenizer.json has {len(tokenizer)} ids, their text tower {rows}"
    if why:
        raise RewardError(f"another tokenizer than theirs: {why}; put the one of their run there")
    return tokenizer


def sizes(source: WeightReader) -> tuple[JanusConfig, int]:
    """(a config with the towers' sizes and vocabulary, tokens of a text)."""
    shape = lambda name: source.leaves[name][0]
    tower = "understanding_encoder"
    patch = shape(f"{tower}.patch_kernel")[0]
    patches, width = shape(f"{tower}.positions")
    layers, _, mlp = shape(f"{tower}.blocks.mlp.fc1.kernel")
    vocabulary = shape("text_tower.embedding.table")[0]
    own = UnderstandingEncoderConfig(
        image_size=math.isqrt(patches) * patch, patch_size=patch, width=width, mlp_width=mlp,
        layers=layers, heads=int(source.unshaped[f"{tower}.heads"]),
    )  # fmt: skip
    config = JanusConfig(understanding_encoder=own, dtype="float32", remat="none")
    llm = dataclasses.replace(config.transformer, vocabulary=vocabulary)
    return dataclasses.replace(config, transformer=llm), shape("text_tower.positions")[0]


class SiglipReward:
    """The towers lie whole on one device, in float32, beside all that a run has there."""

    def __init__(self, source: WeightReader, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        config, self.length = sizes(source)
        self.side = config.understanding_encoder.image_size
        self.mesh = sh.make_mesh(1, 1, 1, jax.local_devices()[:1])
        with self._on_its_own():
            shapes = jax.eval_shape(lambda: SigLIP(config, self.length, Keys(jax.random.key(0))))
            graphdef, state = nnx.split(shapes)
            state = sh.concrete(nnx.to_pure_dict(state))
            require_fit(source, state, partly=True)
            self.params = placed(source, state)
            source.raise_if_damaged()
        of = lambda how: jax.jit(lambda params, x: getattr(nnx.merge(graphdef, params), how)(x))
        self._of_images = of("embed_images")
        self._of_texts = of("embed_texts")

    def __call__(self, prompts: list, outputs: list) -> np.ndarray:
        """float32 [n], of PIL pictures and the words of their prompts."""
        return 1 / (1 + np.exp(-self.logits([p.words for p in prompts], outputs)))

    def logits(self, words: list[str], pictures: list) -> np.ndarray:
        """exp(t) * cosine + b of each pair, float32 [n]."""
        cosines = (self.embed_texts(words) * self.embed_images(pictures)).sum(-1)
        t, b = (float(np.asarray(self.params["contrast"][name])[0]) for name in "tb")
        return (math.exp(t) * cosines + b).astype(np.float32)

    def embed_texts(self, words: list[str]) -> np.ndarray:
        """float32 [n, C] of length 1. A text is read as in training: in lower case, cut to the tower's
        length, the rest and the last place end of sentence."""
        each = list(dict.fromkeys(words))
        tokens = np.full((len(each), self.length), self.tokenizer.eos, np.int32)
        for row, text in zip(tokens, each):
            ids = self.tokenizer.encode(text.lower())[0][: self.length - 1]
            row[: len(ids)] = ids
        found = dict(zip(each, self._in_batches(self._of_texts, tokens)))
        return np.stack([found[text] for text in words])

    def embed_images(self, pictures: list) -> np.ndarray:
        """float32 [n, C] of length 1; pictures of any size, as the tower gets them in training."""
        images = np.stack([understanding_image(x, self.side, fast=True) for x in pictures])
        return self._in_batches(lambda params, x: self._of_images(params, pixels(x)), images)

    @contextlib.contextmanager
    def _on_its_own(self):
        with jax.set_mesh(self.mesh), own_jax():
            yield

    def _in_batches(self, program, rows: np.ndarray) -> np.ndarray:
        out = []
        with self._on_its_own():
            for i in range(0, len(rows), BATCH):
                some = rows[i : i + BATCH]
                more = np.repeat(some[-1:], BATCH - len(some), 0)
                out.append(np.asarray(program(self.params, np.concatenate([some, more]))))
        return np.concatenate(out)[: len(rows)]
