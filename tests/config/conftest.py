"""The quick start's config."""

import copy
import dataclasses

import pytest
from support.configs import QUICKSTART

from janus_jax.config import read as read_


@pytest.fixture
def values():
    """The quick start as a plain dict."""
    return copy.deepcopy(dataclasses.asdict(read_.read(QUICKSTART)[0]))
