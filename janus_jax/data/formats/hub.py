"""Data sets of the Hugging Face hub, or folders that `save_to_disk` wrote, through `datasets`."""

import contextlib
import hashlib
import os

from janus_jax.data.formats.files import file_facts, inside, spread
from janus_jax.data.formats.names import label
from janus_jax.data.sources import RecordError, SourceError, refuse_open_files


class HubDataset:
    """name: `owner/name:split`, `owner/name/config:split` or `<folder>:split`; no split is "train".
    Rows as fields, pictures as they are stored; the only column of pictures is "image", and class
    labels become words."""

    def __init__(self, name: str, images: str = ""):
        """images: where rows name pictures by path; by default the folder. Raises SourceError, or
        ImportError without the package."""
        self.name, _, split = name.partition(":")
        self.split = split or "train"
        try:
            import datasets
        except ImportError as error:
            raise ImportError(
                f'datasets: not installed ({error}); run: pip install "janus_jax[hf]"'
            ) from error
        folder = os.path.expanduser(self.name)
        self._roots = [images or folder, os.path.dirname(str(datasets.config.HF_DATASETS_CACHE))]
        try:
            self._data = self._load(datasets, folder)
        except IndexError:  # what `load_from_disk` makes of a set without files
            raise SourceError(f"hf:{name}: holds no rows; choose another split") from None
        except Exception as error:  # of the network, the hub, the file system and Arrow
            raise SourceError(
                f"hf:{name}: cannot be opened ({type(error).__name__}: {error})"
            ) from error
        if not len(self._data):
            raise SourceError(f"hf:{name}: holds no rows; choose another split")
        self.name = os.path.basename(folder.rstrip(os.sep)) if os.path.isdir(folder) else self.name
        features = self._data.features
        pictures = []
        self._labels = {}
        for column, feature in features.items():
            inner = getattr(feature, "feature", None)
            if isinstance(feature, datasets.Image):
                self._data = self._data.cast_column(column, datasets.Image(decode=False))
                pictures.append(column)
            elif isinstance(inner, datasets.Image):
                self._data = self._data.cast_column(
                    column, type(feature)(datasets.Image(decode=False))
                )
            elif isinstance(feature, datasets.ClassLabel):
                self._labels[column] = feature.names
        self.picture = pictures[0] if len(pictures) == 1 and "image" not in features else "image"
        columns = sorted(map(str, features.items()))
        described = repr((self.name, self.split, len(self), columns, self._content(folder)))
        self.fingerprint = hashlib.sha256(described.encode("utf-8", "surrogatepass")).hexdigest()[
            :16
        ]

    def __len__(self):
        return len(self._data)

    def __getitem__(self, i):
        """The fields of row `i`. Raises RecordError."""
        record = self._row(self._data, i)
        for column, names in self._labels.items():
            record |= label(names, record[column], column)
        if self.picture in record:
            record["image"] = record.pop(self.picture)
        return record

    def open(self, ref: str) -> str:
        """A picture's path as `datasets` gives it: below its cache or the folder. Raises
        RecordError."""
        for root in self._roots[: 2 if os.path.isabs(ref) else 1]:
            with contextlib.suppress(RecordError):
                return inside(root, ref)
        raise RecordError(
            "outside the folder",
            f'field "image" leaves the folder of the data set and the cache: {ref[:80]!r}',
        )

    def where(self, i) -> str:
        return f"hf:{self.name}:{self.split}: row {int(i)}"

    def __repr__(self):
        return f"HubDataset({self.name}:{self.split}, {len(self)} rows, {self.fingerprint})"

    def _row(self, data, i) -> dict:
        try:
            return dict(data[int(i)])
        except Exception as error:  # of Arrow
            refuse_open_files(error)
            raise RecordError("damaged", f"{self.where(i)}: cannot be read ({error})") from None

    def _content(self, folder: str) -> tuple:
        """What tells one content from another: of a folder its Arrow files; of the hub the
        checksums of what was downloaded, since each host makes Arrow files with paths of its own in
        them. And some rows, without pictures.
        """
        made = self._data.cache_files if os.path.isdir(folder) else []
        downloads = {} if made else self._data.info.download_checksums or {}
        sums = sorted(repr((d.get("num_bytes"), d.get("checksum"))) for d in downloads.values())
        sums += sorted(url for url in downloads if "://" in url)  # the hub's name the commit
        pictures = [n for n, f in self._data.features.items() if "decode=False" in str(f)]
        words = self._data.remove_columns(pictures)
        return (
            file_facts([file["filename"] for file in made], timed=True),
            sums,
            spread(lambda i: self._row(words, i), len(self)),
        )

    def _load(self, datasets, folder: str):
        if os.path.isdir(folder):
            found = datasets.load_from_disk(folder)
            return found if isinstance(found, datasets.Dataset) else found[self.split]
        if self.name.startswith(("/", ".", "~")):
            raise FileNotFoundError(f"no folder {self.name}")
        owner, name, *config = self.name.split("/") if "/" in self.name else ("", self.name)
        return datasets.load_dataset(
            "/".join(filter(None, (owner, name))), *config, split=self.split
        )
