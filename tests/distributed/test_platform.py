"""A platform that is not there is told in one line."""

import logging

import jax
import pytest

from janus_jax.common.exit_codes import UsageError
from janus_jax.distributed import platform

BRIDGE = logging.getLogger("jax._src.xla_bridge")


def broken(said: str, error: Exception | None):
    """`jax.devices` where a plugin cannot begin, and then `error` is raised."""

    def devices():
        try:
            raise RuntimeError(said)
        except RuntimeError:
            BRIDGE.exception("Jax plugin configuration error")
        if error:
            raise error
        return real()

    real = jax.devices
    return devices


@pytest.mark.parametrize(
    "error, told",
    [
        (AssertionError(), r"=cpu: JAX has no such device here \(no driver\); unset it"),
        (RuntimeError("Unable to initialize 'cuda': Unknown.\nMore"), r"\(Unable .* Unknown.; no driver\)"),
        (RuntimeError("The TPU is already in use by process 7"), "end the process that holds the device"),
    ],
    ids=str,
)  # fmt: skip
def test_jax_without_its_device_is_one_line(monkeypatch, caplog, error, told):
    monkeypatch.setattr(jax, "devices", broken("no driver", error))
    with pytest.raises(UsageError, match=told) as raised:
        platform.require_devices()
    assert "\n" not in str(raised.value) and not caplog.records and not BRIDGE.filters


def test_an_error_of_jax_that_says_nothing_is_named(monkeypatch):
    monkeypatch.setattr(jax, "devices", broken("", AssertionError()))
    with pytest.raises(UsageError, match=r"no such device here \(AssertionError\)"):
        platform.require_devices()


def test_a_plugin_that_is_left_out_is_said_without_its_stack(monkeypatch, capsys, caplog):
    monkeypatch.setattr(jax, "devices", broken("no driver", None))
    platform.require_devices()
    told = capsys.readouterr().err
    assert told == "WARNING: JAX leaves out a plugin (no driver) and runs on cpu\n"
    assert not caplog.records
