"""Small data sets of pieces of photographs in every format, and what is said of those that are
refused."""

import csv
import functools
import gzip
import io
import json
import tarfile

import msgpack
import numpy as np
import pytest
from PIL import Image

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.sources import RecordError, SourceError

skimage = pytest.importorskip("skimage")
NAMES = ("astronaut", "coffee", "chelsea")


@functools.cache
def jpeg(name, size=96):
    photo = Image.fromarray(getattr(skimage.data, name)())
    photo.thumbnail((size, size))
    photo.save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


@functools.cache
def photo(k):
    """JPEG of a piece of a photograph, another one for each k."""
    rng, whole = np.random.default_rng(k), Image.fromarray(getattr(skimage.data, NAMES[k % 3])())
    side = int(rng.integers(100, 200))
    left, top = (int(rng.integers(length - side)) for length in whole.size)
    piece = whole.crop((left, top, left + side, top + side)).resize((96, 64 + k % 3 * 32))
    piece.save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


def caption(k):
    return f"{NAMES[k % 3]} number {k}"


def json_lines(root, n):
    for k in range(n):
        (root / f"{k}.jpg").write_bytes(photo(k))
    lines = [json.dumps({"image": f"{k}.jpg", "caption": caption(k)}) for k in range(n)]
    (root / "data.jsonl").write_text("\n".join(lines))
    return root / "data.jsonl"


def json_list(root, n):
    lines = json_lines(root, n).read_text().split("\n")
    (root / "data.json").write_text("\ufeff[\r\n" + " ,\n".join(lines) + "]\n", encoding="utf-8")
    return root / "data.json"


def csv_rows(root, n):
    """Captions with all that cells are quoted for, as Python's own module writes them."""
    json_lines(root, n)
    with open(root / "data.csv", "w", newline="", encoding="utf-8-sig") as file:
        rows = csv.writer(file)
        rows.writerow(["caption", "image"])
        rows.writerows([caption(k), f"{k}.jpg"] for k in range(n))
    return root / "data.csv"


def gzipped(root, n):
    (root / "packed.jsonl.gz").write_bytes(gzip.compress(json_lines(root, n).read_bytes()))
    return root / "packed.jsonl.gz"


def image_folder(root, n):
    """As Hugging Face's imagefolder: metadata.csv beside the pictures."""
    table = csv_rows(root, n).read_text("utf-8-sig").replace("caption,image", "text,file_name")
    (root / "metadata.csv").write_text(table)
    for left in ("data.csv", "data.jsonl"):
        (root / left).unlink()
    return root


def two_paths(root, n):
    """JSON lines and CSV of two folders, each with pictures of its own."""
    json_lines(root, n // 2)
    (root / "more").mkdir()
    rows = ["image,caption"]
    for k in range(n // 2, n):
        (root / "more" / f"{k - n // 2}.jpg").write_bytes(photo(k))
        rows.append(f"{k - n // 2}.jpg,{caption(k)}")
    (root / "more" / "data.csv").write_text("\n".join(rows))
    return f"{root}/data.jsonl, {root}/more/data.csv"


def flat(root, n):
    for k in range(n):
        (root / f"{k:03}.jpg").write_bytes(photo(k))
        (root / f"{k:03}.txt").write_text(caption(k) + "\n")
    return root


def tars(root, n, format=tarfile.PAX_FORMAT, folder=""):
    for shard in range(2):
        with tarfile.open(root / f"{shard}.tar", "w", format=format) as tar:
            for k in range(shard * n // 2, (shard + 1) * n // 2):
                members = {"jpg": photo(k), "txt": caption(k).encode(), "json": b'{"score": 0.5}'}
                for suffix, data in members.items():
                    member = tarfile.TarInfo(f"{folder}{k:03}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return root


def array_record(root, n):
    from array_record.python.array_record_module import ArrayRecordWriter

    for shard in range(2):
        writer = ArrayRecordWriter(
            str(root / f"x-{shard:05}-of-00002.array_record"), "group_size:1"
        )
        for k in range(shard * n // 2, (shard + 1) * n // 2):
            writer.write(msgpack.packb({"image": photo(k), "caption": caption(k)}))
        writer.close()
    return root


def hub_table(n):
    datasets = pytest.importorskip("datasets")
    features = {"img": datasets.Image(), "caption": datasets.Value("string")}
    features["label"] = datasets.ClassLabel(names=["an_astronaut", "coffee", "cat"])
    rows = {"img": [{"bytes": photo(k), "path": None} for k in range(n)]}
    rows |= {"caption": [caption(k) for k in range(n)], "label": [k % 3 for k in range(n)]}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def parquet(root, n):
    pytest.importorskip("pyarrow")
    hub_table(n).to_parquet(str(root / "data.parquet"), batch_size=5)
    return root / "data.parquet"


def plain_parquet(root, n):
    pyarrow, parquet = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))
    rows = {"image": [photo(k) for k in range(n)], "caption": [caption(k) for k in range(n)]}
    parquet.write_table(pyarrow.table(rows), root / "plain.parquet", row_group_size=4)
    return root


def saved_by_datasets(root, n):
    hub_table(n).save_to_disk(str(root / "saved"))
    return root / "saved"


@functools.cache
def photographs():
    """A builder: TFDS takes each once in a process."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Photographs(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            picture = tfds.features.Image(encoding_format="jpeg")
            features = {"picture": picture, "caption": tfds.features.Text()}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for k in range(self.count):
                yield k, {"picture": io.BytesIO(photo(k)), "caption": caption(k)}

    return Photographs


def tfds(root, n):
    """TFDS orders rows by a hash of their keys, so these are found by their captions."""
    photographs().count = n
    photographs()(data_dir=str(root), file_format="array_record").download_and_prepare()
    return f"tfds:photographs:1.0.0@train?{root}"


def write_classes(root):
    for k, name in enumerate(("n02", "n01", "sea_lion")):
        (root / name).mkdir(parents=True)
        (root / name / "b.JPEG").write_bytes(jpeg(NAMES[k]))
        (root / name / "a.png").write_bytes(jpeg(NAMES[k]))
    return str(root)


def refused(make, error=RecordError):
    """The error that `make()` raises."""
    with pytest.raises(error) as caught:
        make()
    return caught.value


def refusal(path, kind="generation", **options):
    """What is said of a data set that cannot be opened."""
    with pytest.raises(SourceError) as error:
        open_dataset(Dataset(kind, str(path), **options), 24, 0)
    return str(error.value)


WRITERS = [
    json_lines, json_list, csv_rows, gzipped, image_folder, flat, tars,
    functools.partial(tars, format=tarfile.USTAR_FORMAT, folder="p" * 60 + "/" + "q" * 60 + "/"),
    functools.partial(tars, format=tarfile.GNU_FORMAT, folder="x" * 120 + "/"),
    functools.partial(tars, folder="x" * 120 + "/é/"),
    array_record, parquet, plain_parquet, saved_by_datasets, tfds,
]  # fmt: skip
