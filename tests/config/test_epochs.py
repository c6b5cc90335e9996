"""Steps by epochs: what the text says, and how many steps draw so many records."""

import pytest

from janus_jax.config.epochs import epochs_of, steps_until


def test_epochs_are_read_from_the_text_of_steps():
    assert epochs_of("3 epochs of mine") == (3.0, "mine")
    assert (
        epochs_of(" 1 epoch of a-b.c ") == (1.0, "a-b.c") and epochs_of("0.5 epochs of x")[0] == 0.5
    )
    for text in (3, "3", "epochs of mine", "3 epochs of", "-1 epochs of x", "3 epochs of a b"):
        assert epochs_of(text) is None


@pytest.mark.parametrize(
    "amount, rates, steps",
    [
        (100, {0: 10.0}, 10),
        (101, {0: 10.0}, 11),
        (0.1, {0: 10.0}, 1),
        (100, {0: 0.0, 50: 10.0}, 60),
        (100, {0: 1.0, 50: 0.0, 80: 5.0}, 90),
        (50, {0: 1.0, 50: 0.0}, 50),
        (51, {0: 1.0, 50: 0.0}, None),
    ],
)
def test_the_steps_of_an_amount_follow_the_phases(amount, rates, steps):
    assert steps_until(amount, rates) == steps
