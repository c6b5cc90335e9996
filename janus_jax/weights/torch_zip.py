"""A file as torch.save writes it, without torch: what `torch.load(path, weights_only=True)` reads.

A zip, nothing in it compressed (see `weights.pickles`): NAME/data.pkl, one storage for each tensor,
NAME/byteorder and NAME/version. The pickle is put together by hand, since it calls functions of
torch by name: {place: {name: tensor, ...}}.
"""

import pathlib
import pickle
import zipfile
from collections.abc import Callable

import numpy as np

from janus_jax.weights import tensors as ts
from janus_jax.weights.pickles import STORAGES
from janus_jax.weights.target import TensorToWrite

NAMES = {dtype: name for name, dtype in STORAGES.items()}


def write_torch(
    path: pathlib.Path,
    place: str,
    entries: list[TensorToWrite],
    wrote: Callable[[int], None] = lambda n: None,
):
    """Writes the file; the same entries make the same bytes.

    path: of the file.
    place: the name under which the tensors lie, "model" for LlamaGen's.
    entries: the tensors, one piece of one in memory at a time.
    wrote: called with the bytes of each piece.
    """
    tensors = b"".join(_plain(e.name) + _tensor(i, e) for i, e in enumerate(entries))
    inner = pickle.EMPTY_DICT + pickle.MARK + tensors + pickle.SETITEMS
    whole = pickle.EMPTY_DICT + pickle.MARK + _plain(place) + inner + pickle.SETITEMS
    with zipfile.ZipFile(path, "w") as archive:

        def put(name: str, pieces, size: int):
            entry = zipfile.ZipInfo(f"{path.stem}/{name}")  # of 1980, whenever it is written
            entry.file_size = size
            with archive.open(entry, "w") as file:
                for piece in pieces:
                    file.write(piece)

        put("data.pkl", [pickle.PROTO + b"\x02" + whole + pickle.STOP], 0)
        put("byteorder", [b"little"], 0)
        for i, entry in enumerate(entries):
            put(f"data/{i}", _bytes(entry, wrote), entry.size)
        put("version", [b"3\n"], 0)


def _bytes(entry: TensorToWrite, wrote):
    for piece in entry.pieces():
        yield memoryview(piece.reshape(-1).view(np.uint8))
        wrote(piece.nbytes)


def _plain(value) -> bytes:
    """The pickle of a string, a number or a tuple of them, to stand within another."""
    return pickle.dumps(value, 2)[2:-1]  # without its head and its end


def _call(module: str, name: str, *arguments: bytes) -> bytes:
    inner = b"".join(arguments)
    return _global(module, name) + pickle.MARK + inner + pickle.TUPLE + pickle.REDUCE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _tensor(number: int, entry: TensorToWrite) -> bytes:
    count = entry.size // entry.dtype.itemsize
    kind = _global("torch", NAMES[entry.dtype])
    storage = _plain("storage") + kind + _plain(str(number)) + _plain("cpu") + _plain(count)
    return _call(
        "torch._utils", "_rebuild_tensor_v2",
        pickle.MARK + storage + pickle.TUPLE + pickle.BINPERSID, _plain(0), _plain(entry.shape),
        _plain(ts.c_strides(entry.shape)), pickle.NEWFALSE, _call("collections", "OrderedDict"),
    )  # fmt: skip
