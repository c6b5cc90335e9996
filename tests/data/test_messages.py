"""Chats as turns."""

import pytest

from janus_jax.data.messages import PICTURE, Turn, laid_out, turns


def test_a_picture_stands_on_a_line_of_its_own_unless_nothing_follows_it():
    assert laid_out([PICTURE, "what?"]) == [PICTURE, "\n", "what?"]
    assert laid_out(["see", PICTURE]) == ["see", PICTURE]
    turn = Turn("user", laid_out([PICTURE, PICTURE, "same?"]))
    assert turn.texts == ["same?"] and turn.count_pictures == 2


def test_chats_of_every_form_and_turns_are_the_same_turns():
    part = {"type": "image", "image": "a.png"}
    want = Turn("user", [PICTURE, "\n", "what?"], [part])
    assert turns([{"role": "User", "content": [part, {"type": "text", "text": "what?"}]}]) == [want]
    assert turns([want]) == [want] and turns([want])[0] is want
    placed = {"role": "<|User|>", "content": "<image_placeholder>\nwhat?", "images": [part]}
    assert turns([placed]) == [Turn("user", ["", PICTURE, "\nwhat?"], [part])]
    assert turns([{"role": "gpt", "content": "hi"}]) == [Turn("assistant", ["hi"])]


def test_unknown_roles_and_parts_are_all_named():
    wrong = [{"role": "user", "content": [{"type": "sound"}]}, {"role": "bot", "content": "x"}]
    with pytest.raises(
        ValueError, match=r"(?s)message 0: part of type 'sound'.*message 1: role 'bot'"
    ):
        turns(wrong)


@pytest.mark.parametrize("part", [
    {"type": None, "image": "a.png", "text": None},
    {"image": "a.png"},
    {"type": "image", "text": None, "path": None, "url": "a.png"},
    {"type": "image_url", "image_url": {"url": "a.png"}, "text": None},
])  # fmt: skip
def test_null_in_a_part_is_what_is_not_there(part):
    text = {"type": None, "text": "what?", "image": None}
    message = {"role": "user", "content": [part, text], "images": None, "name": None}
    assert turns([message]) == [Turn("user", [PICTURE, "\n", "what?"], [part])]


def test_an_answer_still_to_come_may_be_null():
    assert turns([{"role": "assistant", "content": None}]) == [Turn("assistant", [""])]


@pytest.mark.parametrize("message", [
    {"role": "x" * 9999, "content": "a"},
    {"role": "user", "content": [{"type": "x" * 9999}]},
    {"role": "user", "content": [{"type": "text", "x" * 9999: 1, 5: 2}]},
    {"role": "user", "content": [["x" * 9999]]},
    {"role": "user", "content": [{"image": "a.png", "text": "x" * 9999}]},
])  # fmt: skip
def test_what_cannot_be_used_is_not_repeated_at_length(message):
    with pytest.raises(ValueError, match="message 0") as error:
        turns([message])
    assert len(str(error.value)) < 500
