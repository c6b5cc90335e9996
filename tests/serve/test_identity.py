"""What a server gives to many at once is what the library gives to each alone."""

import importlib

import pytest
from support.paths import BENCHMARKS


@pytest.fixture
def identity(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("serve_identity")


def test_random_requests_at_once_get_what_each_gets_alone(identity, server, loaded):
    said = identity.run(f"{server}/v1", 12, *loaded)
    assert said.startswith("12 requests at once: ")


def test_another_picture_or_word_is_told_with_its_request(identity, loaded):
    requests = identity.random_requests(12)
    drawing = next(x for x in requests if x.kind == "draw")
    answer = next(x for x in requests if x.kind == "answer")
    (picture, *_) = identity.offline(*loaded, drawing)
    other = picture.copy()
    other[3, 4] ^= 1
    told = identity.difference(drawing, [other], [picture])
    assert told == f"picture 0: 1 of {picture[..., 0].size} pixels differ"
    assert identity.difference(answer, "red", "blue") == "served 'red', alone 'blue'"
    reply = identity.sc.Reply(answer, 0.0, value="no such answer")
    with pytest.raises(AssertionError, match=r"request 0 of 1, answer .*served 'no such answer'"):
        identity.require_same([reply], *loaded)
    reply.error = RuntimeError("gone")
    with pytest.raises(AssertionError, match="was not answered: gone"):
        identity.require_same([reply], *loaded)
