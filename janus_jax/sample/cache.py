"""How many rows and places a KV cache has: the two numbers that decide what is compiled."""

import jax

from janus_jax.model import sharding as sh

ROWS = (2, 8, 32)
CPU_ROWS = (2, 8, 16)  # 16 write 1.4 times as fast as 8, and as 32 (width 1024, a Xeon)
AHEAD = 128  # places behind a prompt that a cache has at first
WHOLE = {"tpu": 4, "gpu": 1 << 30}  # most rows of a picture's first cache that has all its places


def row_counts(group: int = 2) -> tuple[int, ...]:
    """The numbers of rows that are run: whole groups on every device of the batch axes."""
    groups = group * sh.batch_shards()
    counts = CPU_ROWS if sh.platform() == "cpu" else ROWS
    return tuple(-(-rows // groups) * groups for rows in counts)


def places_ahead(rows: int, draws: bool, most: int) -> int:
    """How many places a first cache has behind the prompt. A picture fills all: empty ones cost a GPU
    nothing where `model.gpu` writes, a TPU 1 % of a token where rows are few; a second length costs seconds."""
    return most if draws and rows <= WHOLE.get(sh.platform(), 0) else min(most, AHEAD)


def cache_length(places: int) -> int:
    """The length of a cache for so many places; 640 is a short prompt and a picture, 768 a question
    about one and the beginning of its answer."""
    return next(n for n in (256, 640, 768, *(1024 << i for i in range(32))) if n >= places)


def put(x):
    """Rows of the host, split over the batch axes."""
    return jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), sh.BATCH))
