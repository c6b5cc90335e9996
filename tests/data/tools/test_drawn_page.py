"""The picture of `show`: every image as it is, and in colour what is predicted."""

import io

import numpy as np
from PIL import Image
from support import quick

from janus_jax.config.schema import Dataset
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.tools import drawn_page
from janus_jax.data.tools.page import View
from janus_jax.data.tools.view import Piece, Shown, look
from janus_jax.model import batch as bt


def drawn(answer: str, supervise: str) -> np.ndarray:
    """The one page of a question about a picture."""
    source = quick.Listed({"messages": quick.dialogue(quick.asked("what is it?"), answer)})
    encoder = ExampleEncoder(quick.processor(), quick.MODEL, quick.ROWS, supervise)
    shown, _, _ = look(Dataset("understanding", "x"), source, encoder, 1)
    ((name, content),) = drawn_page.drawn_pages([], [View("t", "", shown, [])], [], "a.png").items()
    assert name == "a.png"
    return np.asarray(Image.open(io.BytesIO(content)))


def count(page: np.ndarray, colour: tuple) -> int:
    return int((page == colour).all(-1).sum())


def test_predicted_tokens_are_coloured_and_the_image_is_there():
    page = drawn("a cat", "answers")
    # Of one colour, 24 pixels enlarged to 216.
    assert count(page, (40, 40, 40)) >= 216 * 216
    learned = count(page, drawn_page._LEARN)
    assert 0 < learned < count(drawn("a cat", "all"), drawn_page._LEARN)
    assert learned < count(drawn("a cat and a dog", "answers"), drawn_page._LEARN)


def test_a_page_grows_with_its_words_and_ends_before_it_is_too_tall(monkeypatch):
    heights = [len(drawn("word " * n, "answers")) for n in (1, 20)]
    assert heights[0] <= heights[1]
    monkeypatch.setattr(drawn_page, "_HEIGHT", 1)
    views = [View("one", "facts", [], []), View("two", "", [], ["x" * 3000])]
    pages = drawn_page.drawn_pages([], views, [], "a.png")
    assert list(pages) == ["a.png", "a-2.png", "a-3.png"]
    sizes = [Image.open(io.BytesIO(content)).size for content in pages.values()]
    assert {width for width, _ in sizes} == {1200} and sizes[2][1] > 20 * 26  # a long word is cut


def test_a_cut_is_told_once_wherever_it_is(monkeypatch):
    """Within the last piece too, whose character is several tokens."""
    said = []
    monkeypatch.setattr(
        drawn_page._Canvas, "word", lambda canvas, text, *colours: said.append(text)
    )
    pieces = [
        Piece("a", [1], 0, bt.TEXT, False, True),
        Piece("🚀", [2, 3], 1, bt.TEXT, False, True),
    ]
    for at in (0, 1, 2, 3):
        said.clear()
        drawn_page.drawn_pages(
            [], [View("", "", [Shown("", "", pieces, [], (at, 5))], [])], [], "a.png"
        )
        assert sum("5 tokens are left out" in text for text in said) == 1


def test_a_picture_says_what_its_colours_mean_and_what_is_to_be_known():
    plain, noted = (
        drawn_page.drawn_pages(notes, [], [], "a.png")["a.png"] for notes in ([], ["lengths of x"])
    )
    plain, noted = (np.asarray(Image.open(io.BytesIO(page))) for page in (plain, noted))
    for colour in (drawn_page._LEARN, drawn_page._READ, drawn_page._CONTROL):
        assert count(plain, colour) > 100
    assert len(noted) > len(plain) and count(noted, drawn_page._SOFT) > count(
        plain, drawn_page._SOFT
    )


def test_letters_that_the_font_lacks_are_drawn_as_their_escapes():
    pages = []
    for text in ("a 日", "a \\u65e5", "a e"):
        canvas = drawn_page._Canvas()
        canvas.word(text)
        pages.append(np.asarray(canvas.done()))
    assert (pages[0] == pages[1]).all() and not (pages[0] == pages[2]).all()
