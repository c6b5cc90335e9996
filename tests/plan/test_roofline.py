"""How fast a step could be at best."""

import dataclasses
import types

import pytest
from support import quickstart

from janus_jax.distributed import chips
from janus_jax.model import flops
from janus_jax.plan import collectives, roofline


def test_a_bound_is_its_longest_part_and_its_speeds_follow():
    sent = [collectives.Collective("all-gather", ("fsdp",), (0, 1), 1, 27e9)]
    chip = dataclasses.replace(quickstart.CPU, flops=1e12, bandwidth=1e9, link=9e9)
    limit = roofline.bound(chip, 4e12, 2e9, sent)
    assert (limit.compute, limit.memory, limit.links) == (4, 2, 3)
    assert limit.overlapped == 4 and limit.in_turn == 9
    stage, work = (
        quickstart.small().stages["stage2"],
        types.SimpleNamespace(tokens=100.0, understanding_images=3.0, generation_images=5.0),
    )
    speed = roofline.speeds(dataclasses.replace(stage, steps=86400), chip, 2, 4e12, work, 4.0)
    assert (
        speed["mfu"] == 0.5
        and speed["tokens_per_s"] == 25
        and speed["images_per_s"] == 2
        and speed["days"] == 4
    )


def test_a_true_float32_encoder_takes_six_times_as_long_on_a_tpu():
    experiment = quickstart.small()
    stage, model = (
        experiment.stages["stage2"],
        dataclasses.replace(experiment.model, dtype="bfloat16"),
    )
    work = flops.expected(stage, model)
    drawn = dataclasses.replace(work, generation_images=0.0)
    times = {
        name: [roofline.executed(stage, model, w, chips.CHIPS[name]) for w in (work, drawn)]
        for name in ("v5p", "cpu")
    }
    on_tpu, on_cpu = (encoded - without for encoded, without in times.values())
    assert on_tpu == pytest.approx(6 * on_cpu, rel=1e-6) and on_cpu > 0
    assert times["v5p"][1] == times["cpu"][1]
    exact = dataclasses.replace(model, dtype="float32")
    whole = roofline.executed(stage, exact, work, chips.CHIPS["v5p"])
    assert whole == pytest.approx(6 * times["cpu"][0], rel=1e-6)
