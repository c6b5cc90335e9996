"""Records read by threads, in order."""

import threading

import pytest

from janus_jax.data.sources import RecordError
from janus_jax.data.tools.read_ahead import AHEAD, read_ahead


def test_batches_come_in_order_with_errors_in_place_and_some_are_read_ahead():
    read = set()

    def one(i):
        read.add(i)
        if i == 3:
            raise RecordError("bad", "it")
        return threading.current_thread().name != "MainThread" and -i

    parts = [(k, range(2 * k, 2 * k + 2)) for k in range(10)]
    batches = read_ahead(one, parts, 2)
    first = next(batches)
    assert first == (0, range(2), [0, -1])
    assert max(read) < 2 * (AHEAD + 1)
    rest = list(batches)
    assert [key for key, _, _ in rest] == list(range(1, 10))
    assert str(rest[0][2][1]) == "it" and rest[0][2][0] == -2 and rest[8][2] == [-18, -19]


def test_a_fault_that_is_no_records_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda i: 1 // i, [(0, [0])], 1))
