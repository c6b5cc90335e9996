"""Data sets to batches: streams (see row_stream.py) on this process or on worker processes, and
where they stand.

The rows of a batch depend on the config and the step alone: not on how many hosts and workers make
them. A position is saved for all streams, so any number of hosts and workers goes on from it.
"""

import contextlib
import json

import grain
import numpy as np
from absl import flags
from grain.experimental import ThreadPrefetchIterDataset

from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.mixture import Mixture
from janus_jax.data.read_stats import ReadStats
from janus_jax.data.resume import FORMAT, fingerprint, restore_position
from janus_jax.data.row_stream import RowStream
from janus_jax.data.sources import SourceError
from janus_jax.data.workers import follow, unheard
from janus_jax.model import batch as bt


class RowStreams(grain.IterDataset):
    """Some streams of a mixture, step by step: {"rows": arrays, "examples": int64 [n, 6], "states",
    "news"}."""

    def __init__(
        self, mixture: Mixture, encoder: ExampleEncoder, numbers: list[int], step: int, states: list
    ):
        super().__init__()
        self.mixture = mixture
        self.encoder = encoder
        self.numbers = numbers
        self.step = step
        self.states = states

    def __iter__(self):
        return _RowStreamsIterator(self)


class _RowStreamsIterator(grain.DatasetIterator):
    def __init__(self, parent: RowStreams):
        super().__init__()
        self._step = parent.step
        self._numbers = parent.numbers
        pairs = zip(parent.numbers, parent.states)
        self._streams = [RowStream(parent.mixture, parent.encoder, n, state) for n, state in pairs]

    def __next__(self) -> dict:
        rows = [stream.row(self._step) for stream in self._streams]
        self._step += 1
        examples = [(n, *x) for n, row in zip(self._numbers, rows) for x in row.pop("drawn")]
        return {
            "rows": {name: np.stack([row[name] for row in rows]) for name in rows[0]},
            "examples": np.array(examples, np.int64).reshape(-1, len(bt.EXAMPLE_COLUMNS)),
            "states": [stream.state() for stream in self._streams],
            "news": [stream.news() for stream in self._streams],
        }

    def get_state(self) -> dict:  # Grain asks its workers; positions are kept by Batches
        return {}

    def set_state(self, state: dict):
        raise NotImplementedError("positions belong to Batches")


class Batches:
    """An endless iterator over batches and the examples in them, both numpy, as in model/batch.py.

    mixture: what is drawn.
    encoder: what makes examples of records.
    share: which part of each batch's rows is made here, from 0.
    of: how many parts there are.
    workers: processes that make the rows, 0 for this one.
    stats: what was read, by data set.
    accept: goes on from a position of other data too.
    """

    def __init__(
        self,
        mixture: Mixture,
        encoder: ExampleEncoder,
        *,
        share: int = 0,
        of: int = 1,
        workers: int = 0,
        stats: ReadStats | None = None,
        accept: bool = False,
    ):
        if mixture.streams % of:
            raise ValueError(f"rows.count is {mixture.streams}: {of} hosts must divide it")
        each = mixture.streams // of
        self.mixture = mixture
        self.encoder = encoder
        self.numbers = list(range(share * each, (share + 1) * each))
        self.workers = min(workers, each)
        self.stats = stats or ReadStats(mixture)
        self.fingerprint = fingerprint(mixture, encoder)
        self.accept = accept
        self._sources = None
        self._begin(0, {})

    def _begin(self, step: int, states: dict):
        self.step = step
        self._states = states
        self._news = []

    def __iter__(self):
        return self

    def __next__(self) -> tuple[dict, np.ndarray]:
        # Grain begins some processes when the first batch is drawn
        begins = self.workers and self._sources is None
        try:
            with unheard() if begins else contextlib.nullcontext():
                self._sources = self._sources or self._start()
                parts = [next(source) for source in self._sources]
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise SourceError(
                f"a process of data.workers was killed, perhaps for want of memory: fewer of them "
                f"than {self.workers} "
                f"take less ({error})"
            ) from error
        self._states = {}
        for part, numbers in zip(parts, self._dealt):
            self._states |= dict(zip(numbers, part["states"]))
            self._news += part["news"]
        batch = {}
        for name, rows in parts[0]["rows"].items():
            batch[name] = np.empty((len(self.numbers), *rows.shape[1:]), rows.dtype)
            for w, part in enumerate(
                parts
            ):  # as dealt in `_start`; the one copy out of the workers' memory
                batch[name][w :: len(parts)] = part["rows"][name]
        examples = np.concatenate([part["examples"] for part in parts])
        examples = examples[np.argsort(examples[:, 0], kind="stable")]
        self.stats.count(self.step, examples)
        self.step += 1
        return batch, examples

    def _start(self) -> list:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads absl flags; in a notebook nobody parsed them
        self._dealt = [self.numbers[w :: self.workers or 1] for w in range(self.workers or 1)]
        out = []
        for numbers in self._dealt:
            ds = RowStreams(
                self.mixture,
                self.encoder,
                numbers,
                self.step,
                [self._states.get(n) for n in numbers],
            )
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

    def sync_counts(self, gather=lambda value: [value]):
        """Enters what was read since the last time in the read statistics, the same on every
        process. gather: a value -> those of all processes, in one order on all of them. Raises
        SourceError where too much is bad."""
        mine = {"streams": self.numbers[0], "news": self._news, "counts": self.stats.take()}
        self._news = []
        shares = {
            one["streams"]: one for one in gather(json.loads(json.dumps(mine)))
        }  # several may feed one share
        self.stats.merge([shares[k] for k in sorted(shares)])

    def get_state(self, gather=lambda value: [value]) -> dict:
        """Where the streams stand, after the last batch that was taken; JSON holds it. gather: see
        `sync_counts`; without it the streams are this process's own."""
        states = {
            n: self._states.get(n) or RowStream(self.mixture, self.encoder, n).state()
            for n in self.numbers
        }
        everyone = gather({str(n): state for n, state in states.items()})
        return {
            "format": FORMAT,
            "step": self.step,
            "fingerprint": self.fingerprint,
            "read_stats": self.stats.state(),
            "streams": {n: stream for streams in everyone for n, stream in streams.items()},
        }

    def set_state(self, state: dict) -> list[str]:
        """Goes on from a position of all streams. Returns what changed since, in words. Raises
        SourceError naming every difference unless they are accepted."""
        self.close()
        streams, said, stayed = restore_position(state, self.fingerprint, self.mixture, self.accept)
        self._begin(state["step"], streams)
        self.stats.set_state(state["read_stats"], stayed, state["step"])
        return said
