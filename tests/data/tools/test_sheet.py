"""The samples of `check`."""

import io

from PIL import Image
from support import quick

from janus_jax.config.schema import Dataset
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.tools import survey
from janus_jax.data.tools.sheet import Band, sheets


def test_a_record_whose_pictures_a_row_has_no_room_for_is_shown_by_its_words():
    """Its last question is left out, with its picture: it is used, and must not end the report."""
    said = quick.dialogue(*["hi", "yo"] * 60, quick.asked("what?"), "a cat")
    line = Dataset("understanding", "x")
    source = quick.Listed({"messages": said})
    encoder = ExampleEncoder(quick.processor(), quick.MODEL, quick.ROWS, "answers")
    found = survey.survey("x", line, source, {"": encoder}, 0, 1, lambda *_: None)
    (record,) = found.good
    assert record.examples[""][0].pictures == 0 and record.examples[""][0].cut
    band = Band.spread("x", line, source, {"": encoder}, found.good)
    with Image.open(io.BytesIO(sheets([band], "a.png")["a.png"])) as sheet:
        assert sheet.width > 200 and len(sheet.convert("L").getcolors()) > 5
