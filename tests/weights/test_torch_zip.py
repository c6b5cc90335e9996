"""Files that torch itself reads, written without it."""

import numpy as np
import torch

from janus_jax.weights import pickles
from janus_jax.weights import tensors as ts
from janus_jax.weights.target import TensorToWrite
from janus_jax.weights.torch_zip import write_torch

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.arange(4).astype(ts.BFLOAT16),
    "number": np.array(7, np.int64),
    "none": np.zeros((0, 5), np.float16),
    "ümlaut": np.array([True, False]),
}


def entries():
    one = lambda x: [x] if x.ndim == 0 else list(x)  # a row a piece
    return [TensorToWrite(n, x.shape, x.dtype, lambda x=x: iter(one(x))) for n, x in ARRAYS.items()]


def test_torch_reads_what_was_written_and_its_reader_of_tensors_alone_too(tmp_path):
    counted = []
    write_torch(tmp_path / "a.pt", "model", entries(), counted.append)
    assert sum(counted) == sum(x.nbytes for x in ARRAYS.values())
    for options in (
        {"weights_only": True},
        {"weights_only": False},
        {"weights_only": True, "mmap": True},
    ):
        read = torch.load(tmp_path / "a.pt", **options)
        assert list(read) == ["model"] and list(read["model"]) == list(ARRAYS)
        for name, x in ARRAYS.items():
            got = read["model"][name]
            assert got.shape == x.shape and str(got.dtype) == f"torch.{x.dtype}"
            assert np.array_equal(got.float().numpy(), x.astype(np.float32))


def test_our_own_reader_finds_the_same_and_the_bytes_do_not_change(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_torch(tmp_path / name / "x.pt", "ema", entries())
    path = tmp_path / "a" / "x.pt"
    assert path.read_bytes() == (tmp_path / "b" / "x.pt").read_bytes()
    found, left_out = pickles.state_dict(path, pickles.read_pickle(path))
    assert not left_out and list(found) == list(ARRAYS)
    for name, x in ARRAYS.items():
        assert found[name].dtype == x.dtype and np.array_equal(found[name].read(), x)
