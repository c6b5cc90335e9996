"""Two reports side by side."""

import copy

from janus_jax.eval.compare import changes, compared

REPORT = {
    "settings": {
        "benchmark": "pope",
        "protocol": "janus",
        "model": {"name": "a", "dtype": "float32"},
    },
    "counts": {"asked": 10, "made": 10, "missing": 0},
    "environment": {"jax": "0.10.2"},
    "scores": {"accuracy": {"value": 80.0, "interval": [70.0, 90.0]}},
}


def other(**settings):
    found = copy.deepcopy(REPORT)
    found["settings"] |= settings
    return found


def test_every_setting_that_differs_is_named_and_no_other():
    b = other(protocol="lmms-eval", model={"name": "b", "dtype": "float32"})
    b["environment"]["jax"] = "0.12.0"
    assert changes(REPORT, b) == [
        ("settings.protocol", "janus", "lmms-eval"),
        ("settings.model.name", "a", "b"),
        ("environment.jax", "0.10.2", "0.12.0"),
    ]
    assert "3 settings differ" in compared(REPORT, b)


def test_what_only_one_report_says_differs_too():
    b = other(seed=0)
    assert changes(REPORT, b) == [("settings.seed", "-", "0")]
    assert changes(b, REPORT) == [("settings.seed", "0", "-")]


def test_scores_stand_beside_each_other_with_what_lies_between_them():
    b = other()
    b["scores"]["accuracy"] = {"value": 95.0, "interval": [91.0, 99.0]}
    text = compared(REPORT, b)
    assert "80.00" in text and "95.00" in text and "15.00" in text
    assert "apart" in text and "no setting differs" in text
    assert "overlap" in compared(REPORT, REPORT)


def test_two_benchmarks_are_said_to_be_two():
    assert "cannot be compared" in compared(REPORT, other(benchmark="mme"))
