"""Records and pictures that are there twice, exactly."""

import numpy as np
from PIL import Image

from janus_jax.data.tools import duplicates


def test_equal_keys_are_groups_in_order_and_what_is_there_once_is_none():
    assert duplicates.same(["a", "b", "a", "c", "b", "a"]) == [[0, 2, 5], [1, 4]]


def test_a_picture_is_the_same_by_size_and_pixels_and_a_chart_of_another_colour_is_not():
    def chart(colour, size=(8, 4)):
        return Image.new("RGB", size, colour)

    red = duplicates.pixels(chart("red"))
    assert red == duplicates.pixels(duplicates.picture(np.asarray(chart("red"))))
    assert len({red, *map(duplicates.pixels, (chart("blue"), chart("red", (4, 8))))}) == 3
