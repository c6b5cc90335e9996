"""The page of `show`: all that records say is text, every picture is in it, every token is there."""

import base64
import html.parser
import io

import numpy as np
from PIL import Image
from support import quick

from janus_jax.config.schema import Dataset
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.tools.page import View, page
from janus_jax.data.tools.view import look

HOSTILE = '<script>alert(1)</script> "quoted" <b>bold & brave</b> <img src=x onerror=y>'


class Read(html.parser.HTMLParser):
    """The tags of a page, its text, and what is in its tokens."""

    def __init__(self, text: str):
        super().__init__()
        self.tags = []
        self.tokens = []
        self.text = ""
        self.inside = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.inside.append(dict(attributes))

    def handle_endtag(self, tag):
        self.inside.pop()

    def handle_data(self, data):
        self.text += data
        if self.inside and "title" in self.inside[-1]:
            self.tokens.append((self.inside[-1]["class"], data))


def test_a_page_holds_every_token_and_picture_and_obeys_nothing_of_a_record():
    source = quick.Listed({"messages": quick.dialogue(quick.asked("what is it?"), HOSTILE)})
    encoder = ExampleEncoder(quick.processor(), quick.MODEL, quick.ROWS, "answers")
    shown, _, _ = look(Dataset("understanding", "x"), source, encoder, 1)
    text = page(f"of {HOSTILE}", [HOSTILE], [View(HOSTILE, "", shown, [HOSTILE])], [])
    read_back = Read(text)
    assert not {"script", "b", "link", "iframe"} & {tag for tag, _ in read_back.tags}
    assert read_back.text.count("alert(1)") == 6  # title, heading, note, view, fault and answer
    said = "".join(words for kinds, words in read_back.tokens if "p" in kinds.split())
    assert said == f" {HOSTILE}{quick.EOS}"
    (picture,) = [a for tag, a in read_back.tags if tag == "img"]
    assert not {"onerror", "onload"} & set(picture)
    head, _, data = picture["src"].partition(",")
    assert head == "data:image/png;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert (pixels == shown[0].pictures[0][0]).all()
    assert "http:" not in text and "https:" not in text
