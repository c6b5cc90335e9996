"""Files of classes' names."""

import pytest

from janus_jax.data.formats.names import Names, label
from janus_jax.data.sources import SourceError


def test_names_that_are_none_are_refused(tmp_path):
    for text in ("", "n01", '{"n01": 3}', '{"n01": " ,"}'):
        (tmp_path / "names").write_text(text)
        with pytest.raises(SourceError, match="names"):
            Names(str(tmp_path / "names"))


def test_a_label_without_a_word_gives_none():
    assert label(["", "big_cat, cat"], 0, "kind") == {}
    assert label(["", "big_cat, cat"], 1, "kind")["kind"] == "big cat"


def test_a_class_that_is_a_number_without_a_name_is_told(caplog):
    """Captions were "n01440764" without a word."""
    for name in ("sea_lion", "n01440764", "7"):
        Names().fields(name)
    told = (
        " is a number, perhaps others; give a file of what they are called as names: it is called "
    )
    assert caplog.messages == [f"class {n!r}{told}{n!r}" for n in ("n01440764", "7")]
