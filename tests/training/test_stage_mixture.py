"""What a stage draws, as its config and its data sets say."""

import dataclasses

import pytest
from support.configs import QUICKSTART
from support.tiny import Numbered

from janus_jax.config import read
from janus_jax.training import stage_mixture
from janus_jax.training.stage_plan import StagePlan


def phases(fingerprint: str = "scenes 1", **changes) -> list[tuple[int, str]]:
    """Of the quick start's stage 2, its scenes drawn up to step 100, those of `late` from 50 on."""
    built = read.read(QUICKSTART, {"data.datasets.scenes.steps": "(0, 100)", **changes})[0]
    lines = dict(built.data.datasets)
    lines["late"] = dataclasses.replace(lines["scenes"], steps=(50, 850), weight=1.0)
    built = dataclasses.replace(built, data=dataclasses.replace(built.data, datasets=lines))
    sources = {name: Numbered(100) for name in lines}
    for name, source in sources.items():
        source.fingerprint = fingerprint if name == "scenes" else name
    plan = StagePlan.of(built, "stage2")
    entries = stage_mixture.entries_of(plan, sources)
    return stage_mixture.phases(plan, stage_mixture.mixture_of(plan, entries))


def test_a_phase_begins_where_the_data_changes_and_is_called_by_what_it_draws():
    found = phases()
    assert [first for first, _ in found] == [0, 50, 100]
    assert len({name for _, name in found}) == 3 and phases() == found


@pytest.mark.parametrize(
    "changes, differ",
    [
        ({"fingerprint": "scenes 2"}, (True, True, False)),
        ({"data.datasets.sentences.stages": "stage2,stage3"}, (False, False, False)),
        ({"data.datasets.scenes.weight": "3.0"}, (False, True, False)),
        ({"stages.stage2.ratio.text": "0"}, (True, True, True)),
        ({"stages.stage2.rows.count": "8"}, (True, True, True)),
        # Their losses are others, which is no spike.
        ({"stages.stage2.supervise": "all"}, (True, True, True)),
        ({"template.system": "Be brief."}, (True, True, True)),
        ({"data.datasets.scenes.form": "plain"}, (True, True, True)),
    ],
    ids=str,
)
def test_other_data_are_another_phase(changes, differ):
    pairs = zip(phases(), phases(**changes))
    assert tuple(before != after for before, after in pairs) == differ


@pytest.mark.parametrize(
    "options, begins",
    [({}, 0), ({"discriminator": "patchgan", "discriminator_start": 100}, 100), ({"discriminator": "patchgan"}, 20000)],
)  # fmt: skip
def test_the_loss_of_a_tokenizer_changes_with_its_discriminator(options, begins):
    built = read.read(QUICKSTART, {})[0]
    stage = dataclasses.replace(built.stages["stage0"], options=options)
    built = dataclasses.replace(built, stages=built.stages | {"stage0": stage})
    assert stage_mixture.loss_begins(StagePlan.of(built, "stage0")) == begins
    assert stage_mixture.loss_begins(StagePlan.of(built, "stage2")) == 0
