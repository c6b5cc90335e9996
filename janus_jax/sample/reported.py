"""Ids and the log-probability of each, as the decoder drew them from its cache: what a policy's own
draws need. `training/log_probabilities.py` gives the same of packed rows, differentiable."""

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax
from janus_jax.sample.engine import Engine, Request
from janus_jax.sample.options import require_ids


def ids_with_log_probabilities(
    model, requests: list[Request], rows: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each request (ids int32 [n], their log-probabilities float32 [n]).

    rows: of the cache, that are written at once, rounded up to whole groups on every device; 0: as
        many as `cache.row_counts` has.
    They are those of softmax(logits / temperature), the logits under the request's guidance, over
    all ids: a top_p below 1 leaves them as they are. An answer's last id may be its eos. Raises
    ValueError for a temperature of 0, which draws nothing, and where logits are not finite.
    """
    if any(request.temperature == 0 for request in requests):
        raise ValueError(
            "temperature is 0: the likeliest id is taken, and nothing drawn that has a probability; "
            "give a temperature above 0"
        )
    if any(request.draws for request in requests):
        require_ids(model.config)
    group = 4 if any(len(x.prompts) > 2 for x in requests) else 2
    with own_jax(model):
        counts = (whole_groups(rows, group),) if rows else None
    engine = _Reporting(model, counts=counts, group=group)
    for request in requests:
        engine.add(request)
    found = {request: ([], []) for request in requests}
    while engine.busy:
        for request, ids, _ in engine.step():
            if isinstance(ids, ValueError):
                raise ids
            found[request][0].append(ids)
            found[request][1].append(engine.reported[request].pop(0)[: len(ids)])
    return [tuple(map(np.concatenate, found[request])) for request in requests]


def whole_groups(rows: int, group: int = 2) -> int:
    """Rows, rounded up to whole groups on every device of the batch axes."""
    groups = group * sh.batch_shards()
    return -(-rows // groups) * groups


def with_log_probability(ids, logits, temperature):
    """(ids, log p of each), int32 and float32 [R], as `programs.pick` drew them."""
    whole = jax.sharding.reshard(logits, sh.BATCH)
    scaled = whole / jnp.where(temperature == 0, 1.0, temperature)[:, None]
    of_ids = jnp.take_along_axis(scaled, jnp.maximum(ids, 0)[:, None], axis=1)[:, 0]
    return ids, of_ids - jax.nn.logsumexp(scaled, axis=1)


class _Reporting(Engine):
    """reported: request -> the log-probabilities of what `step` tells, a list of arrays in its order."""

    def __init__(self, model, **how):
        super().__init__(model, **how)
        self.told = with_log_probability
        self.reported = {}

    def _look(self, ids, steps: int, writers: list[tuple]) -> list[tuple]:
        ids, reported = ids
        reported = np.asarray(reported)
        for request, row in writers:
            self.reported.setdefault(request, []).append(reported[row, :steps])
        return super()._look(ids, steps, writers)
