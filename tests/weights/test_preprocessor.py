"""A released model's preprocessor_config.json."""

import json

import numpy as np
import pytest
from support.released import preprocessor

from janus_jax.model import batch as bt
from janus_jax.weights.preprocessor import read_preprocessor


def test_do_normalize_false_is_honoured_and_warned_about(tmp_path, caplog):
    found = preprocessor(tmp_path, do_normalize=False)
    assert found["background"] == (127,) * 3
    pixels = bt.pixels(
        np.array([0, 127, 255], np.uint8), found["image_mean"][0], found["image_std"][0]
    )
    np.testing.assert_allclose(pixels, [0, 127 / 255, 1], atol=1e-7)
    assert (
        str(tmp_path) in caplog.text
        and "do_normalize" in caplog.text
        and "Janus-1.3B" in caplog.text
    )


def test_preprocessor_fields_that_would_be_ignored_are_all_refused(tmp_path):
    with pytest.raises(ValueError) as error:
        preprocessor(
            tmp_path,
            min_size=28,
            rescale_factor=1.0,
            image_std=[0, 1, 1],
            image_size={"height": 1, "width": 2},
        )
    message = str(error.value)
    for words in (
        "preprocessor_config.json",
        "min_size is 28",
        "rescale_factor is 1.0",
        "image_std",
        "size",
    ):
        assert words in message
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"preprocessor_config.json: cannot be read as JSON"):
        read_preprocessor(tmp_path)


@pytest.mark.parametrize(
    "field, value, says",
    [
        ("image_std", "x", "image_std is 'x': must be 3 numbers"),
        ("image_std", [1e-50] * 3, "must be 3 numbers that float32 holds"),
        ("image_mean", [127.5] * 3, "between 0 and 1"),
        ("image_mean", [float("nan")] * 3, "must be 3 numbers"),
        ("image_mean", [0.5] * 4, "must be 3 numbers"),
        ("image_size", "384", "image_size is '384'"),
        ("image_size", True, "image_size is True"),
        ("size", {"height": 32, "width": 32}, "image_size is 384: .*as size"),
        ("do_normalize", "false", "do_normalize is 'false': must be true or false"),
        ("do_rescale", False, "do_rescale is False"),
        ("resample", 2, "resample is 2"),
        ("background_color", "grey", "background_color is 'grey'"),
        ("crop_size", {"height": 3}, "crop_size is .*not honoured"),
        ("brightness", 2, "brightness is 2: .*not honoured"),
    ],
)
def test_a_field_of_a_wrong_type_or_without_effect_is_named(tmp_path, field, value, says):
    with pytest.raises(ValueError, match=f"preprocessor_config.json: .*{says}"):
        preprocessor(tmp_path, **{field: value})


def test_one_number_stands_for_three_channels(tmp_path):
    assert preprocessor(tmp_path, image_mean=0.25)["image_mean"] == (0.25,) * 3


def test_the_section_in_processor_config_counts_and_must_not_be_contradicted(tmp_path):
    section = {"image_mean": [0.4] * 3, "image_std": 0.3, "size": {"height": 32, "width": 32}}
    text = json.dumps({"image_processor": section, "processor_class": "JanusProcessor"})
    (tmp_path / "processor_config.json").write_text(text)
    found = read_preprocessor(tmp_path)
    assert found == {
        "image_size": 32, "image_mean": (0.4,) * 3, "image_std": (0.3,) * 3, "background": (102,) * 3
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"image_mean is \(0.4, 0.4, 0.4\) there, \(0.5, 0.5"):
        preprocessor(tmp_path, image_size=32)
