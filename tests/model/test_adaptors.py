"""Features of pictures and embedded image ids against transformers'."""

from support.outputs import integers, long, nchw, pictures, run, same


def test_understanding_adaptor(theirs, ours):
    images = pictures(2, 3, 32, 32)
    want = theirs.model.get_image_features(nchw(images)).pooler_output
    same(run(lambda m, x: m.embed_images(x), ours, images), want)


def test_generation_embedding_and_adaptor(theirs, ours):
    ids = integers(7, 64, 3, 16)
    want = theirs.prepare_embeddings_for_image_generation(long(ids))
    same(run(lambda m, ids: m.embed_image_ids(ids), ours, ids), want)
