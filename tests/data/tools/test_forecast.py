"""What a stage will make of its data sets."""

import types

import numpy as np
import pytest

from janus_jax.config.schema import Dataset, Rows
from janus_jax.data.sources import SourceError
from janus_jax.data.tools import forecast, survey


def stage(**changes):
    fields = {
        "rows": Rows(count=32, length=1024, understanding_images=2, generation_images=2),
        "steps": 100, "batch_size": 60,
        "ratio": types.SimpleNamespace(understanding=1.0, text=1.0, generation=2.0),
    }  # fmt: skip
    return types.SimpleNamespace(**{"options": {}} | fields | changes)


def looked(kind: str, total: int, text: int, pictures: int = 0, images: int = 0) -> survey.Survey:
    tokens = text + 100 * (pictures + images)
    example = survey.Example(tokens, pictures, images, text, text // 2 + 100 * images, False)
    record = survey.Record(0, [], [], [], b"", {"second": [example]})
    return survey.Survey("", kind, "", total=total, looked=10, good=[record] * 10)


def test_a_stage_of_epochs_ends_when_its_data_set_was_drawn_so_often():
    lines = {"see": Dataset("understanding", ""), "late": Dataset("generation", "", steps=(40, 1000)),
             "draw": Dataset("generation", "", weight=3.0)}  # fmt: skip
    surveys = {"see": looked("understanding", 1000, 50, pictures=1)}
    surveys |= {name: looked("generation", 900, 20, images=1) for name in ("late", "draw")}
    ratio = types.SimpleNamespace(understanding=1.0, text=0.0, generation=2.0)
    asked = stage(ratio=ratio, rows=Rows(32, 256, 1, 2), steps="1.5 epochs of late")
    before, after = forecast.forecast("second", lines, surveys, asked, 0)
    assert "late" not in before["datasets"] and after["steps"][0] == before["steps"][1] == 40
    assert after["datasets"]["late"]["epochs"] == pytest.approx(1.5, rel=0.02)


def test_forecast_is_the_mixture_s_shares_of_examples_and_tokens():
    lines = {
        "see": Dataset("understanding", ""), "read": Dataset("text", ""),
        "draw": Dataset("generation", "", weight=3.0), "late": Dataset("generation", "", steps=(60, 100)),
    }  # fmt: skip
    surveys = {
        "see": looked("understanding", 1000, 50, pictures=1), "read": looked("text", 500, 100),
        "draw": looked("generation", 4000, 20, images=1), "late": looked("generation", 4000, 20, images=1),
    }  # fmt: skip
    first, second = forecast.forecast("second", lines, surveys, stage(), 0)
    assert (first["steps"], second["steps"]) == ([0, 60], [60, 100]) and "late" not in first[
        "datasets"
    ]
    for phase in (first, second):
        assert 0.2 < phase["full"] <= 1
        for of in phase["datasets"].values():
            assert of["examples"] == pytest.approx(of["examples_asked"], abs=0.01)
        for share in ("tokens", "text", "predicted"):
            assert sum(of[share] for of in phase["datasets"].values()) == pytest.approx(1)
    see, read, draw = (first["datasets"][name] for name in ("see", "read", "draw"))
    weights = np.array([1 * 150, 1 * 100, 2 * 120])
    assert [see["tokens"], read["tokens"], draw["tokens"]] == pytest.approx(
        list(weights / weights.sum()), abs=0.01
    )
    assert second["datasets"]["draw"]["examples_asked"] == pytest.approx(
        3 * second["datasets"]["late"]["examples_asked"]
    )
    assert read["rows_an_epoch"] == pytest.approx(500 / read["examples_a_step"] * 32)
    assert read["epochs"] == pytest.approx(60 * read["examples_a_step"] / 500)


def test_forecast_of_a_stage_that_keeps_one_kind_is_of_this_kind():
    lines = {kind: Dataset(kind, "") for kind in ("understanding", "text", "generation")}
    sizes = {"understanding": (50, 1, 0), "text": (100, 0, 0), "generation": (20, 0, 1)}
    surveys = {kind: looked(kind, 1000, *size) for kind, size in sizes.items()}
    (whole,) = forecast.forecast("second", lines, surveys, stage(), 0)
    switched = stage(options={"keep": "understanding+text"})
    (kept,) = forecast.forecast("second", lines, surveys, switched, 0)
    assert kept["datasets"].keys() == {"understanding", "text"}
    for name, of in kept["datasets"].items():
        assert of["examples_a_step"] == whole["datasets"][name]["examples_a_step"]
        assert of["epochs"] == whole["datasets"][name]["epochs"]
        assert of["examples_asked"] == pytest.approx(0.5)
        assert of["examples"] == pytest.approx(0.5, abs=0.01)
    # of 150 + 100 + 2 * 120 tokens
    assert kept["full"] == pytest.approx(whole["full"] * 250 / 490, rel=0.02)
    told = forecast.forecast_lines("second", [kept], switched.rows)
    assert "  of understanding and text alone: the stage's `keep` takes out the others" in told
    assert not any("has room for" in line for line in told)  # it is for all kinds


def test_forecast_says_what_a_stage_lacks():
    with pytest.raises(SourceError, match="understanding"):
        forecast.forecast(
            "second", {"read": Dataset("text", "")}, {"read": looked("text", 9, 9)}, stage(), 0
        )


def test_places_for_pictures_that_stay_empty_are_told_with_how_full_rows_would_be_without():
    lines = {"see": Dataset("understanding", ""), "draw": Dataset("generation", "")}
    ratio = types.SimpleNamespace(understanding=1.0, text=0.0, generation=1.0)
    rows = Rows(count=32, length=600, understanding_images=5, generation_images=2)
    surveys = {"see": looked("understanding", 1000, 50, pictures=1)}
    surveys["draw"] = looked("generation", 1000, 50, images=1)
    asked = stage(ratio=ratio, rows=rows)
    (phase,) = forecast.forecast("second", lines, surveys, asked, 0)
    # four of 150 tokens fill a row: two of each are the mean, and all that it has room for to draw
    told = phase["pictures"]
    assert told["room"] == [5, 2] and sum(told["holds"]) == pytest.approx(4, abs=0.1)
    assert told["fewer"] == [3, 2] and 0.9 < told["full"] <= phase["full"] + 0.01
    lines_told = forecast.forecast_lines("second", [phase], rows)
    holds = "{:.1f} and {:.1f}".format(*told["holds"])
    assert (
        f"  a row has room for 5 pictures to understand and 2 to draw, and holds {holds}"
        in lines_told
    )
    assert any(
        "with rows.understanding_images=3 and rows.generation_images=2" in x for x in lines_told
    )
    # one record of six pictures keeps room for them, and rows without much to spare are left alone
    many = survey.Record(0, [], [], [], b"", {"second": [survey.Example(150, 6, 0, 50, 25, False)]})
    surveys["see"].good[0] = many
    wide = stage(ratio=ratio, rows=Rows(32, 600, 9, 2))
    (phase,) = forecast.forecast("second", lines, surveys, wide, 0)
    assert phase["pictures"]["holds"][0] < 4 and 6 <= phase["pictures"]["fewer"][0] < 9
    tight = stage(ratio=ratio, rows=Rows(32, 600, 6, 2))
    (phase,) = forecast.forecast("second", lines, surveys, tight, 0)
    assert "fewer" not in phase["pictures"]
    assert not any("several devices" in x for x in forecast.forecast_lines("second", [phase], rows))
