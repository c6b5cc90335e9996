"""A kind that is asked for has data in every step."""

import pytest
from support.configs import refusal

from janus_jax.config import read as read_
from janus_jax.config import schema as experiment
from janus_jax.training import check_config


@pytest.mark.parametrize(
    "changes, step",
    [
        ({"weight": "0"}, 0),  # all weights of the kind
        ({"steps": "(0, 100)"}, 100),
        ({"steps": "(100, 900)"}, 0),
        ({"stages": "stage1,stage3"}, 0),
    ],
)
def test_a_kind_that_is_asked_for_has_data_in_every_step(changes, step):
    lines = refusal({f"data.datasets.sentences.{field}": value for field, value in changes.items()})
    expected = f"stages.stage2: from step {step} on no data.datasets is of kind 'text', of which the ratio asks 3"
    assert lines[0].startswith(expected) and "widen the `steps`" in lines[0]
    # Stage 1 asks for none, and stage 3 may end before the change or be the one that is served.
    assert not any(line.startswith("stages.stage1") for line in lines)


def test_two_data_sets_of_a_kind_may_take_turns(values):
    text = values["data"]["datasets"].pop("sentences")
    first, second = text | {"steps": (0, 100)}, text | {"steps": (100, 900)}
    values["data"]["datasets"] |= {"first": first, "second": second, "idle": text | {"weight": 0.0}}
    built, wrong = read_.resolve(values, {})
    assert check_config.check(built, 8, known=wrong) is built
    values["data"]["datasets"]["second"]["steps"] = (101, 900)
    built, _ = read_.resolve(values, {})
    with pytest.raises(
        experiment.ConfigError,
        match=r"stage2: from step 100 on no data\.datasets is of kind 'text'",
    ):
        check_config.check(built, 8)
