"""The one table of exit codes, and which error has which."""

import errno
import re

import pytest
from support.paths import ROOT

from janus_jax.common import exit_codes
from janus_jax.config.schema import ConfigError
from janus_jax.data.sources import SourceError
from janus_jax.distributed import initialize, processes, signals


@pytest.mark.parametrize(
    "error, code",
    [(ConfigError("x"), 2), (processes.HostsError("x"), 2), (initialize.Absent("x"), 69),
     (FloatingPointError("x"), 4), (signals.Preempted("x"), 0),
     (OSError(errno.ENOSPC, "x"), 74), (OSError(errno.EIO, "x"), 74), (OSError(errno.EFBIG, "x"), 74),
     (OSError(errno.EACCES, "x"), 1),
     (RuntimeError("x"), 1)],
)  # fmt: skip
def test_exit_codes(error, code):
    assert exit_codes.of_error(error) == code


def test_a_process_whose_peer_is_not_well_ends_with_its_code(monkeypatch):
    for error, code in ((SourceError("x"), 3), (ConfigError("x"), 2), (KeyError("x"), 1)):
        other = [f"{type(error).__name__}: x", exit_codes.of_error(error)]
        monkeypatch.setattr(processes, "all_gather", lambda mine, other=other: [mine, other])
        with pytest.raises(processes.Others, match=f"process 1: {type(error).__name__}") as caught:
            processes.all_or_none(lambda: "well")
        assert exit_codes.of_error(caught.value) == code


def test_every_code_has_a_row_in_the_documentation():
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "faults.md").read_text(), re.M)
    assert sorted(map(int, rows)) == sorted(exit_codes.MEANINGS)


def test_a_code_that_a_launcher_chose_is_nobody_elses():
    assert exit_codes.is_shared(3) and not exit_codes.is_shared(75) and not exit_codes.is_shared(42)
