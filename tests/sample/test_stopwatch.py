"""What a command says of its seconds."""

import io

import jax
import numpy as np

from janus_jax.sample.stopwatch import COMPILING, Stopwatch


def test_each_part_is_told_without_its_compiling_and_the_last_line_has_all():
    seconds = iter([0, 12, 81.5])
    out = io.StringIO()
    with Stopwatch(out, lambda: next(seconds)) as watch:
        jax.monitoring.record_event_duration_secs(COMPILING[0], 2.0)
        jax.monitoring.record_event_duration_secs("/jax/another", 5.0)
        watch.tell("loaded")
        jax.monitoring.record_event_duration_secs(COMPILING[2], 7.5)
        watch.tell("drew")
    jax.monitoring.record_event_duration_secs(COMPILING[2], 9.0)
    assert watch.compiled == 9.5
    assert out.getvalue().splitlines() == [
        "loaded in 10 s", "loaded in 10 s, compiled in 9.5 s, drew in 62 s",
    ]  # fmt: skip


def test_it_hears_jax_compile():
    with Stopwatch(io.StringIO()) as watch:
        jax.jit(lambda x: x + 17)(np.zeros(3))
    assert watch.compiled > 0
