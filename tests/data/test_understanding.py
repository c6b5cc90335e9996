"""Pictures and what is said about them: what is predicted where."""

import numpy as np
import pytest
from support.quick import EOS, N, asked, dialogue, learned

from janus_jax.data import understanding
from janus_jax.model import batch as bt


@pytest.mark.parametrize(
    "supervise, expected",
    [
        ("answers", f" red{EOS}| two{EOS}"),
        (
            "all",
            f"\nwhat color?| red{EOS}| how many?| two{EOS}",
        ),
    ],
)
def test_understanding(processor, supervise, expected):
    record = {"messages": dialogue(asked("what color?"), "red", "how many?", "two")}
    example = understanding.encode(record, processor, supervise, 200, "chat", 1)
    assert learned(processor, example) == expected
    slots = np.flatnonzero(example["role"] == bt.UNDERSTANDING_SLOT)
    t, ids = processor.tokenizer, example["tokens"]
    assert len(slots) == N and slots[-1] - slots[0] == N - 1
    assert (ids[slots] == t.placeholder).all() and not example["supervised"][slots].any()
    assert (ids[slots[0] - 1], ids[slots[-1] + 1]) == (t.begin_of_image, t.end_of_image)
    assert (
        example["understanding_images"].tolist() == [0] and len(example["generation_images"]) == 0
    )
    assert ids[0] == t.bos and ids[-1] == t.eos and example["example"].tolist() == [1]


def test_an_interleaved_document(processor):
    t = processor.tokenizer
    parts = ["red one", None, "then blue", None, None, "end"]

    def encoded(length, pictures):
        example = understanding.encode(
            {"document": parts}, processor, "answers", length, "chat", pictures
        )
        text_ = [int(i) for i, r in zip(example["tokens"], example["role"]) if r == bt.TEXT]
        return example, t.decode(text_), text_

    whole, said, ids = encoded(500, 3)
    assert (
        said == "red onethen blueend"
        and whole["understanding_images"].tolist() == [0, 1, 2]
        and ids[-1] == t.eos
    )
    assert learned(processor, whole) == f"red one|then blue|end{EOS}" and whole[
        "example"
    ].tolist() == [1]
    size = len(whole["tokens"])
    for length, pictures, shown, text_ in (
        (size, 2, 2, "red onethen blue"), (size - 1, 3, 3, "red onethen blueend"), (size - 3, 3, 3, "red onethen blue"),
        (N + 10, 3, 1, "red onethen blue"), (5, 3, 0, "red one"),
    ):  # fmt: skip
        cut, said, ids = encoded(length, pictures)
        assert len(cut["understanding_images"]) == shown and text_.startswith(said) and said, (
            length,
            said,
        )
        assert len(cut["tokens"]) <= length and ids[-1] != t.eos
        assert (cut["role"] == bt.UNDERSTANDING_SLOT).sum() == N * shown and cut[
            "example"
        ].tolist() == [1 + bt.TRUNCATED]
