"""An answer is told as it is made, in whole characters, and ends where it should."""

import pytest
from support import tiny

from janus_jax.sample.answer import Answer


def told(text: str, *stops: str, most=999, tokenizer=None) -> tuple[list[str], Answer]:
    """What an Answer tells of the ids of `text`, given one by one."""
    tokenizer, parts = tokenizer or tiny.processor().tokenizer, []
    answer = Answer(tokenizer, {tokenizer.eos}, stops, most, parts.append)
    ids = [*tokenizer.encode(text)[0], tokenizer.eos, *tokenizer.encode("never")[0]]
    for i in ids:
        answer.add([i])
    at_once = Answer(tokenizer, {tokenizer.eos}, stops, most)
    at_once.add(ids)
    assert at_once.text == answer.text and at_once.done
    return parts, answer


@pytest.mark.parametrize(
    "text",
    ["héllo wörld", "日本語のテキスト", "👩‍👩‍👧 🇫🇷!", " \n two  spaces \n", "\ufffd ok \ufffd", ""],
)
def test_an_answer_is_told_in_whole_characters_that_sum_to_it(text):
    parts, answer = told(text)
    assert "".join(parts) == answer.text == text.strip() and answer.done
    assert all(part in text for part in parts)
    if "\ufffd" not in text:
        assert not any("\ufffd" in part for part in parts)
    if len(text) > 8:
        assert len(parts) > 3, "it comes as it is made"


def test_an_answer_ends_before_a_stop_string_that_comes_in_pieces():
    for text in ("a cat. User: and", "a cat.  Us", "User: hi", "a Use User User:"):
        parts, answer = told(text, "User:", "END")
        want = text.partition("User:")[0].strip()
        assert "".join(parts) == answer.text == want
        assert not any("User:" in "".join(parts[:n]) for n in range(len(parts) + 1))
    assert told("one END two User:", "User:", "END")[1].text == "one"


def test_an_answer_has_at_most_so_many_ids():
    tokenizer = tiny.processor().tokenizer
    parts, answer = told("a red circle and a blue square", most=3)
    assert len(answer.ids) == 3 and answer.text == tokenizer.decode(answer.ids).strip() == "".join(
        parts
    )


def test_what_ends_an_answer_does_not_depend_on_how_many_ids_come_at_once():
    tokenizer = tiny.processor().tokenizer
    ids = tokenizer.encode("a red circle is left of a blue square")[0]
    for stops in (("circle", "red circle is"), ("red",), ("left", "is left of")):
        found = set()
        for size in (1, 4, 16):
            answer = Answer(tokenizer, {tokenizer.eos}, stops, 999)
            for at in range(0, len(ids), size):
                answer.add(ids[at : at + size])
            found.add((answer.text, len(answer.ids), answer.finish))
        assert len(found) == 1 and next(iter(found))[2] == "stop"


@pytest.mark.parametrize("most, finish", [(3, "length"), (999, "stop")])
def test_an_answer_says_why_it_ended(most, finish):
    tokenizer = tiny.processor().tokenizer
    answer = Answer(tokenizer, {tokenizer.eos}, (), most)
    assert answer.finish is None
    answer.add([*tokenizer.encode("how many circles are there")[0], tokenizer.eos])
    assert answer.finish == finish and answer.done
