"""The curves of a run."""

import sys

import numpy as np
import pytest
from support.logs import run


def test_curves_are_drawn_from_the_file(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    log = run(tmp_path, ("stage0", 30, 0, 30), ("stage1", 300, 0, 300))
    log.curves()
    first = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    assert min(first.shape[:2]) > 250 and len(np.unique(first.reshape(-1, 3), axis=0)) > 20
    log.stage("stage2", 40)
    for step in (20, 40):
        log.write(
            step, {"loss": 2.0, "grad_norm": 0.5, "learning_rate": 0.0, "something_new": -1.0}
        )
    log.curves()
    second = np.asarray(Image.open(tmp_path / "curves.png"))
    assert second.shape[0] > first.shape[0]  # the new metrics have panels
    assert not list(tmp_path.glob("*.partial"))
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )
