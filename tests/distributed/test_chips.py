"""Chips by their names and by what devices say of themselves."""

import types

import pytest
from support import quickstart

from janus_jax.distributed import chips


def test_topologies_are_read_and_mistakes_named():
    chip, count = chips.parse_topology("v5p:4x4x8")
    assert chip.name == "v5p" and count == 128 and chip.flops == 459e12
    assert chips.parse_topology("a100-40gb:128")[1] == 128
    shared = chips.parse_topology("cpu:2")[0]
    assert (
        shared.flops == 4 * quickstart.CPU.flops and shared.memory == 4 * quickstart.CPU.memory > 0
    )
    for text, words in (
        ("v5:2x2", "did you mean v5e or v5p"), ("a100:8", "a100-40gb or a100-80gb"), ("tofu:8", "known: v4"),
        ("v5p:128", "3 sizes"), ("v5e:4x4x4", "2 sizes"), ("h100", "h100:8"), ("h100:0", "number"), ("cpu:8x", "cpu:8"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=text) as error:
            chips.parse_topology(text)
        assert words in str(error.value)


def test_devices_are_known_by_their_kind():
    name = lambda kind: (
        (found := chips.of_device(types.SimpleNamespace(device_kind=kind))) and found.name
    )
    assert (
        name("TPU v5 lite") == "v5e"
        and name("TPU v5") == name("TPU v5p") == "v5p"
        and name("TPU v4") == "v4"
    )
    assert name("NVIDIA A100-SXM4-80GB") == "a100-80gb" and name("NVIDIA H100 80GB HBM3") == "h100"
    assert name("NVIDIA H100 PCIe") is None and name("TPU v4 lite") is None and name("cpu") is None
