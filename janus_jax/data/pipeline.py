"""Data sets to batches: lanes (see lanes.py) on this process or on worker processes, and where they stand.

The rows of a batch depend on the config and the step alone: not on how many hosts and workers make them. A position is
saved for all lanes, so any number of hosts and workers goes on from it.
"""

import contextlib
import dataclasses
import importlib.metadata
import json

import grain
import numpy as np
from absl import flags
from grain.experimental import ThreadPrefetchIterDataset

from janus_jax import batch as bt
from janus_jax.data.images import generation_image
from janus_jax.data.lanes import BAD, IN_A_ROW, Encoder, Lane
from janus_jax.data.ledger import Ledger
from janus_jax.data.mixture import Mixture
from janus_jax.data.position import moved
from janus_jax.data.sources import SourceError
from janus_jax.data.workers import follow, unheard

FORMAT = 1  # of positions; other numbers would be other rows
DRAWN = ("row", "dataset", "position", "record", "code", "tokens")  # columns of a batch's "examples"


@dataclasses.dataclass(frozen=True)
class Rows:
    """The shape of a step and how examples fill it: `count` rows of `length` tokens with at most `pictures`
    pictures to understand and `images` to generate in each."""

    count: int
    length: int
    pictures: int
    images: int


class Lanes(grain.IterDataset):
    """Some lanes of a mixture, step by step: {"rows": arrays, "examples": int64 [n, 6], "states", "news"}."""

    def __init__(self, mixture: Mixture, encoder: Encoder, numbers: list[int], step: int, states: list):
        super().__init__()
        self.mixture, self.encoder, self.numbers = mixture, encoder, numbers
        self.step, self.states = step, states

    def __iter__(self):
        return _LanesIterator(self)


class _LanesIterator(grain.DatasetIterator):
    def __init__(self, parent: Lanes):
        super().__init__()
        self._step, self._numbers = parent.step, parent.numbers
        pairs = zip(parent.numbers, parent.states)
        self._lanes = [Lane(parent.mixture, parent.encoder, n, state) for n, state in pairs]

    def __next__(self) -> dict:
        rows = [lane.row(self._step) for lane in self._lanes]
        self._step += 1
        examples = [(n, *x) for n, row in zip(self._numbers, rows) for x in row.pop("drawn")]
        return {
            "rows": {name: np.stack([row[name] for row in rows]) for name in rows[0]},
            "examples": np.array(examples, np.int64).reshape(-1, len(DRAWN)),
            "states": [lane.state() for lane in self._lanes],
            "news": [lane.news() for lane in self._lanes],
        }

    def get_state(self) -> dict:  # Grain asks its workers; positions are kept by Batches
        return {}

    def set_state(self, state: dict):
        raise NotImplementedError("positions belong to Batches")


class Batches:
    """An endless iterator over batches (numpy, see batch.py), with "examples" int64 [n, 6]: the columns DRAWN of all
    examples in them, rows counted over all hosts.

    share, of: which part of each batch's rows is made here, in how many. workers: processes that make them, 0 for this
    one. ledger: what was read, by data set. accept: goes on from a position of other data too.
    """

    def __init__(
        self, mixture: Mixture, encoder: Encoder, *, share: int = 0, of: int = 1, workers: int = 0,
        ledger: Ledger | None = None, accept: bool = False,
    ):  # fmt: skip
        if mixture.lanes % of:
            raise ValueError(f"rows.count is {mixture.lanes}: {of} hosts must divide it")
        each = mixture.lanes // of
        self.mixture, self.encoder = mixture, encoder
        self.numbers = list(range(share * each, (share + 1) * each))
        self.workers, self.ledger = min(workers, each), ledger or Ledger(mixture)
        self.fingerprint, self.accept = fingerprint(mixture, encoder), accept
        self._sources = None
        self._begin(0, {})

    def _begin(self, step: int, states: dict):
        self.step, self._states, self._news = step, states, []

    def __iter__(self):
        return self

    def __next__(self) -> dict:
        begins = (
            self.workers and self._sources is None
        )  # Grain begins some processes when the first batch is drawn
        try:
            with unheard() if begins else contextlib.nullcontext():
                self._sources = self._sources or self._start()
                parts = [next(source) for source in self._sources]
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise SourceError(
                f"a process of data.workers was killed, perhaps for want of memory: fewer of them than {self.workers} "
                f"take less ({error})"
            ) from error
        self._states = {}
        for part, numbers in zip(parts, self._dealt):
            self._states |= dict(zip(numbers, part["states"]))
            self._news += part["news"]
        batch = {}
        for name, rows in parts[0]["rows"].items():
            batch[name] = np.empty((len(self.numbers), *rows.shape[1:]), rows.dtype)
            for w, part in enumerate(parts):  # as dealt in `_start`; the one copy out of the workers' memory
                batch[name][w :: len(parts)] = part["rows"][name]
        examples = np.concatenate([part["examples"] for part in parts])
        batch["examples"] = examples[np.argsort(examples[:, 0], kind="stable")]
        self.ledger.count(self.step, batch["examples"])
        self.step += 1
        return batch

    def _start(self) -> list:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads absl flags; in a notebook nobody parsed them
        self._dealt = [self.numbers[w :: self.workers or 1] for w in range(self.workers or 1)]
        out = []
        for numbers in self._dealt:
            ds = Lanes(self.mixture, self.encoder, numbers, self.step, [self._states.get(n) for n in numbers])
            if self.workers:
                options = grain.MultiprocessingOptions(num_workers=1, per_worker_buffer_size=2)
                out.append(iter(ds.mp_prefetch(options, worker_init_fn=follow)))
            else:
                out.append(iter(ThreadPrefetchIterDataset(ds, prefetch_buffer_size=2)))
        for source in out:
            source.start_prefetch()
        return out

    def close(self):
        """Ends the worker processes."""
        for source in self._sources or ():
            source.close()
        self._sources = None

    def settle(self, gather=lambda value: [value]):
        """Enters what was read since the last time in the ledger, the same on every process. gather: a value ->
        those of all processes, in one order on all of them. Raises SourceError where too much is bad."""
        mine = {"lanes": self.numbers[0], "news": self._news, "counts": self.ledger.take()}
        self._news = []
        shares = {
            one["lanes"]: one for one in gather(json.loads(json.dumps(mine)))
        }  # several may feed one share
        self.ledger.settle([shares[k] for k in sorted(shares)])

    def get_state(self, gather=lambda value: [value]) -> dict:
        """Where the lanes stand, after the last batch that was taken; JSON holds it. gather: see `settle`; without it
        the lanes are this process's own."""
        states = {n: self._states.get(n) or Lane(self.mixture, self.encoder, n).state() for n in self.numbers}
        everyone = gather({str(n): state for n, state in states.items()})
        return {
            "format": FORMAT, "step": self.step, "fingerprint": self.fingerprint, "ledger": self.ledger.state(),
            "lanes": {n: lane for lanes in everyone for n, lane in lanes.items()},
        }  # fmt: skip

    def set_state(self, state: dict) -> list[str]:
        """Goes on from a position of all lanes. Returns what changed since, in words. Raises SourceError naming every
        difference unless they are accepted."""
        self.close()
        lanes, said, stayed = moved(state, self.fingerprint, self.mixture, FORMAT, self.accept)
        self._begin(state["step"], lanes)
        self.ledger.set_state(state["ledger"], stayed)
        return said


def fingerprint(mixture: Mixture, encoder: Encoder) -> dict:
    """What a position means something for: name -> value, comparable and readable."""
    datasets = {
        e.name: {
            "kind": e.kind, "records": len(e.source), "content": e.source.fingerprint, "weight": e.weight,
            "steps": list(e.steps),
        }
        for e in mixture.entries
    }  # fmt: skip
    return {
        "datasets": datasets,
        "ratio": mixture.ratio,
        "seed": mixture.seed,
        "rows": dataclasses.asdict(encoder.rows),
        "examples": {"supervise": encoder.supervise, "dropout": encoder.dropout, "first": encoder.first},
        "template": dataclasses.asdict(encoder.processor.template),
        "tokenizer": encoder.processor.tokenizer.fingerprint,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of the libraries that make a row's numbers."""
    out = {}
    for name in ("numpy", "pillow", "tokenizers", "grain", "cykooz.resizer"):
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "not installed"
    return out


class RandomPictures:
    """Batches of pictures for the tokenizer's own training, a function of (seed, step) only; host h of `hosts`
    makes the h-th part of each.

    mixture: of generation alone, a lane a picture; its data sets are drawn at random by weight. What is rotten gives
    its place to another pick, and is entered in the ledger, which judges this process's own.
    """

    def __init__(
        self, mixture: Mixture, side: int, host: int = 0, hosts: int = 1, ledger: Ledger | None = None
    ):
        self.mixture, self.side, self.ledger = mixture, side, ledger or Ledger(mixture)
        self.own = range(host * mixture.lanes // hosts, (host + 1) * mixture.lanes // hosts)

    def __getitem__(self, step: int) -> np.ndarray:  # uint8 [batch / hosts, side, side, 3]
        reads, bad = {}, []
        out = [self._pick(int(step), i, reads, bad) for i in self.own]
        self.ledger.settle([{"news": [(reads, bad)], "counts": {}}])
        return np.stack(out)

    def _pick(self, step: int, i: int, reads: dict, bad: list) -> np.ndarray:
        rng = np.random.default_rng((self.mixture.seed, step, i))
        numbers, shares = self.mixture.shares(self.mixture.phase(step), "generation")
        for _ in range(IN_A_ROW):
            entry = numbers[int(rng.choice(len(numbers), p=shares)) if len(numbers) > 1 else 0]
            source = self.mixture.entries[entry].source
            index = int(rng.integers(len(source)))
            reads[entry] = reads.get(entry, 0) + 1
            try:
                return generation_image(source.image(index), self.side, fast=True)
            except BAD as error:
                bad.append((entry, index, error.cause, str(error)))
        raise SourceError(
            f"stage0: {IN_A_ROW} pictures in a row cannot be used, the last of them: {bad[-1][3]}"
        )


def count_examples(batch: dict) -> dict:
    """Takes "examples" out of a batch: how many of each task it holds, and how many were truncated."""
    codes = batch.pop("examples")[:, DRAWN.index("code")]
    counts = {task: int((codes % bt.TRUNCATED == i + 1).sum()) for i, task in enumerate(bt.TASKS)}
    return counts | {"truncated": int((codes >= bt.TRUNCATED).sum())}
