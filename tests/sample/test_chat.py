"""A chat remembers, shows its drawings, and goes on after what it cannot use."""

import pytest
from PIL import Image

from janus_jax.sample import chat


class Terminal:
    """What the chat wrote, and the lines it will read."""

    def __init__(self, *lines):
        self.lines, self.said, self.asked = list(lines), "", []

    def read(self, prompt):
        if not self.lines:
            raise EOFError
        line = self.lines.pop(0)
        if isinstance(line, type):
            raise line
        return line

    def write(self, text="", end="\n", flush=False):
        self.said += text + end

    def ask(self, messages, stream):
        self.asked.append(messages)
        if "fail" in messages[-1]["content"][-1]["text"]:
            raise ValueError("too long:\n by a word")
        stream("I ")
        stream("see")
        return "I see"

    def draw(self, text):
        if not text:
            raise ValueError("prompts[0] is ''")
        return f"picture of {text}", f"out/{text}.png"

    def edit(self, pictures, text):
        return f"{text} {pictures[0]}", f"out/{text}.png"

    def run(self, **options):
        ways = self.ask, self.draw, self.edit
        chat.converse(*ways, read=self.read, write=self.write, **options)
        return self


def texts(messages) -> list:
    content = lambda m: m["content"] if isinstance(m["content"], str) else m["content"][-1]["text"]
    return [content(m) for m in messages]


def pictures(message) -> list:
    return [p["image"] for p in message["content"] if p["type"] == "image"]


def test_chat_remembers_and_shows_drawings_next():
    t = Terminal("hi", "/draw a cat", "what?", "more", "/reset", "again").run()
    assert [texts(m) for m in t.asked] == [
        ["hi"], ["hi", "I see", "what?"], ["hi", "I see", "what?", "I see", "more"], ["again"],
    ]  # fmt: skip
    assert pictures(t.asked[1][-1]) == ["picture of a cat"] and pictures(t.asked[2][-1]) == []
    assert pictures(t.asked[2][2]) == ["picture of a cat"]
    assert "I see\n" in t.said and "out/a cat.png" in t.said


def test_chat_edits_what_was_shown_or_drawn_last():
    t = Terminal("/edit red", "/draw a cat", "/edit red", "/edit big", "what?", "/edit old").run()
    assert "/edit has no picture: /image or /draw one first" in t.said
    assert pictures(t.asked[0][-1]) == ["big red picture of a cat"]
    assert "out/old.png  (shown" in t.said
    t = Terminal("/draw a cat", "what?", "/edit red", "so?").run()
    assert pictures(t.asked[1][-1]) == ["red picture of a cat"]


def test_chat_goes_on_after_what_it_cannot_use(tmp_path):
    picture = tmp_path / "p q.png"
    Image.new("RGB", (3, 2), "red").save(picture)
    t = Terminal(
        "/image no.png", "/nonsense", "/draw", f"/image {picture}", "fail", "", "then", "/help"
    ).run()
    for words in (
        "no.png: no such file",
        "/nonsense",
        "prompts[0] is ''",
        "too long:; by a word",
        "/reset",
    ):
        assert words in t.said
    assert [texts(m) for m in t.asked] == [["fail"], ["then"]]
    assert [p.size for p in pictures(t.asked[1][-1])] == [(3, 2)], (
        "still waiting after a turn that failed"
    )


@pytest.mark.parametrize("leave", ["/quit", EOFError, KeyboardInterrupt])
def test_chat_is_left_cleanly(leave):
    t = Terminal("hi", leave, "never").run()
    assert t.lines == ["never"] and len(t.asked) == 1


@pytest.mark.parametrize(
    "typed, named",
    [
        ("my cat.png", ["my cat.png"]),
        ('"my cat.png"', ["my cat.png"]),
        ("my\\ cat.png b.png", ["my cat.png", "b.png"]),
        ("~/b.png", ["{home}/b.png"]),
        ("'$HOME/b.png' b.png", ["{home}/b.png", "b.png"]),
        ("it's.png", ["it's.png"]),
        ("no such.png", ["no such.png"]),
        ('"no such.png"', ["no such.png"]),
    ],
)
def test_a_picture_is_named_as_people_and_terminals_write_it(tmp_path, monkeypatch, typed, named):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("my cat.png", "b.png", "it's.png"):
        (tmp_path / name).touch()
    assert chat.named_files(typed) == [name.format(home=tmp_path) for name in named]


def test_words_behind_a_command_that_takes_none_are_named_and_change_nothing():
    t = Terminal(
        "hi", "/reset all", "/quit now", "/image", "/image ~nobody-here/a.png", "more"
    ).run()
    assert [len(m) for m in t.asked] == [1, 3]
    for said in ("/reset takes no words: all", "/quit takes no words", "/image needs a file"):
        assert said in t.said
    assert "no home directory of ~nobody-here" in t.said


def test_base64_is_told_what_goes_before_it():
    t = Terminal("/image iVBORw0KGgo" + "A/b" * 9_000).run()
    assert "put data:image/png;base64, before it" in t.said and len(t.said) < 700


def test_a_full_chat_says_how_to_go_on():
    t = Terminal("hi", "more")

    def full(messages, stream):
        if len(messages) > 1:
            raise ValueError(
                "conversation: 5,000 tokens make 5,512, the context is 4,096: shorten it"
            )
        return "I see"

    chat.converse(full, t.draw, t.edit, read=t.read, write=t.write)
    assert "shorten it. Or begin anew: /reset" in t.said
