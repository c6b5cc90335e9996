"""Pictures alone are a function of the seed and the step."""

import numpy as np
from support import tiny

from janus_jax.data.toy import shapes_sources


def test_tokenizer_training_pictures_are_a_function_of_seed_and_step():
    source = shapes_sources.ShapesPictures(0, 50)
    one, two = (tiny.pictures(source, 24, 8, 1) for _ in range(2))
    assert one[5].shape == (8, 24, 24, 3) and (one[5] == two[5]).all()
    assert (one[5] != one[6]).any() and (one[5] != tiny.pictures(source, 24, 8, 2)[5]).any()


def test_the_parts_of_a_batch_of_pictures_are_the_batch():
    whole = tiny.pictures(shapes_sources.ShapesPictures(0), 16, 6, 3)[5]
    parts = [
        tiny.pictures(shapes_sources.ShapesPictures(0), 16, 6, 3, host, 3)[5] for host in range(3)
    ]
    assert [len(part) for part in parts] == [2, 2, 2]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
