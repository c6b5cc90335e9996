"""Words for people."""

import numpy as np
import pytest

from janus_jax.common import text


def test_a_long_list_ends_with_how_many_more_there_are():
    told = text.listed([f"p{i}" for i in range(23)])
    assert told.startswith("\n  p0\n  p1") and told.endswith("p19\n  ... and 3 more")


def test_the_nearest_name_or_all():
    assert text.near("genrate", ["train", "generate"]) == "; did you mean 'generate'?"
    assert text.near("x", ["train", "plan"]) == "; known: train, plan"
    assert text.near("x", []) == ""


def test_differences_of_nested_configs_are_told_by_path():
    old, new = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": 5}
    assert text.differences(old, new) == ["a.c: 2 -> 4", "d: 3 -> nothing", "e: nothing -> 5"]
    assert text.differences({}, {"a": {"b": 1}}) == ["a: nothing -> there"]


@pytest.mark.parametrize(
    "size, told",
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (508_044, "508 kB"), (76.3e6, "76.3 MB"), (1.2e12, "1200 GB")],
)  # fmt: skip
def test_sizes_have_three_digits(size, told):
    assert text.size(size) == told


def test_a_table_aligns_numbers_to_the_right():
    lines = text.table(("name", "x"), [("a", 1.5), ("bc", None)]).splitlines()
    assert lines == ["name     x", "----  ----", "a     1.50", "bc       -"]


def test_parameters_are_read_of_a_docstring():
    def documented():
        """What it does.

        Args:
            one: a line: with a colon.
            two: a line
                that goes on.
        """

    assert text.parameters(documented) == {
        "one": "a line: with a colon.",
        "two": "a line that goes on.",
    }


def test_table():
    rows = [("colour", np.float32(0.9), 0.125, np.int64(1000)), ("position", 97.256, None, 64)]
    assert text.table(("task", "score", "chance", "images"), rows).splitlines() == [
        "task      score  chance  images",
        "--------  -----  ------  ------",
        "colour     0.90    0.12    1000",
        "position  97.26       -      64",
    ]
    assert text.table(("task", "score"), []).splitlines() == ["task  score", "----  -----"]


def test_a_message_does_not_hold_megabytes_of_what_was_given():
    base64, words, lines = "A" * 8_000_000, "red " * 1000, "a\n" * 500
    for given in (base64, words, lines):
        told = text.bounded(f"--image: {given}: no such file")
        assert len(told) < 600 and told.startswith("--image: ")
    assert text.bounded(f"{words}: no such file").endswith(": no such file")
    assert text.bounded("a\nb") == "a\nb"
    assert text.short("abc") == "abc" and len(text.short("a" * 999, 80)) <= 80
