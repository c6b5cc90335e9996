"""The packed row of `show` is the one that training takes."""

import numpy as np
from support import quick
from support.configs import QUICKSTART

from janus_jax.config.read import read
from janus_jax.data import catalog
from janus_jax.data.tools.first_row import first_rows, row_lines
from janus_jax.data.tools.page import page
from janus_jax.training.stage_plan import StagePlan


def test_the_packed_row_is_the_first_that_the_stage_trains_on(one_device, tmp_path):
    """Held-out records are in none, and a prompt may be blanked in both."""
    experiment, _ = read(QUICKSTART, {"evaluation.holdout": "0.5"})
    lines = experiment.data.datasets
    sources = catalog.open_datasets(lines, 24, 0)
    (row,), told = first_rows(experiment, ["stage3"], sources, quick.processor())
    plan = StagePlan.of(experiment, "stage3")
    data = plan.task.batches(plan, sources, quick.processor(), tmp_path, print)
    batch = data.next_batch(0)[0]
    data.close()
    of = {name: np.asarray(batch[name][0]) for name in ("tokens", "segment_ids", "positions")}
    assert row.length == len(of["tokens"]) and len(row.segments) == of["segment_ids"].max() > 1
    targets = np.asarray(batch["text_targets"][0] >= 0) | np.asarray(batch["image_targets"][0] > 0)
    for s in row.segments:
        at = slice(s.begin, s.end)
        assert (of["segment_ids"][at] == s.number).all()
        assert [i for p in s.pieces for i in p.ids] == of["tokens"][at].tolist()
        assert s.positions == (of["positions"][at][0], of["positions"][at][-1])
        assert s.predicted == targets[at].sum()
    assert row.padding == (of["segment_ids"] == 0).sum()
    assert not told
    told = "\n".join(row_lines(row))
    assert "row 1 of step 1 of stage3: 184 tokens" in told and row.segments[0].where in told
    text = page("", [], [], [row])
    assert text.count("<details") == len(row.segments) and row.segments[0].where in text


def test_epochs_beside_data_sets_of_some_steps_alone_are_no_fault_of_the_row():
    """Their steps are not counted here; the fault is the config's, and told."""
    given = {"stages.stage3.steps": "2 epochs of questions", "data.datasets.scenes.steps": "(0, 9)"}
    experiment, _ = read(QUICKSTART, given)
    sources = catalog.open_datasets(experiment.data.datasets, 24, 0)
    rows, told = first_rows(experiment, ["stage3"], sources, quick.processor())
    assert rows == [] and "stage3: no packed row: from step 9 on no data.datasets" in told[0]
    more = {"data.add.more": "", "data.datasets.more.kind": "generation"}
    experiment, _ = read(QUICKSTART, given | more | {"data.datasets.more.path": "shapes:"})
    sources = catalog.open_datasets(experiment.data.datasets, 24, 0)
    assert len(first_rows(experiment, ["stage3"], sources, quick.processor())[0]) == 1
