"""Text, captions and documents that no row takes whole."""

import types

import numpy as np
import pytest
from support.quick import EOS, dialogue, learned

from janus_jax.data import generation, text, understanding
from janus_jax.model import batch as bt


def test_long_texts_are_cut_before_they_are_encoded():
    seen = []
    tokenizer = types.SimpleNamespace(
        bos=0, eos=1, encode=lambda s: (seen.append(len(s)) or [5] * (len(s) // 4), [])
    )
    processor = types.SimpleNamespace(tokenizer=tokenizer, context=100, generation_tokens=4)
    tokenizer.placeholder = tokenizer.end_of_image = 2
    processor.drawing = lambda caption, form, given: [
        (tokenizer.encode(caption)[0], bt.TEXT, given)
    ]
    long, short = (text.encode({"text": "x" * n}, processor, "all", 100) for n in (10**6, 40))
    assert (
        seen == [1600, 40]
        and long["tokens"].tolist() == [0] + [5] * 99
        and short["tokens"][-1] == 1
    )
    assert (long["example"] >= bt.TRUNCATED).all() and (short["example"] < bt.TRUNCATED).all()
    processor.shown = lambda spans: []
    cut = understanding.encode({"document": ["x" * 10**6, None]}, processor, "all", 100, "chat", 1)
    assert seen[-1] == 1600 and len(cut["tokens"]) == 100 and (cut["example"] >= bt.TRUNCATED).all()
    drawn = generation.encode(
        {"captions": ["x" * 10**6]}, processor, np.random.default_rng(0), 0.0, 0.0, 100
    )
    assert seen[-1] == 1600 and (drawn["example"] >= bt.TRUNCATED).all()


@pytest.mark.parametrize(
    "record, supervise, expected",
    [
        ({"text": "one two "}, "answers", f"one two {EOS}"),
        ({"text": "one two"}, "all", f"one two{EOS}"),
        ({"messages": dialogue("hi", "red")}, "answers", f" red{EOS}"),
        ({"messages": dialogue("hi", "red")}, "all", f" hi| red{EOS}"),
    ],
)
def test_text(processor, record, supervise, expected):
    example = text.encode(record, processor, supervise, 100)
    assert learned(processor, example) == expected
    assert example["tokens"][0] == processor.tokenizer.bos and (example["role"] == bt.TEXT).all()
    assert (
        not len(example["understanding_images"])
        and not len(example["generation_images"])
        and example["example"].tolist() == [2]
    )
