"""Records read by threads while the devices compute."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from janus_jax.data.row_stream import BAD

AHEAD = 3  # batches


def read_ahead(read: Callable, parts: Iterable[tuple], threads: int) -> Iterator[tuple]:
    """(key, records, what `read` gives of each) of each of `parts`, (key, records), in order; in
    place of what cannot be read stands its error, one of BAD."""

    def read_or_error(i):
        try:
            return read(i)
        except BAD as error:
            return error

    waiting = collections.deque()
    ready = lambda key, records, futures: (key, records, [future.result() for future in futures])
    with ThreadPoolExecutor(threads) as pool:
        for key, records in parts:
            waiting.append((key, records, [pool.submit(read_or_error, i) for i in records]))
            if len(waiting) > AHEAD:
                yield ready(*waiting.popleft())
        while waiting:
            yield ready(*waiting.popleft())
