"""The vision tower against transformers'."""

from support.outputs import nchw, pictures, run, same


def test_understanding_encoder(theirs, ours):
    images = pictures(1, 3, 32, 32)
    want = theirs.model.vision_model(nchw(images)).last_hidden_state
    same(run(lambda m, x: m.understanding_encoder(x), ours, images), want)
