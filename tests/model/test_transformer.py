"""The language model against transformers', also in packed and padded rows."""

import numpy as np
from support.outputs import integers, long, run, same


def text_logits(model, tokens, positions, segment_ids):
    x = model.text_embedding(tokens)
    return model.text_head(model.transformer(x, positions, segment_ids))


def test_text_logits(theirs, ours):
    tokens = integers(9, 100, 2, 24)
    positions = np.tile(np.arange(24, dtype=np.int32), (2, 1))
    got = run(text_logits, ours, tokens, positions, np.ones_like(tokens))
    same(got, theirs(input_ids=long(tokens)).logits)


def test_packed_sequences_do_not_see_each_other(theirs, ours):
    """Two sequences and padding in one row, against each sequence alone."""
    a, b, pads = integers(10, 100, 1, 9), integers(11, 100, 1, 13), np.zeros((1, 3), np.int32)
    tokens = np.concatenate([a, b, pads], 1)
    positions = np.concatenate([np.arange(9), np.arange(13), np.arange(3)]).astype(np.int32)[None]
    segments = np.repeat(np.array([1, 2, 0], np.int32), [9, 13, 3])[None]
    got = run(text_logits, ours, tokens, positions, segments)
    assert np.isfinite(got).all()
    same(got[:, :9], theirs(input_ids=long(a)).logits)
    same(got[:, 9:22], theirs(input_ids=long(b)).logits)


def test_left_padding_matches_a_masked_prompt(theirs, ours):
    tokens = integers(12, 100, 1, 16)
    pads = 5
    mask = (np.arange(16) >= pads).astype(np.int32)[None]
    positions = np.maximum(np.arange(16, dtype=np.int32) - pads, 0)[None]
    got = run(text_logits, ours, tokens, positions, mask)
    want = theirs(
        input_ids=long(tokens), attention_mask=long(mask), position_ids=long(positions)
    ).logits
    assert np.isfinite(got).all()
    same(got[:, pads:], want[:, pads:])
