"""Data sets that several tests of the commands read."""

import pytest
from support import planted as planted_

from janus_jax.config.schema import Dataset


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Dataset:
    """A JSON-lines file and a folder with one of each fault."""
    return planted_.planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture
def plain(tmp_path) -> Dataset:
    """A hundred small records without a fault, of 20 kB together."""
    return planted_.plain(tmp_path)
