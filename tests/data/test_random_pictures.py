"""Pictures alone are a function of the seed and the step."""

import threading
import time

import numpy as np
from support import tiny

from janus_jax.data import random_pictures
from janus_jax.data.image_pixels import ImageError
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


class Odd:
    """Pictures that take unequal times, of which every third cannot be read."""

    def __len__(self):
        return 30

    def image(self, i, k=0):
        time.sleep(0.004 * (i % 4))
        if i % 3 == 0:
            raise ImageError(f"record {i}")
        return np.full((20 if i % 5 == 1 else 28, 28, 3), i, np.uint8)

    def where(self, i):
        return f"record {i}"


def test_threads_give_the_pictures_and_the_words_of_one(monkeypatch):
    def taken():
        said = []
        pictures = tiny.pictures(Odd(), 24, 12, 4)
        pictures.stats.say, pictures.stats.most = said.append, 1.0
        return [pictures[step] for step in range(3)], said, pictures.stats.state()

    many = taken()
    assert many[2]["reads"]["it"] > 36 and any("smaller than the crop" in x for x in many[1])
    monkeypatch.setattr(random_pictures, "_THREADS", 1)
    one = taken()
    np.testing.assert_array_equal(many[0], one[0])
    assert many[1:] == one[1:]


def test_pictures_of_a_batch_are_read_beside_each_other():
    """Each waits until another one is being read."""
    met = threading.Barrier(2, timeout=20)

    class Waiting(Odd):
        def image(self, i, k=0):
            met.wait()
            return np.zeros((24, 24, 3), np.uint8)

    assert tiny.pictures(Waiting(), 24, 8, 1)[0].shape == (8, 24, 24, 3)


def test_threads_stay_and_with_them_the_files_that_each_has_open(monkeypatch):
    monkeypatch.setattr(random_pictures, "_THREADS", 2)
    mine = threading.local()
    begun = []

    class Kept(Odd):
        def image(self, i, k=0):
            if not hasattr(mine, "open"):
                mine.open = True
                begun.append(i)
            return np.zeros((24, 24, 3), np.uint8)

    pictures = tiny.pictures(Kept(), 24, 8, 1)
    for step in range(6):
        pictures[step]
    assert len(begun) <= 2
