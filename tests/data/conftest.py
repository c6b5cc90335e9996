"""A small folder of pictures, and data sets over it."""

import json

import pytest
from PIL import Image
from support import quick

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "a").mkdir(parents=True)
    for n in (1, 2):
        Image.new("RGB", (4 * n, 5), (n, 0, 0)).save(folder / "a" / f"{n}.png")
    return folder


@pytest.fixture
def source(tmp_path, root):
    """Records -> the Source over the file that holds them."""

    def make(kind, records, name="data.json", **options):
        path = tmp_path / name
        if isinstance(records, bytes):
            path.write_bytes(records)
        else:
            path.write_text(json.dumps(records))
        return open_dataset(Dataset(kind, str(path), images=str(root), **options), 24, 0)

    return make


@pytest.fixture
def processor():
    """Of the quick start's model."""
    return quick.processor()
