"""Which rows of a batch a process feeds."""

import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh

from janus_jax.distributed import arrays
from janus_jax.model import sharding as sh


@pytest.mark.parametrize(
    "owner, share, count",
    [
        ([[0], [0], [1], [1]], {0: 0, 1: 1}, 2),  # rows split over hosts
        ([[0, 0], [1, 1]], {0: 0, 1: 1}, 2),  # tensor within a host
        (
            [[0, 1], [2, 3]],
            {0: 0, 1: 0, 2: 1, 3: 1},
            2,
        ),  # tensor over two hosts: both feed the same rows
        ([[1], [0], [1], [0]], {1: 0, 0: 1}, 2),  # devices in another order than hosts
    ],
)
def test_hosts_that_hold_the_same_rows_feed_the_same(owner, share, count):
    assert arrays.shares(np.array(owner)) == (share, count)


def test_rows_that_lie_across_hosts_are_refused():
    with pytest.raises(ValueError, match="must divide a process's devices"):
        arrays.shares(np.array([[0, 0, 1], [1, 2, 2]]))


def test_a_batch_is_split_over_the_rows():
    with on_mesh(2, 2, 2):
        tokens = tiny.put(tiny.rows())["tokens"]
        assert tokens.sharding.spec == sh.BATCH
        assert {s.data.shape for s in tokens.addressable_shards} == {(2, tiny.LENGTH)}
