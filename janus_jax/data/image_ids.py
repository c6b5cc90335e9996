"""VQ ids of pictures to draw, computed once: reading them, and whose they are (paper section 3.1).

A directory that `python -m janus_jax.data tokenize` made:
    image_ids.json               what the ids are made of (`Origin`), the command, and on which
                                 platforms and with which versions they were computed
    ids-00000-of-00016.npy ...   [records of the shard, N], in the source's order; uint16 where the
                                 codebook allows
    bad_records.jsonl            records whose picture could not be used: their ids are all the
                                 largest number
N image tokens of a picture.
"""

import dataclasses
import hashlib
import json
import pathlib
import shlex

import numpy as np

from janus_jax.data.images import GENERATION_RECIPE
from janus_jax.data.sources import RecordError, Source, SourceError

FILE = "image_ids.json"
BAD_RECORDS = "bad_records.jsonl"
COMMAND = "python -m janus_jax.data tokenize"
# How the tokenizer computes, on every platform (see model/kernels.py). Ids computed otherwise differ.
PRECISION = "float32 highest"
DECODING = ("decoder.", "post_quant_conv.")  # of the tokenizer: takes no part in ids


@dataclasses.dataclass(frozen=True)
class Origin:
    """All that ids depend on, the machine's rounding aside.

    tokenizer: its `tokenizer_fingerprint`.
    generation_encoder: its sizes, `model.config.to_dict` of a GenerationEncoderConfig.
    preprocessing: see `preprocessing`.
    source: fingerprint of the pictures, see `pictures_of`.
    records: of the source.
    shard: records in a file, the last one's fewer.
    precision: of the tokenizer's products; empty in files that do not say.
    """

    tokenizer: str
    generation_encoder: dict
    preprocessing: str
    source: str
    records: int
    shard: int
    precision: str = PRECISION

    @property
    def tokens(self) -> int:
        sizes = self.generation_encoder
        return (sizes["image_size"] // 2 ** (len(sizes["multipliers"]) - 1)) ** 2

    @property
    def dtype(self) -> np.dtype:
        """Of the shards: the largest number must be no id, it marks records without ids."""
        return np.dtype(
            np.uint16 if self.generation_encoder["codebook_size"] < 2**16 else np.uint32
        )

    @property
    def files(self) -> list[str]:
        count = -(-self.records // self.shard)
        return [f"ids-{k:05d}-of-{count:05d}.npy" for k in range(count)]

    def differences(self, other: "Origin") -> list[str]:
        """What a directory of `other` ids has otherwise, a line a field."""
        a, b = (
            json.loads(json.dumps(dataclasses.asdict(x))) for x in (self, other)
        )  # tuples as lists
        return [
            f"{name}: {a[name]} now, {b[name] or 'not said'} in {FILE}"
            for name in a
            if a[name] != b[name]
        ]


def tokenizer_fingerprint(arrays: dict) -> str:
    """sha256 over the tensors that ids depend on, as float32, by name; what only decodes is left
    out.

    arrays: path inside generation_encoder joined by dots ("codebook", "quant_conv.kernel", ...) ->
    numpy, or JAX arrays that are whole on this process. Weights that were stored as bfloat16 and as
    their float32 are one.
    """
    total = hashlib.sha256()
    for name in sorted(name for name in arrays if not name.startswith(DECODING)):
        x = np.ascontiguousarray(arrays[name], np.float32)
        total.update(f"{name} {x.shape}\n".encode())
        total.update(x.astype("<f4", copy=False).data)
    return total.hexdigest()


def pictures_of(source: Source) -> str:
    """The fingerprint of a source's pictures and their order: other captions need no other ids."""
    return getattr(source, "pictures_fingerprint", source.fingerprint)


def preprocessing(side: int) -> str:
    """What becomes of a picture before it is encoded, in words; equal words mean equal pixels."""
    return f"{GENERATION_RECIPE}, {side} pixels"


class Ids:
    """The ids of a source's pictures, by record; memory-mapped, picklable, safe to read from many
    threads.

    Raises SourceError where the directory holds none, or not all.
    """

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.origin, self.arguments = read_origin(self.directory)
        self.mark = np.iinfo(self.origin.dtype).max
        self._shards = {}
        now = dataclasses.replace(self.origin, precision=PRECISION)
        if different := now.differences(self.origin):
            rounded = (
                "ids of a tokenizer whose products may have been rounded, up to 5 % of them wrong"
            )
            raise SourceError(self._stale(rounded, different) + command_line(self.arguments))
        bad = self.directory / BAD_RECORDS
        missing = [name for name in self.origin.files if not (self.directory / name).is_file()]
        if missing or not bad.is_file():
            raise SourceError(
                f"{self.directory}: not finished, {len(missing)} of {len(self.origin.files)} "
                f"shards are missing"
                f"{f' ({missing[0]}, ...)' if missing else ''}; the same command goes on where it "
                f"stopped:\n  " + command_line(self.arguments)
            )
        lines = map(json.loads, bad.read_text("utf-8").splitlines())
        self.causes = {line["record"]: line["cause"] for line in lines}
        for k in range(len(self.origin.files)):
            self._shard(k)

    def __len__(self) -> int:
        return self.origin.records

    def __repr__(self) -> str:
        return (
            f"Ids({self.origin.tokenizer[:16]} in {self.origin.precision} of {self.origin.source})"
        )

    def __getstate__(self) -> dict:
        return vars(self) | {"_shards": {}}  # a memory map would be pickled with all that it maps

    def row(self, i: int) -> np.ndarray:
        """[N] as stored."""
        if not 0 <= i < len(self):
            raise IndexError(f"{self.directory}: record {i} of {len(self)}")
        return self._shard(i // self.origin.shard)[i % self.origin.shard]

    def ids(self, i: int) -> np.ndarray:
        """int32 [N], raster order. Of a bad record they are no ids."""
        return self.row(i).astype(np.int32)

    def bad(self, i: int) -> str:
        """Why record `i` has no ids, the cause in a few words; empty where it has."""
        return self.causes.get(i, "no image ids") if self.row(i)[0] == self.mark else ""

    def require(self, arrays: dict, encoder: dict, weights: str):
        """Raises SourceError unless these ids are those of a tokenizer.

        arrays: as for `tokenizer_fingerprint`.
        encoder: `Origin.generation_encoder` of it.
        weights: the directory that it was read from, for the message.
        """
        now = dataclasses.replace(
            self.origin,
            tokenizer=tokenizer_fingerprint(arrays),
            generation_encoder=encoder,
            preprocessing=preprocessing(encoder["image_size"]),
        )
        if different := now.differences(self.origin):
            raise SourceError(
                self._stale(
                    f"the ids of another tokenizer than {weights}, from which training starts",
                    different,
                )
                + command_line(self.arguments, weights=weights)
            )

    def require_source(self, source: Source):
        """Raises SourceError unless these ids are those of the source's pictures, one a record."""
        now = dataclasses.replace(self.origin, source=pictures_of(source), records=len(source))
        if different := now.differences(self.origin):
            stale = self._stale(f"the ids of another source than {source!r}", different)
            raise SourceError(stale + command_line(self.arguments))

    def _stale(self, what: str, different: list[str]) -> str:
        lines = "\n  ".join(different)
        return (
            f"{self.directory}: holds {what}:\n  {lines}\nRemove the directory, or name another "
            f"one in the data set's "
            f"image_ids and in --out, and make them anew:\n  "
        )

    def _shard(self, k: int) -> np.ndarray:
        if k not in self._shards:
            o = self.origin
            path = self.directory / self.origin.files[k]
            shape = min(o.shard, o.records - k * o.shard), o.tokens
            try:
                found = np.load(path, mmap_mode="r", allow_pickle=False)
            except (ValueError, OSError, EOFError) as error:
                raise SourceError(f"{path}: {error}; {self._redo}") from None
            if found.shape != shape or found.dtype != o.dtype:
                raise SourceError(
                    f"{path}: {found.dtype} {found.shape}, must be {o.dtype} {shape}; {self._redo}"
                )
            self._shards[k] = found
        return self._shards[k]

    @property
    def _redo(self) -> str:
        again = command_line(self.arguments)
        return f"remove this file, and the same command makes it anew:\n  {again}"


class WithIds:
    """A generation source whose records carry `image_ids`, int32 [N]."""

    def __init__(self, source: Source, ids: Ids):
        self.source = source
        self.ids = ids
        origin = ids.origin
        self.fingerprint = f"{source.fingerprint}+{origin.tokenizer[:16]} {origin.precision}"
        # What a data set says of its pictures holds with ids too.
        for name in ("scored_by", "attribution"):
            if hasattr(source, name):
                setattr(self, name, getattr(source, name))

    def __len__(self) -> int:
        return len(self.source)

    def __repr__(self) -> str:
        return f"WithIds({self.source!r}, {self.ids!r})"

    def __getitem__(self, i: int) -> dict:
        if cause := self.ids.bad(i):
            raise RecordError(
                cause,
                f"{self.where(i)}: its picture could not be encoded ({cause}); "
                f"{self.ids.directory / BAD_RECORDS} says more",
            )
        return {**self.source[i], "image_ids": self.ids.ids(i)}

    def image(self, i: int, k: int = 0):
        return self.source.image(i, k)

    def where(self, i: int) -> str:
        return self.source.where(i)


def attach(source: Source, directory) -> WithIds:
    """`source` with the ids in a directory. Raises SourceError where they are not all there, or
    another source's."""
    ids = Ids(directory)
    ids.require_source(source)
    return WithIds(source, ids)


def read_origin(directory: pathlib.Path) -> tuple[Origin, list[str]]:
    """What a directory of ids says of itself: their origin, and the arguments of the command that
    made them. Raises SourceError where it says nothing of the kind."""
    path = directory / FILE
    try:
        values = {"precision": ""} | json.loads(path.read_text("utf-8"))
        origin = Origin(**{field.name: values[field.name] for field in dataclasses.fields(Origin)})
        if origin.tokens < 1 or origin.shard < 1 or len(origin.files) < 1:
            raise ValueError("no records")
        return origin, list(values["arguments"])
    except FileNotFoundError:
        raise SourceError(
            f"{path}: no such file, so no image ids there; make them:\n  {command_line([])}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{path}: does not say whose ids these are ({type(error).__name__}: {error}); remove "
            f"the directory and "
            f"make them anew:\n  {command_line([])}"
        ) from None


def command_line(arguments: list[str], weights: str = "") -> str:
    """The line that makes the ids, perhaps with other weights."""
    if not arguments:
        arguments = ["--config=CONFIG", "--dataset=NAME", "--weights=DIRECTORY", "--out=DIRECTORY"]
    changed = [
        f"--weights={weights}" if weights and a.startswith("--weights=") else a for a in arguments
    ]
    return f"{COMMAND} {shlex.join(changed)}"
