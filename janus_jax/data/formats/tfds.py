"""TensorFlow Datasets prepared as ArrayRecord (or parquet), read without TensorFlow."""

import hashlib
import os

import numpy as np

from janus_jax.data.formats.files import allow_open_files, file_facts, spread
from janus_jax.data.formats.names import label
from janus_jax.data.sources import RecordError, SourceError, refuse_open_files


class Tfds:
    """name: `<name>[/<config>][:<version>]@<split>`, with `?<data_dir>` at the end where it is not
    TFDS's usual one; or `<folder of a version>@<split>`. Splits as TFDS writes them: train,
    train[:50%], train+validation.

    Rows as fields; pictures stay encoded, the only picture is "image", text is str, class labels
    become words, and "captions" of dicts with "text" (coco_captions) a list of strings.
    """

    def __init__(self, name: str):
        """Raises SourceError, or ImportError without the package."""
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise ImportError(
                f'tensorflow_datasets: not installed ({error}); run: pip install "janus_jax[tfds]"'
            ) from error
        rest, _, data_dir = name.partition("?")
        self.name, _, self.split = rest.rpartition("@")
        if not self.name or not self.split:
            raise SourceError(f"tfds:{name}: names no split; write tfds:<name>@train")
        try:
            if os.path.isdir(self.name):
                builder = tfds.builder_from_directory(self.name)
            else:
                builder = tfds.builder(self.name, data_dir=data_dir or None, try_gcs=False)
            features = builder.info.features
            pictures = [n for n, f in features.items() if isinstance(f, tfds.features.Image)]
            skip = {n: tfds.decode.SkipDecoding() for n in pictures}
            self._data = builder.as_data_source(split=self.split, decoders=skip or None)
            split = builder.info.splits[self.split]
            allow_open_files(len(split.filepaths), f"tfds:{name}")
            parts = [
                (os.path.basename(p.filename), p.skip, p.take) for p in split.file_instructions
            ]
            shards = parts, file_facts(split.filepaths, timed=False)
        except SourceError:
            raise
        except NotImplementedError as error:
            raise SourceError(
                f"tfds:{name}: {error}; prepare it again with file_format='array_record', as in "
                f"tfds.builder({self.name!r}, file_format='array_record').download_and_prepare()"
            ) from None
        except Exception as error:  # TFDS raises AssertionErrors, ValueErrors and kinds of its own
            raise SourceError(
                f"tfds:{name}: cannot be opened ({type(error).__name__}: {str(error)[:300]})"
            ) from error
        if not len(self._data):
            raise SourceError(f"tfds:{name}: holds no rows; choose another split")
        self._labels = {
            n: f.names for n, f in features.items() if isinstance(f, tfds.features.ClassLabel)
        }
        self.picture = pictures[0] if len(pictures) == 1 and "image" not in features else "image"
        self.name = builder.info.full_name
        described = repr(
            (self.name, self.split, len(self), shards, spread(self.__getitem__, len(self), 3))
        )
        self.fingerprint = hashlib.sha256(described.encode("utf-8", "surrogatepass")).hexdigest()[
            :16
        ]

    def __len__(self):
        return len(self._data)

    def __getitem__(self, i):
        """The fields of row `i`. Raises RecordError."""
        try:
            row = self._data[int(i)]
        except Exception as error:  # of ArrayRecord and of the features' decoding
            refuse_open_files(error)
            raise RecordError("damaged", f"{self.where(i)}: cannot be read ({error})") from None
        try:
            record = {n: v if n == self.picture else _plain(v) for n, v in row.items()}
        except UnicodeDecodeError as error:
            raise RecordError("not UTF-8", f"{self.where(i)}: {error}") from None
        for column, names in self._labels.items():
            record |= label(names, record[column], column)
        captions = record.get("captions")
        if isinstance(captions, dict) and "text" in captions:
            record["captions"] = captions["text"]
        elif isinstance(captions, list):
            record["captions"] = [c.get("text") if isinstance(c, dict) else c for c in captions]
        if self.picture in record:
            record["image"] = record.pop(self.picture)
        return record

    def open(self, ref):
        raise RecordError(
            "no picture", f'field "image" is {ref!r}: a row of TFDS holds its picture as bytes'
        )

    def where(self, i) -> str:
        return f"tfds:{self.name}@{self.split}: row {int(i)}"

    def __repr__(self):
        return f"Tfds({self.name}@{self.split}, {len(self)} rows, {self.fingerprint})"


def _plain(value):
    """NumPy and bytes to Python's own types. Raises UnicodeDecodeError."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
