"""What becomes of a request while it runs, on an engine that the tests hold."""

import concurrent.futures
import contextlib
import json
import re
import threading
import time

import httpx
import numpy as np
import pytest
from support.held_engine import soon
from support.hostile import saved, shown, uri
from support.servers import CLIENT, ask, asking, get, user

from janus_jax.serve import pictures
from janus_jax.serve.job import Closed
from janus_jax.serve.service import DECODING

DRAWING = {"prompt": "a red circle"}
BOTH = pytest.mark.parametrize(
    ("route", "body"), [("chat/completions", user("hi")), ("images/generations", DRAWING)]
)


def events(text: str) -> list:
    """The data of a stream."""
    data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(one) if one != "[DONE]" else one for one in data]


def test_options_reach_the_engine_as_they_were_given(held, hold):
    body = user("hi") | {
        "temperature": 0.5, "top_p": 0.9, "seed": 2**32 - 1, "stop": "x", "max_tokens": 5, "n": 2,
    }  # fmt: skip
    with hold() as address, asking(address, body) as reply:
        assert soon(lambda: len(held.jobs) == 2)
        held.finish(1)
        held.finish(0)
        choices = reply.result().json()["choices"]
    for number, (kind, conversation, how, _) in zip((2**32 - 1, 0), held.asked):
        want = dict(temperature=0.5, top_p=0.9, seed=number, stop=["x"], max_new_tokens=5)
        assert kind == "answer" and how == want
        assert conversation == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert [c["index"] for c in choices] == [0, 1]
    assert {c["message"]["content"] for c in choices} == {"hello there"}
    assert held.tells == [None, None], "one that does not stream need not be told in pieces"


def test_a_drawing_takes_its_words_and_numbers_from_either_route(held, hold):
    how = {"guidance_scale": 2, "temperature": 0.5, "negative_prompt": "blue", "seed": 5}
    with (
        hold() as address,
        asking(address, DRAWING | how | {"n": 2}, "images/generations") as one,
        asking(address, user(DRAWING["prompt"]) | how | {"draw": True}) as other,
    ):
        assert soon(lambda: len(held.jobs) == 3)
        for k in range(3):
            held.finish(k)
        assert {one.result().status_code, other.result().status_code} == {200}
    given = dict(seed=5, negative_prompt="blue", cfg_scale=2.0, temperature=0.5)
    assert all(asked[:2] == ("draw", DRAWING["prompt"]) for asked in held.asked)
    numbers = [asked[2].pop("number") for asked in held.asked]
    assert sorted(numbers) == [0, 0, 1] and all(asked[2] == given for asked in held.asked)


def test_a_full_queue_is_429_and_what_of_the_request_began_is_cancelled(held, hold):
    held.waiting = 2
    with hold() as address:
        reply = ask(address, DRAWING | {"n": 3}, "images/generations")
        assert reply.status_code == 429 and int(reply.headers["retry-after"]) > 0
        assert reply.json()["error"]["type"] == "rate_limit_error"
        assert held.unwanted(2)


@BOTH
def test_a_request_beyond_its_time_is_504_and_its_job_is_cancelled(held, hold, route, body):
    with hold(request_timeout=0.4) as address:
        reply = ask(address, body, route)
        assert reply.status_code == 504 and "--request_timeout" in reply.json()["error"]["message"]
        assert held.unwanted(1)


def test_the_time_of_a_request_begins_when_it_comes(held, hold):
    def slow():
        yield b'{"prompt": '
        time.sleep(0.5)
        yield b'"a red circle"}'

    with hold() as address, concurrent.futures.ThreadPoolExecutor(1) as pool:
        kind = {"Content-Type": "application/json"}
        reply = pool.submit(ask, address, None, "images/generations", content=slow(), headers=kind)
        assert soon(lambda: held.jobs)
        held.finish(0)
        assert reply.result().status_code == 200
        assert (
            float(re.search(r"picture_seconds_sum (\S+)", get(address, "/metrics").text)[1]) > 0.4
        )


def test_decoding_ends_with_the_request_and_keeps_no_other_kind_of_work_waiting(
    held, hold, monkeypatch
):
    let_go, begun = threading.Event(), []

    def slow(picture, *how):
        begun.append(picture)
        assert let_go.wait(20)

    monkeypatch.setattr(pictures, "understanding_image", slow)
    body, count = shown(uri(saved("PNG")), 3), DECODING + 2
    with hold(request_timeout=1) as address, concurrent.futures.ThreadPoolExecutor(count) as pool:
        replies = [pool.submit(ask, address, body) for _ in range(count)]
        assert soon(lambda: len(begun) == DECODING)
        with asking(address, user("hi")) as other:
            assert soon(lambda: len(held.jobs) == 1), "words wait for no picture"
            held.finish(0)
            assert other.result().status_code == 200
        assert {reply.result().status_code for reply in replies} == {504}
        let_go.set()
        with asking(address, body) as reply:  # a whole request passes behind what was left
            assert soon(lambda: len(held.jobs) == 2)
            held.finish(1)
            assert reply.result().status_code == 200
    assert len(begun) == DECODING + 3, "pictures of requests that have ended are not decoded"


def test_a_picture_that_was_there_in_time_is_given(held, hold):
    let_go, paint, painted = threading.Event(), held.picture, []

    def picture(ids, size=None):
        painted.append(len(ids))
        assert let_go.wait(20)
        return paint(ids, size)

    held.picture = picture
    with hold(request_timeout=0.5) as address, concurrent.futures.ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: list(drawing_events(address, partial_images=1)))
        assert soon(lambda: held.jobs)
        held.tells[0](np.zeros(18, np.int32))
        assert soon(lambda: painted)
        held.finish(0)
        time.sleep(0.6)
        let_go.set()
        assert found.result()[-1].get("type") == "image_generation.completed"


@BOTH
def test_a_stream_beyond_its_time_ends_with_the_error_and_without_done(held, hold, route, body):
    with hold(request_timeout=0.4) as address:
        *_, last = events(ask(address, body | {"stream": True}, route).text)
        assert last["error"]["code"] == "timeout"
        assert held.unwanted(1)


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_jobs(held, hold, route, body, stream):
    with hold() as address:
        body = body | {"stream": stream, "n": 2}
        with httpx.Client(verify=False) as client, contextlib.suppress(httpx.ReadTimeout):
            timeout = httpx.Timeout(10, read=0.3)
            with client.stream(
                "POST", f"{address}/v1/{route}", json=body, timeout=timeout
            ) as reply:
                for _ in reply.iter_lines():
                    pass
        assert held.unwanted(2)
        assert soon(lambda: 'cause="client_left"' in get(address, "/metrics").text)


@BOTH
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ValueError("logits are not finite"), 400, "invalid_value"),
        (Closed("the engine is closed"), 503, "stopping"),
        (ZeroDivisionError("secret"), 500, "internal_error"),
    ],
)
def test_what_ends_a_job_is_told(held, hold, route, body, stream, error, status, code):
    with hold() as address, asking(address, body | {"stream": stream}, route) as reply:
        assert soon(lambda: held.jobs)
        held.fail(0, error)
        reply = reply.result()
        told = events(reply.text)[-1] if stream else reply.json()
        assert reply.status_code == (200 if stream else status)
        assert told["error"]["code"] == code and "secret" not in reply.text


@pytest.mark.parametrize(
    ("route", "body", "error", "param"),
    [
        ("images/generations", DRAWING, "prompt is '': or cfg_scale 0", "prompt"),
        (
            "chat/completions",
            user("a") | {"draw": True},
            "prompt is '': or cfg_scale 0",
            "messages",
        ),
        ("images/generations", DRAWING, "negative_prompt: cfg_scale 1", "negative_prompt"),
        ("images/generations", DRAWING, "logits: cfg_scale is too large", None),
        ("chat/completions", user("a"), "message 0: is ' ', nothing to answer", "messages"),
        ("chat/completions", user("a"), "conversation: shorten it", "messages"),
    ],
)
def test_errors_of_the_engine_name_the_fields_of_the_form(held, hold, route, body, error, param):
    def refuse(*_, **__):
        raise ValueError(error)

    held.draw = held.answer = refuse
    with hold() as address:
        told = ask(address, body, route).json()["error"]
    assert told["param"] == param
    assert told["message"] == error.replace("cfg_scale", "guidance_scale")


def test_words_are_sent_as_they_come(held, hold):
    with hold() as address:
        url = f"{address}/v1/chat/completions"
        with CLIENT.stream("POST", url, json=user("hi") | {"stream": True}) as reply:
            lines = reply.iter_lines()
            content = lambda: next(
                c["choices"][0]["delta"].get("content")
                for line in lines
                if line.startswith("data: {")
                for c in [json.loads(line[6:])]
            )
            assert content() == "" and soon(lambda: held.jobs)
            for word in ("hello", " there"):  # the second only once the first was read
                held.tells[0](word)
                assert content() == word
            held.finish(0)
            assert list(lines)[-2:] == ["data: [DONE]", ""]


def drawing_events(address, **more):
    """The events of a picture's stream, one by one."""
    body = DRAWING | {"stream": True} | more
    with CLIENT.stream("POST", f"{address}/v1/images/generations", json=body) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                yield json.loads(line[6:])


def test_unfinished_pictures_are_whole_rows_and_as_many_as_asked(held, hold):
    with hold() as address, concurrent.futures.ThreadPoolExecutor(1) as pool:
        events = drawing_events(address, partial_images=24)
        first = pool.submit(next, events)
        assert soon(lambda: held.jobs)
        told, parts = 0, []
        for row in range(1, 6):  # rows of six, in chunks of four
            while told < 6 * row:
                held.tells[0](np.zeros(4, np.int32))
                told += 4
            parts.append(first.result() if row == 1 else next(events))
        held.finish(0)
        (last,) = events
    assert [part["done"] for part in parts] == [6, 12, 18, 24, 30]
    assert [part["partial_image_index"] for part in parts] == [0, 1, 2, 3, 4]
    assert last["type"] == "image_generation.completed"


def test_a_picture_that_is_old_already_is_not_painted(held, hold):
    """Where painting takes longer than drawing, nobody waits for what a later one shows."""
    painted, paint = [], held.picture
    slow = threading.Event()

    def picture(ids, size=None):
        painted.append(len(ids))
        assert slow.wait(20)
        return paint(ids, size)

    held.picture = picture
    with hold() as address, concurrent.futures.ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: list(drawing_events(address, partial_images=24)))
        assert soon(lambda: held.jobs)
        held.tells[0](np.zeros(6, np.int32))
        assert soon(lambda: painted)
        for _ in range(4):
            held.tells[0](np.zeros(6, np.int32))
        slow.set()
        assert soon(lambda: len(painted) == 2)
        held.finish(0)
        *parts, _ = found.result()
    assert [part["done"] for part in parts] == [6, 30] == painted[:2]


def test_many_at_once_each_get_their_own(held, hold):
    count = 20
    with hold() as address, concurrent.futures.ThreadPoolExecutor(count) as pool:
        draw = lambda k: ask(address, DRAWING | {"seed": k}, "images/generations").json()
        replies = [pool.submit(draw, k) for k in range(count)]
        assert soon(lambda: len(held.jobs) == count)
        threads = [threading.Thread(target=held.finish, args=(k,)) for k in range(count)]
        for thread in reversed(threads):
            thread.start()
        assert [reply.result()["data"][0]["seed"] for reply in replies] == list(range(count))
