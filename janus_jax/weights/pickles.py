"""torch.save files without torch, and without running what is in them.

Format (torch.save since 1.6): a zip of NAME/data.pkl, the storages NAME/data/<key> uncompressed,
and NAME/byteorder. TorchScript archives are the same zip, with code, which is not looked at; their
modules come out as inert records. Before 1.6: four pickles (a magic number, the protocol, facts of
the machine, the object), one of the storages' keys, and the storages in that order, each behind its
length. The pickle may call what rebuilds tensors and nothing else, the meaning of torch's
`weights_only=True`; every other global is refused by name before anything of it runs. Tensors are
not read here, only located.
"""

import collections
import math
import pathlib
import pickle
import typing
import zipfile

import numpy as np

from janus_jax.weights import tensors as ts

STORAGES = {
    "DoubleStorage": np.dtype(np.float64), "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16), "BFloat16Storage": ts.BFLOAT16, "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32), "ShortStorage": np.dtype(np.int16), "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8), "BoolStorage": np.dtype(np.bool_),
}  # fmt: skip
REMEDY = "save it as safetensors where you trust it"
LISTS = {
    ("torch.jit._pickle", f"build_{kind}"): list
    for kind in ("intlist", "doublelist", "boollist", "tensorlist")
}
LEGACY = 0x1950A86A20F9469CFC6C  # the number that a torch.save file before 1.6 begins with
PICKLE_ERRORS = (  # ValueError: also what is raised here, which names the file already
    pickle.UnpicklingError, EOFError, KeyError, AttributeError, TypeError, IndexError, ValueError,
    OverflowError, RecursionError, MemoryError,
)  # fmt: skip


class Kind(typing.NamedTuple):
    """Stands for torch.<name>Storage."""

    storage: str


class Storage(typing.NamedTuple):
    offset: int
    dtype: np.dtype
    count: int


class Record:
    """An argparse.Namespace or a TorchScript module, as its fields."""


def read_pickle(path: pathlib.Path):
    """The object that torch.save or torch.jit.save wrote, with `Tensor`s for tensors and inert
    `Record`s for argparse namespaces and modules of TorchScript.

    Raises ValueError naming the file for what is no such file, a global that is not allowed, or a
    tensor that reaches beyond its storage.
    """
    ts.refuse_other_content(path, path.open("rb").read(512))
    if not zipfile.is_zipfile(path):
        return _read_legacy(path)
    try:
        return _read_archive(path)
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged ({error}); download or copy it again") from None


def _read_archive(path: pathlib.Path):
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        main = next((name for name in entries if name.endswith("/data.pkl")), None)
        if main is None:
            raise ValueError(
                f"{path}: a zip file without data.pkl, so not one that torch.save wrote"
            )
        root = main.removesuffix("data.pkl")
        if root + "byteorder" in entries and archive.read(root + "byteorder") != b"little":
            raise ValueError(f"{path}: big-endian numbers; {REMEDY}")

        def locate(pid) -> Storage:
            _, kind, key, _, count = pid
            info = entries[f"{root}data/{key}"]
            dtype = STORAGES[kind.storage]
            if info.compress_type != zipfile.ZIP_STORED or info.file_size < count * dtype.itemsize:
                raise ValueError(f"{path}: storage {key} is compressed or cut short; {REMEDY}")
            return Storage(ts.entry_offset(path, info), dtype, count)

        with archive.open(main) as file:
            try:
                return _unpickler(path, locate)(file).load()
            except PICKLE_ERRORS as error:
                if str(path) in str(error):
                    raise
                raise ValueError(f"{path}: its pickle cannot be read ({error}); {REMEDY}") from None


def _read_legacy(path: pathlib.Path):
    """The object's pickle is read twice: where its storages lie is written behind it."""
    places = {}

    def locate(pid) -> Storage:
        _, kind, key, _, count, view = pid
        if view is not None:
            raise ValueError(
                f"{path}: storage {key} is part of another (torch before 0.4); {REMEDY}"
            )
        begin = places.setdefault(key, (0, STORAGES[kind.storage], count))[0]
        return Storage(begin, STORAGES[kind.storage], count)

    def load(file, storages=None):
        return _unpickler(path, storages)(file).load()

    with open(path, "rb") as file:
        try:
            if load(file) != LEGACY or load(file) != 1001 or not load(file)["little_endian"]:
                raise pickle.UnpicklingError("not the head that torch.save writes")
            begin = file.tell()
            load(file, locate)
            for key in load(file):
                _, dtype, count = places[key]
                length = int.from_bytes(file.read(8), "little")
                at = file.tell()
                end = at + length * dtype.itemsize
                if length < count or end > path.stat().st_size:
                    raise pickle.UnpicklingError(f"storage {key} is cut short")
                places[key] = (at, dtype, count)
                file.seek(end)
            file.seek(begin)
            return load(file, locate)
        except PICKLE_ERRORS as error:
            if str(path) in str(error):
                raise
            raise ValueError(
                f"{path}: not a whole file of torch.save ({error}); download or copy it again, or "
                f"{REMEDY}"
            ) from None


def _parameter_class():
    """For one file, as all that a pickle can call."""

    class Parameter(ts.Tensor):
        """Of torch before 0.4: made of its tensor, or empty and given it first of five facts."""

        def __init__(self, data=None, requires_grad=False):
            self.__dict__.update(vars(data) if isinstance(data, ts.Tensor) else {})

        def __setstate__(self, state):
            if len(state) == 5:
                self.__init__(state[0])

    return Parameter


def _unpickler(path, locate):
    """A pickle.Unpickler class for one file. All it can call is made here, for this file alone.
    locate: the `Storage` of a persistent id; None where there may be none."""

    class Own(Record):
        """Of this file: a pickle can set attributes of a class."""

    def rebuild_tensor(
        storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None
    ):
        shape = tuple(size)
        stride = tuple(stride)
        if min(shape, default=0) < 0 or math.prod(shape) > storage.count:
            raise ValueError(
                f"{path}: a tensor {shape} of a storage of {storage.count} numbers; file damaged"
            )
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride)) if math.prod(shape) else -1
        if offset < 0 or min(stride, default=0) < 0 or last >= storage.count:
            raise ValueError(
                f"{path}: a tensor {shape} reaches beyond its storage; the file is damaged"
            )
        plain = all(n == 1 or a == b for n, a, b in zip(shape, stride, ts.c_strides(shape)))
        at = storage.offset + offset * storage.dtype.itemsize
        return ts.Tensor(path, at, shape, storage.dtype, None if plain else stride)

    def rebuild_tensor_v3(
        storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None
    ):
        """Of types that have no storage of their own; this storage counts bytes."""
        storage = Storage(storage.offset, dtype, storage.count // dtype.itemsize)
        return rebuild_tensor(storage, offset, size, stride)

    def rebuild_parameter(data, requires_grad=False, hooks=None):
        return data

    allowed = {
        ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch.nn.parameter", "Parameter"): _parameter_class(),
        ("torch._utils", "_rebuild_tensor_v3"): rebuild_tensor_v3,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("argparse", "Namespace"): Own,
        ("torch", "Size"): tuple,
        ("torch.storage", "UntypedStorage"): Kind("ByteStorage"),
        ("torch", "float8_e4m3fn"): ts.SAFETENSORS["F8_E4M3"],
        ("torch", "float8_e5m2"): ts.SAFETENSORS["F8_E5M2"],
        ("torch.jit._pickle", "restore_type_tag"): lambda value, tag: value,
        **LISTS,
    } | {("torch", name): Kind(name) for name in STORAGES}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if module.split(".")[0] == "__torch__":  # a module whose code lies in the archive
                return Own
            if (module, name) not in allowed:
                raise ValueError(
                    f"{path}: its pickle asks for {module}.{name}, which could run code; refused, "
                    f"nothing was run. {REMEDY.capitalize()}"
                )
            return allowed[module, name]

        def persistent_load(self, pid):
            if locate is None:
                raise pickle.UnpicklingError("a tensor where none may be")
            return locate(pid)

    return Unpickler


def state_dict(path: pathlib.Path, found) -> tuple[dict, dict[str, str]]:
    """(name -> Tensor, what is left out -> reason) of an unpickled object: the object itself, or
    what it holds under "ema" (LlamaGen's averaged weights, which its own evaluation prefers),
    "model" or "state_dict". Raises ValueError when there are no tensors at any of these places."""
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds a {type(found).__name__}, not a dictionary of tensors")
    place = next(
        (key for key in ("ema", "model", "state_dict") if isinstance(found.get(key), dict)), None
    )
    if place is None:
        weights = {name: x for name, x in found.items() if isinstance(x, ts.Tensor)}
        rest = {f"{name}": "no tensor" for name in found if name not in weights}
    else:
        weights = {name: x for name, x in found[place].items() if isinstance(x, ts.Tensor)}
        rest = {f"{name}": f"beside the weights under {place!r}" for name in found if name != place}
    if not weights:
        raise ValueError(f"{path}: no tensors at its top, nor under 'ema', 'model' or 'state_dict'")
    return weights, rest


def script_tensors(module: Record, prefix: str = "") -> dict[str, ts.Tensor]:
    """The tensors of a TorchScript module by the names that its `state_dict()` gives them."""
    found = {}
    for name, value in vars(module).items():
        if isinstance(value, Record):
            found |= script_tensors(value, f"{prefix}{name}.")
        elif isinstance(value, ts.Tensor):
            found[prefix + name] = value
    return found
