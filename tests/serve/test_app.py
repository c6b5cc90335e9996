"""The routes as the package `openai` uses them, on the small model."""

import base64
import io
import json

import numpy as np
import openai
import pytest
from PIL import Image
from support.servers import ask, user

import janus_jax


@pytest.fixture(scope="module")
def ai(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def pixels(text: str) -> np.ndarray:
    return np.asarray(picture(text))


@pytest.fixture(scope="module")
def want(loaded):
    """What the library draws of the same."""
    return janus_jax.generate(*loaded, "a red circle", seed=3, images_per_prompt=2)


@pytest.fixture(scope="module")
def url(want):
    file = io.BytesIO()
    want[0].save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def test_pictures_are_those_that_generate_draws_and_tell_how(ai, want):
    drawn = ai.images.generate(prompt="a red circle", n=2, extra_body={"seed": 3})
    for k, (one, same) in enumerate(zip(drawn.data, want)):
        np.testing.assert_array_equal(pixels(one.b64_json), np.asarray(same))
        told = picture(one.b64_json).info
        assert told["prompt"] == "a red circle" and told["index"] == str(k)
        assert told["seed"] == "3" == str(one.seed) and told["model"] == "quickstart"
        assert float(told["cfg_scale"]) == same.info["cfg_scale"]
    assert drawn.usage.output_tokens == 72
    assert drawn.usage.total_tokens == drawn.usage.input_tokens + 72


def test_a_request_without_a_seed_is_told_one_that_draws_the_same_again(ai):
    first = ai.images.generate(prompt="a blue square").data[0]
    again = ai.images.generate(prompt="a blue square", extra_body={"seed": first.seed}).data[0]
    np.testing.assert_array_equal(pixels(first.b64_json), pixels(again.b64_json))


def test_a_stream_ends_with_the_picture_and_shows_whole_rows_before(ai, want):
    events = list(
        ai.images.generate(
            prompt="a red circle", stream=True, partial_images=2, extra_body={"seed": 3}
        )
    )
    *parts, last = events
    assert last.type == "image_generation.completed" and last.seed == 3
    np.testing.assert_array_equal(pixels(last.b64_json), np.asarray(want[0]))
    for i, part in enumerate(parts):
        assert part.type == "image_generation.partial_image" and part.partial_image_index == i
        shown = pixels(part.b64_json)
        assert shown.shape[1] == 24 and shown.shape[0] * 36 == part.done * 24 < 24 * part.total
    assert len(parts) <= 2


def test_answers_are_those_of_understand_whole_and_in_pieces(ai, loaded, url):
    parts = [
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "text", "text": "describe it"},
    ]
    messages = [{"role": "user", "content": parts}]
    same = dict(seed=4, temperature=1.0)
    want = janus_jax.understand(*loaded, messages, max_new_tokens=12, **same)
    how = dict(model="quickstart", messages=messages, max_completion_tokens=12, **same)
    whole = ai.chat.completions.create(**how)
    assert whole.choices[0].message.content == want
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(
        ai.chat.completions.create(**how, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == want
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage


@pytest.mark.parametrize("asked", [{"draw": True}, {"modalities": ["text", "image"]}])
def test_a_chat_draws_its_last_message(server, want, asked):
    body = user("a red circle") | asked | {"seed": 3}
    (part,) = ask(server, body).json()["choices"][0]["message"]["content"]
    head, _, file = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(pixels(file), np.asarray(want[0]))


def test_a_reply_with_a_picture_may_stand_in_the_next_request(server, url):
    part = {"type": "image_url", "image_url": {"url": url}}
    said = {"role": "assistant", "content": [part], "refusal": None, "tool_calls": None}
    body = {"messages": [*user("a red circle")["messages"], said, *user("what is it?")["messages"]]}
    assert ask(server, body | {"max_tokens": 2}).status_code == 200


def test_a_stream_is_events_that_end_with_done(server):
    reply = ask(server, user("hi") | {"stream": True, "max_tokens": 2})
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in reply.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    assert json.loads(lines[0][6:])["object"] == "chat.completion.chunk"


def test_the_model_is_listed_with_what_a_page_needs(ai):
    (model,) = ai.models.list().data
    assert model == ai.models.retrieve("quickstart")
    assert (model.image_size, model.image_tokens, model.grid) == (24, 36, [6, 6])
    assert model.context == 4096 and model.max_images == 8
    with pytest.raises(openai.NotFoundError, match="this server has 'quickstart'"):
        ai.models.retrieve("other/model")


def test_what_the_engine_cannot_use_is_400_and_says_why(server):
    long = ask(server, user("word " * 5000))
    assert long.status_code == 400 and "the context is 4,096" in long.json()["error"]["message"]
    blank = ask(server, {"prompt": " "}, "images/generations")
    assert blank.status_code == 400 and "some words to draw" in blank.json()["error"]["message"]
