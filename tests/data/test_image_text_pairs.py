"""Pairs by (seed, step): their order, their texts, what is bad."""

import numpy as np
import pytest
from support import quick
from support.quick import Listed

from janus_jax.data.image_text_pairs import ImageTextPairs, text_ids
from janus_jax.data.messages import PICTURE, Turn
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.sources import RecordError, SourceError

LENGTH, BATCH = 8, 4


def tokenizer():
    return quick.processor().tokenizer


def captions(*texts):
    return Listed(*({"captions": [text]} for text in texts))


def pairs(batch=BATCH, host=0, hosts=1, length=LENGTH, **sources) -> ImageTextPairs:
    """Of sources by name, whose names begin with their kind."""
    kind = lambda name: name.rstrip("0123456789")
    entries = [Entry(name, kind(name), source) for name, source in sources.items()]
    ratio = {k: float(any(kind(n) == k for n in sources)) for k in ("understanding", "text", "generation")}  # fmt: skip
    mixture = Mixture(entries, ratio, seed=3, streams=batch)
    return ImageTextPairs(mixture, tokenizer(), 24, length, host, hosts)


def said(tokens):
    return [tokenizer().decode(row) for row in tokens]


def records(batch) -> list[int]:
    """Which records the pictures of a batch are of: their colours say it."""
    return [int(image[12, 12, 0]) - 40 for image in batch["images"]]


def test_an_epoch_has_every_pair_once_and_another_order_than_the_last():
    source = captions(*(f"number {i}" for i in range(12)))
    data = pairs(length=16, generation=source)
    shown = lambda batch: zip(records(batch), said(batch["tokens"]), strict=True)
    epoch = lambda steps: [pair for step in steps for pair in shown(data[step])]
    epochs = [epoch(range(3)), epoch(range(3, 6))]
    assert all(sorted(epoch) == [(i, f"number {i}") for i in range(12)] for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_batch_is_a_function_of_its_step_and_hosts_make_its_parts():
    source = captions(*(f"number {i}" for i in range(30)))
    whole = pairs(generation=source)[5]
    parts = [pairs(host=h, hosts=2, generation=source)[5] for h in (0, 1)]
    for name in whole:
        assert (np.concatenate([part[name] for part in parts]) == whole[name]).all()


def test_data_sets_of_both_kinds_share_a_batch_by_weight():
    asked = [Turn("user", [PICTURE, "what?"]), Turn("assistant", ["an answer"])]
    chats = Listed(*({"messages": asked} for _ in range(50)))
    data = pairs(64, understanding=chats, generation=captions(*(["a caption"] * 50)))
    texts = said(data[0]["tokens"])
    assert set(texts) == {"an answer", "a caption"} and 20 <= texts.count("an answer") <= 44


def test_texts_are_lower_case_cut_and_always_end_with_end_of_sentence():
    t = tokenizer()
    source = captions("A RED circle", "blue " * 40)
    rng = np.random.default_rng(0)
    tokens, count, cut = text_ids(source, 0, t, LENGTH, rng)
    assert not cut
    ids = t.encode("a red circle")[0]
    assert tokens.dtype == np.int32 and count == len(ids)
    assert tokens.tolist() == ids + [t.eos] * (LENGTH - len(ids))
    tokens, count, cut = text_ids(source, 1, t, LENGTH, rng)
    assert cut and count == LENGTH - 1 and tokens[-1] == t.eos and t.eos not in tokens[:-1]


def test_texts_that_are_cut_are_counted_and_told():
    source = captions(*(f"{i} red" + " and blue" * 9 * (i % 3 == 0) for i in range(12)))
    data = pairs(12, generation=source)
    said = []
    data.stats.say = said.append
    data.require_differing_texts()
    (line,) = said
    assert line.startswith("  24 of the first 72 texts are longer than options.text_length = 8")
    data[0], data[1]
    (name, *_, examples, continued, cut), *_ = data.stats.shares(0)
    assert (name, examples, continued, cut) == ("generation", 24, 0, 8)
    assert data.stats.report()[1].split()[-1] == "8"


def test_a_text_of_just_the_length_is_not_cut():
    t = tokenizer()
    source = captions("a red circle and a blue square")
    count = len(t.encode("a red circle and a blue square")[0])
    cut = [text_ids(source, 0, t, n, np.random.default_rng(0))[2] for n in (count, count + 1)]
    assert cut == [True, False]


def test_any_of_a_pictures_captions_is_its_text():
    source = Listed({"captions": ["one", "two"]})
    draw = lambda i: text_ids(source, 0, tokenizer(), LENGTH, np.random.default_rng(i))[0]
    drawn = set(said(map(draw, range(20))))
    assert drawn == {"one", "two"}


@pytest.mark.parametrize(
    "record, told",
    [
        ({"text": "words alone"}, "record 0: 0 pictures and no text of one"),
        ({"document": ["a", None, "b"]}, "0 pictures and no text"),
        ({"messages": [Turn("user", [PICTURE, PICTURE, "?"]), Turn("assistant", ["two"])]}, "2 pictures"),
        ({"captions": [""]}, "'' gives no ids"),
    ],
)  # fmt: skip
def test_a_record_without_a_text_of_one_picture_is_bad(record, told):
    with pytest.raises(RecordError, match=told):
        text_ids(Listed(record), 0, tokenizer(), LENGTH, np.random.default_rng(0))


def test_what_is_bad_gives_its_place_to_another_and_is_counted():
    source = Listed(*({"captions": [f"number {i}" if i % 3 else ""]} for i in range(12)))
    data = pairs(12, generation=source)
    assert set(records(data[0])) <= {1, 2, 4, 5, 7, 8, 10, 11}
    assert data.stats.bad["generation"] == dict.fromkeys((0, 3, 6, 9), "blank caption")


def test_texts_that_all_become_the_same_ids_are_refused():
    same = captions(*(f"the same words and then number {i}" for i in range(20)))
    with pytest.raises(SourceError, match="all become the ids of 'th'"):
        pairs(length=3, generation=same).require_differing_texts()
    pairs(length=40, generation=same).require_differing_texts()


def test_a_data_set_of_which_nothing_can_be_used_ends_the_run():
    with pytest.raises(SourceError, match="100 pairs in a row cannot be used"):
        pairs(generation=captions("", ""))[0]
