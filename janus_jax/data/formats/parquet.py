"""Parquet files through pyarrow, a row group at a time and thread."""

import collections
import json
import logging
import threading

import numpy as np

from janus_jax.data.formats.files import Files, inside, refuse
from janus_jax.data.formats.names import label
from janus_jax.data.sources import RecordError, refuse_open_files

# kept by each thread: open files; row groups without and with pictures
_HANDLES = 4
_GROUPS = 2
_LARGE = 256 * 2**20  # bytes of a row group above which shuffled reading is said to be slow


class Parquet:
    """Rows as fields. A column of pictures, bytes or the hub's struct {"bytes", "path"}, is read
    only when a picture is opened; the only such struct is "image", whatever its name. The hub's
    class labels become words."""

    def __init__(self, path: str, images: str = ""):
        """images: where rows name pictures by path; by default the folder of the files. Raises
        SourceError, or ImportError without pyarrow."""
        parquet = _pyarrow()
        self.files = Files(path, (".parquet",))
        self._root = images or self.files.base
        problems = []
        rows = []
        first = None
        for f, (name, file) in enumerate(zip(self.files.names, self.files.paths)):
            try:
                with parquet.ParquetFile(file) as opened:
                    meta = opened.metadata
                    schema = opened.schema_arrow
                    groups = [meta.row_group(g) for g in range(meta.num_row_groups)]
            except Exception as error:  # pyarrow has several kinds for damaged files
                refuse_open_files(error)
                problems.append(
                    f"{name}: cannot be read as parquet ({error}); copy or download it again"
                )
                continue
            first = first or (name, schema)
            if not meta.num_rows:
                problems.append(f"{name}: holds no rows; remove it")
            elif schema.names != first[1].names:
                problems.append(
                    f"{name}: has columns {schema.names}, {first[0]} has {first[1].names}; read "
                    f"them apart"
                )
            rows += [
                (f, g, group.num_rows, group.total_byte_size) for g, group in enumerate(groups)
            ]
        refuse(path, problems)
        self._file, self._group, counts, sizes = np.array(rows, np.int64).T
        self._ends = np.cumsum(counts)
        self._local = threading.local()
        self._names, self._labels, self._lazy, self.picture = _columns(first[1])
        if sizes.max() > _LARGE:
            logging.warning(
                "%s: row groups of up to %d MB are read whole for each record; for shuffled "
                "reading convert it to "
                "array_record (python -m janus_jax.data convert)", path, sizes.max() // 10**6,
            )  # fmt: skip
        self.fingerprint = self.files.fingerprint(len(self))

    def __len__(self):
        return int(self._ends[-1])

    def __getitem__(self, i):
        """The fields of row `i`; pictures as references for `open`. Raises RecordError."""
        others = [name for name in self._names if name not in self._lazy]
        record = self._row(i, others) if others else {}
        for name, names in self._labels.items():
            record |= label(names, record[name], name)
        record |= {name: (int(i), name) for name in self._lazy}
        if self.picture in record:
            record["image"] = record.pop(self.picture)
        return record

    def open(self, ref) -> str | bytes:
        """A picture's file, or its path. Raises RecordError."""
        if isinstance(ref, tuple):
            i, name = ref
            ref = self._row(i, [name])[name]
            if isinstance(ref, dict):
                ref = ref.get("bytes") or ref.get("path")
            if not ref:
                raise RecordError("no picture", f'field "{name}" is null')
        return ref if isinstance(ref, bytes) else inside(self._root, ref)

    def where(self, i) -> str:
        g = int(np.searchsorted(self._ends, i, side="right"))
        first = int(np.searchsorted(self._file, self._file[g]))
        begin = int(self._ends[first - 1]) if first else 0
        return f"{self.files.names[self._file[g]]}: row {int(i) - begin}"

    def __repr__(self):
        return f"Parquet({self.files!r}, {len(self)} rows, {self.fingerprint})"

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state):
        self.__dict__ |= state | {"_local": threading.local()}

    def _row(self, i, columns: list[str]) -> dict:
        g = int(np.searchsorted(self._ends, i, side="right"))
        row = int(i) - (int(self._ends[g - 1]) if g else 0)
        try:
            return self._table(g, columns, row).slice(row, 1).to_pylist()[0]
        except Exception as error:  # damaged pages raise several kinds
            refuse_open_files(error)
            raise RecordError("damaged", f"{self.where(i)}: cannot be read ({error})") from None

    def _table(self, g: int, columns: list[str], row: int):
        """Row group `g`, kept for the thread's next rows: up to `row` at first, since shuffled
        reading rarely comes back; whole when more of it is asked for. A handle shared by threads
        hangs or fails in pyarrow."""
        handles = self._local.__dict__.setdefault("handles", collections.OrderedDict())
        tables = self._local.__dict__.setdefault(
            "pictures" if columns[0] in self._lazy else "rows", collections.OrderedDict()
        )
        key = g, tuple(columns)
        if key not in tables or tables[key].num_rows <= row:
            f = int(self._file[g])
            if f not in handles:
                # Mapped: a group is decoded from the page cache without a copy of it, in about half
                # the time.
                file = self.files.paths[f]
                handles[f] = _pyarrow().ParquetFile(file, pre_buffer=False, memory_map=True)
            group = int(self._group[g])
            options = {"columns": columns, "use_threads": False}
            if key in tables:
                tables[key] = handles[f].read_row_group(group, **options)
            else:
                tables[key] = next(handles[f].iter_batches(row + 1, row_groups=[group], **options))
            handles.move_to_end(f)
            if len(handles) > _HANDLES:
                handles.popitem(last=False)[1].close()
            if len(tables) > _GROUPS:
                tables.popitem(last=False)
        return tables[key]


def _columns(schema):
    """Columns; class names by column; columns read when opened; the column that is to be
    "image"."""
    import pyarrow.types as kinds

    features = (
        json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        .get("info", {})
        .get("features", {})
    )
    labels = {
        n: f["names"]
        for n, f in features.items()
        if isinstance(f, dict) and f.get("_type") == "ClassLabel"
    }
    structs = [
        f.name for f in schema if kinds.is_struct(f.type) and f.type.get_field_index("bytes") >= 0
    ]
    image = structs[0] if len(structs) == 1 and "image" not in schema.names else "image"
    binary = [f.name for f in schema if kinds.is_binary(f.type) or kinds.is_large_binary(f.type)]
    lazy = [name for name in (*structs, *binary) if name in (image, "image")]
    return schema.names, {n: v for n, v in labels.items() if n in schema.names}, lazy, image


def _pyarrow():
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f'pyarrow: not installed ({error}); run: pip install "janus_jax[parquet]"'
        ) from error
    return pyarrow.parquet
