"""What the sources of data share."""

from janus_jax.data import sources


def test_bytes_that_are_no_utf8_are_shown_as_codes():
    assert sources.printable("a\udcff") == "a\\udcff"
