"""The flags of XLA that training sets."""

import os
import sys

import pytest

from janus_jax.distributed import xla_flags


@pytest.mark.processes
def test_every_flag_for_gpus_is_known_here_and_an_unknown_one_is_dropped():
    wanted = xla_flags.wanted("gpu")
    assert len(wanted) == len(xla_flags.FLAGS["gpu"])
    assert xla_flags.known("gpu", ["--xla_gpu_no_such_flag=1", *wanted]) == wanted


def test_flags_for_tpus_are_looked_up_in_libtpu(tmp_path, monkeypatch):
    wanted = xla_flags.wanted("tpu")
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu" / "__init__.py").touch()
    names = [flag[2:].partition("=")[0] for flag in wanted[1:]]
    (tmp_path / "libtpu" / "libtpu.so").write_text("\0".join(names))
    monkeypatch.delitem(sys.modules, "libtpu", raising=False)  # JAX may have imported a real one
    monkeypatch.syspath_prepend(tmp_path)
    assert xla_flags.known("tpu", wanted) == wanted[1:]


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setattr(xla_flags, "here", lambda: "gpu")
    monkeypatch.setattr(xla_flags, "known", lambda platform, names: names)
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=true --xla_mine=3")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    monkeypatch.setattr(xla_flags, "ADDED", [])
    xla_flags.apply()
    assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.5"
    assert "xla_mine" not in xla_flags.of_step(1, False, xla_flags.ADDED)
    assert "xla_gpu_enable_triton_gemm" not in xla_flags.of_step(1, False, xla_flags.ADDED)
    words = os.environ["XLA_FLAGS"].split()
    assert words[:2] == ["--xla_gpu_enable_triton_gemm=true", "--xla_mine=3"]
    assert sum("triton_gemm" in word for word in words) == 1
    assert len(words) == len(xla_flags.FLAGS["gpu"]) + 1


def test_no_flag_is_set_without_the_accelerator(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    xla_flags.apply()
    assert "XLA_FLAGS" not in os.environ
