"""A directory of checkpoints of the toy stage, opened as often as a test asks."""

import pytest

from janus_jax.checkpoint.manager import Checkpointer

RUN = {"run": "here", "config": {"seed": 0, "model": {"width": 32}}}


@pytest.fixture
def opened(tmp_path, one_device):
    """(what was said, a function that opens a Checkpointer of the same directory)."""
    said, open_ones = [], []

    def again(**how):
        open_ones.append(
            Checkpointer(tmp_path / "c", RUN | how.pop("run", {}), say=said.append, **how)
        )
        return open_ones[-1]

    yield said, again
    for one in open_ones:
        one.close()
