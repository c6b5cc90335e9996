"""Any text survives; control strings are looked up, never numbered."""

import numpy as np
import pytest

from janus_jax.data import messages as messages_
from janus_jax.data import tokenizer as tok


@pytest.fixture(scope="module")
def tokenizer():
    words = "User: what color is the circle?\n\nAssistant: a red circle and two blue squares " * 3
    return tok.train([words], 340)


@pytest.mark.parametrize(
    "text",
    [
        " two  spaces\tand\ttabs \n\n\n",
        "naïve café — “quotes”",
        "日本語のテキスト",
        "👩‍👩‍👧 🇫🇷 e\u0301",
        "\0\x7f\u2028",
        "",
        *messages_.SPECIALS.values(),
    ],
)  # fmt: skip
def test_any_text_survives_the_tokenizer(tokenizer, text):
    found, starts = tokenizer.encode(text)
    assert tokenizer.decode(found) == text
    assert starts == sorted(starts) and len(starts) == len(found)
    assert all(0 <= start < len(text) for start in starts)


def test_what_a_file_says_of_cutting_and_padding_is_not_done(tokenizer, tmp_path):
    found = tokenizer.encode("a red circle")
    other = tok.Backend.from_str(tokenizer.backend.to_str())
    other.enable_truncation(2)
    other.enable_padding(length=512)
    other.save(str(tmp_path / "tokenizer.json"))
    loaded = tok.Tokenizer.load(tmp_path)
    assert loaded.encode("a red circle") == found and len(found[0]) > 2
    assert loaded.fingerprint == tokenizer.fingerprint


def test_random_unicode_survives_the_tokenizer(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(200):
        points = rng.integers(0x110000, size=20)
        text = "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
        assert tokenizer.decode(tokenizer.encode(text)[0]) == text


def test_tokenizer_keeps_to_its_vocabulary_and_names_missing_specials(tokenizer):
    assert 256 + len(messages_.SPECIALS) <= len(tokenizer) <= 340
    s = messages_.SPECIALS
    bare = tok.Backend(tok.models.BPE())
    bare.add_special_tokens([s["bos"], s["eos"]])
    with pytest.raises(ValueError) as error:
        tok.Tokenizer(bare)
    message = str(error.value)
    assert s["begin_of_image"] in message and s["end_of_image"] in message
    assert s["bos"] not in message
