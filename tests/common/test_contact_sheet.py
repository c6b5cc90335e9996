"""Pictures and captions on one sheet."""

import numpy as np
import pytest

from janus_jax.common.contact_sheet import contact_sheet, per_page


def test_contact_sheet_shows_every_picture_and_caption():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pictures = [np.full((8, 8, 3), colour, np.uint8) for colour in colours]
    long = "a caption that is far too long for one line " * 9
    sheet = np.asarray(
        contact_sheet(pictures, ["a red square", "", long], columns=2, scale=4)
    ).astype(int)
    for colour in colours:  # enlarged without blending: exactly 32x32 pixels of each colour
        assert (sheet == colour).all(-1).sum() == 32 * 32
    assert (sheet[:, -1] == 255).all() and (sheet[-1] == 255).all()  # text stays inside
    assert (sheet.sum(-1) < 300).any()
    with pytest.raises(ValueError, match="3 pictures, 1 captions"):
        contact_sheet(pictures, ["one"], columns=2, scale=4)
    with pytest.raises(ValueError, match=r"float64 .*uint8 \[height, width, 3\]"):
        contact_sheet([np.zeros((8, 8, 3))], ["one"], columns=1, scale=4)


@pytest.mark.parametrize("side, scale", [(16, 12), (384, 1), (1024, 1)])
def test_a_page_of_any_pictures_is_a_sheet_that_viewers_open(side, scale):
    count = per_page((side, side), 6, scale)
    assert count % 6 == 0 and count >= 6
    row = contact_sheet([np.zeros((side, side, 3), np.uint8)] * 6, ["a word " * 99] * 6, 6, scale)
    assert row.width * row.height * count / 6 < 30e6
