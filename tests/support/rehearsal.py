"""Dry runs: what they print, and what they refuse."""

import pytest
from support.paths import ROOT

from janus_jax.training import preflight

QUICKSTART = str(ROOT / "configs" / "quickstart.py")
TINY = str(ROOT / "tests" / "support" / "two_processes.py")


def rehearsed(capsys, config, workdir, overrides=None, devices=0, **how) -> str:
    """What a dry run prints; it leaves no trace in the work directory."""
    there = sorted(workdir.rglob("*")) if workdir.exists() else None
    try:
        preflight.rehearse(config, overrides or {}, workdir, devices, **how)
    finally:
        assert (sorted(workdir.rglob("*")) if workdir.exists() else None) == there
    return capsys.readouterr().out


def refusal(kind, config, workdir, overrides=None, devices=0) -> str:
    with pytest.raises(kind) as error:
        preflight.rehearse(config, overrides or {}, workdir, devices)
    return str(error.value)
