"""Sources to batches: shuffle, encode, mix by ratio, pack, decode pictures, batch (paper section 3.3).

Each source is shuffled, repeated and split over hosts before the mix, so the ratio holds on every host.
Packing carries record indices only; pictures are opened after it.
"""

import dataclasses
import itertools

import grain
import numpy as np
from absl import flags
from grain.experimental import FirstFitPackIterDataset, ThreadPrefetchIterDataset

from janus_jax import batch as bt
from janus_jax.data import generation, text, understanding
from janus_jax.data.images import generation_image, understanding_image

PER_TOKEN = ("tokens", "role", "supervised")


@dataclasses.dataclass(frozen=True)
class Rows:
    """The shape of a step and how examples fill it: `count` rows of `length` tokens with at most `pictures`
    pictures to understand and `images` to generate in each; `bins` rows are open at once while packing."""

    count: int
    length: int
    pictures: int
    images: int
    bins: int = 16

    def per_host(self, hosts: int) -> "Rows":
        """The rows that one of `hosts` processes feeds. Raises ValueError when they do not divide."""
        if self.count % hosts:
            raise ValueError(f"rows.count is {self.count}: {hosts} hosts must divide it")
        return dataclasses.replace(self, count=self.count // hosts)


class Encoder:
    """record -> Sequence for one task; text that does not fit `length` is cut, images never."""

    def __init__(
        self, task: str, source, processor, length: int, supervise: str, dropout: float, first: float
    ):
        self.task, self.source, self.processor, self.length = task, source, processor, length
        self.supervise, self.dropout, self.first = supervise, dropout, first

    def __call__(self, index, rng) -> dict:
        record, index = self.source[index], int(index)
        if self.task == "understanding":
            example = understanding.encode(record, index, self.processor, self.supervise)
        elif self.task == "text":
            example = text.encode(record, index, self.processor, self.supervise)
        else:
            example = generation.encode(record, index, self.processor, rng, self.dropout, self.first)
        slots, n = int((example["role"] == bt.PICTURE).sum()), self.processor.understanding_tokens
        if slots != n * len(example["pictures"]):
            raise ValueError(
                f"{self.task} record {index} has {slots // n} image parts: a record of understanding needs one, "
                f"others none"
            )
        return shorten(example, self.length)


def shorten(example: dict, length: int) -> dict:
    """Cuts the longest stretch of text, prompt or target, until the example fits, and marks it so.

    A prompt keeps its last 8 tokens (the template's "Assistant:", begin_of_image); a target that is cut at the
    example's end loses its end of sentence too, so that nobody learns to stop there. Raises ValueError when
    no stretch is long enough.
    """
    over = len(example["tokens"]) - length
    if over <= 0:
        return example
    kind = np.where(example["role"] == bt.TEXT, example["supervised"], -1)
    edges = np.r_[0, np.flatnonzero(np.diff(kind)) + 1, len(kind)]
    runs = [(b - a, a, b) for a, b in itertools.pairwise(edges) if kind[a] >= 0]
    size, _, end = max(runs)
    tail = 8 if kind[end - 1] == 0 else int(end < len(kind))
    if size < over + tail + 1:
        raise ValueError(
            f"an example of {len(kind)} tokens does not fit rows of {length}: its longest text has {size}, the "
            f"rest are pictures and template; raise the stage's rows.length"
        )
    keep = np.r_[0 : end - over - tail, end - tail : len(kind)]
    cut = {name: example[name][keep] for name in PER_TOKEN}
    return {**example, **cut, "example": example["example"] + bt.TRUNCATED}


class Indices:
    """0..n-1 as a Grain source: the record itself is read by the encoder, which knows its index."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __repr__(self):
        return f"Indices({self.source!r})"

    def __getitem__(self, i):
        return i


def to_row(packed: dict) -> dict:
    """Targets and slots of a packed row; every array of the batch except the pictures."""
    role, segment = packed["role"], packed["tokens_segment_ids"]
    following = np.zeros_like(segment, bool)
    following[:-1] = (segment[1:] == segment[:-1]) & (segment[1:] > 0)
    after = lambda x: np.append(x[1:], x[:1])
    slots = {r: np.where(role == r, np.cumsum(role == r), 0).astype(np.int32) for r in (bt.PICTURE, bt.IMAGE)}
    text_next = following & (after(role) == bt.TEXT) & (after(packed["supervised"]) == 1)
    tasks = np.append([0], packed["example"] % bt.TRUNCATED)[segment]
    return {
        "tokens": packed["tokens"],
        "text_targets": np.where(text_next, after(packed["tokens"]), bt.IGNORE).astype(np.int32),
        "image_targets": np.where(following, after(slots[bt.IMAGE]), 0).astype(np.int32),
        "picture_slots": slots[bt.PICTURE],
        "image_slots": slots[bt.IMAGE],
        "positions": packed["tokens_positions"].astype(np.int32),
        "segment_ids": segment.astype(np.int32),
        "tasks": tasks.astype(np.int32),
        "examples": packed["example"],
    }


class OpenPictures:
    """Fills a row's picture slots; `image_ids` come from the records when the generation source has them."""

    def __init__(self, sources: dict, model, precomputed: bool):
        self.sources, self.precomputed = sources, precomputed
        self.side, self.vq = model.understanding_encoder.image_size, model.generation_encoder

    def __call__(self, packed: dict) -> dict:
        row = to_row(packed)
        row["pictures"] = self.fill("understanding", packed, "pictures", self.side, understanding_image)
        if self.precomputed:
            row["image_ids"] = np.zeros((len(packed["images"]), self.vq.tokens), np.int32)
            for i in np.flatnonzero(packed["images_segment_ids"]):
                row["image_ids"][i] = self.ids(int(packed["images"][i]))
        else:
            row["images"] = self.fill("generation", packed, "images", self.vq.image_size, generation_image)
        return row

    def fill(self, task: str, packed: dict, name: str, side: int, prepare) -> np.ndarray:
        out = np.zeros((len(packed[name]), side, side, 3), np.uint8)
        for i in np.flatnonzero(packed[name + "_segment_ids"]):
            out[i] = prepare(self.sources[task].image(int(packed[name][i])), side)
        return out

    def ids(self, index: int) -> np.ndarray:
        ids = np.asarray(self.sources["generation"][index].get("image_ids", ())).reshape(-1)
        if len(ids) != self.vq.tokens or ids.min() < 0 or ids.max() >= self.vq.codebook_size:
            got = f"{len(ids)} from {ids.min()} to {ids.max()}" if len(ids) else "none"
            raise ValueError(
                f"generation record {index}: image_ids must be {self.vq.tokens} numbers in "
                f"[0, {self.vq.codebook_size}); got {got}"
            )
        return ids


def batches(
    sources: dict, processor, model, rows: Rows, ratio: dict, *, supervise: str, dropout: float,
    first_sentence: float, seed: int, workers: int = 0, host: int = 0, hosts: int = 1,
) -> grain.IterDataset:  # fmt: skip
    """An endless Grain dataset of batches (numpy, see batch.py; plus "examples" int32 [B, E], the task codes
    of the examples in each row, 0 where there is none). Its iterator can be checkpointed.

    ratio: examples drawn of each task, by name; a task of ratio 0 is not read. rows.count is this host's.
    """
    streams, weights = [], []
    for k, task in enumerate(bt.TASKS):
        if ratio[task] == 0:
            continue
        ds = grain.MapDataset.source(Indices(sources[task])).seed(seed * 8 + k).shuffle().repeat(None)
        encode = Encoder(task, sources[task], processor, rows.length, supervise, dropout, first_sentence)
        # Split after encoding: chance goes by the example, whatever the number of hosts.
        streams.append(
            ds.random_map(encode)[host::hosts].to_iter_dataset(
                grain.ReadOptions(num_threads=1, prefetch_buffer_size=16)
            )
        )
        weights.append(ratio[task])
    lengths = dict.fromkeys(PER_TOKEN, rows.length)
    lengths |= {"pictures": rows.pictures, "images": rows.images, "example": rows.length // 4}
    ds = grain.IterDataset.mix(streams, weights)
    ds = FirstFitPackIterDataset(
        ds, length_struct=lengths, num_packing_bins=rows.bins, seed=seed, shuffle_bins=True,
        meta_features=("role", "supervised"),
    )  # fmt: skip
    precomputed = ratio["generation"] > 0 and "image_ids" in sources["generation"][0]
    ds = ds.map(OpenPictures(sources, model, precomputed)).batch(rows.count, drop_remainder=True)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads absl flags; in a notebook nobody parsed them
    if workers:
        return ds.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return ThreadPrefetchIterDataset(ds, prefetch_buffer_size=2)


class RandomPictures:
    """Batches of pictures for the tokenizer's own training, a function of (seed, step) only; host h of `hosts`
    makes the h-th part of each."""

    def __init__(self, source, side: int, batch: int, seed: int, host: int = 0, hosts: int = 1):
        self.source, self.side, self.batch, self.seed = source, side, batch, seed
        self.own = slice(host * batch // hosts, (host + 1) * batch // hosts)

    def __getitem__(self, step: int) -> np.ndarray:  # uint8 [batch / hosts, side, side, 3]
        rng = np.random.default_rng((self.seed, int(step)))
        picks = rng.integers(len(self.source), size=self.batch)[self.own]
        return np.stack([generation_image(self.source.image(int(i)), self.side) for i in picks])


def count_examples(batch: dict) -> dict:
    """Takes "examples" out of a batch: how many of each task it holds, and how many were truncated."""
    codes = batch.pop("examples")
    counts = {task: int((codes % bt.TRUNCATED == i + 1).sum()) for i, task in enumerate(bt.TASKS)}
    return counts | {"truncated": int((codes >= bt.TRUNCATED).sum())}
