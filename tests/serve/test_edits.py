"""POST /v1/images/edits as the package `openai` and plain forms use it, on the small model."""

import base64
import io
import re

import numpy as np
import openai
import pytest
from PIL import Image
from support.servers import ask, get

import janus_jax
from janus_jax.data.toy import shapes

WORDS = "make the circle blue"
ROUTE = "images/edits"


def file_of(scene: dict) -> bytes:
    out = io.BytesIO()
    Image.fromarray(shapes.draw(scene)).save(out, "PNG")
    return out.getvalue()


ONE = file_of({0: ("red", "circle")})
TWO = file_of({4: ("green", "cross"), 8: ("red", "square")})


def pixels(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def sent(address: str, *files, **fields):
    return ask(address, None, ROUTE, files=[("image", file) for file in files], data=fields)


def test_edits_are_those_of_the_library_and_tell_how(server, loaded):
    ai = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    more = {"seed": 3, "guidance_scale": 2.0}
    drawn = ai.images.edit(image=ONE, prompt=WORDS, n=2, size="24x24", extra_body=more)
    assert len(drawn.data) == 2
    for k, one in enumerate(drawn.data):
        (same,) = janus_jax.edit(*loaded, ONE, WORDS, seed=3, cfg_scale=2.0, first=k)
        np.testing.assert_array_equal(pixels(one.b64_json), np.asarray(same))
    # A picture is 9 tokens to understand and 36 ids.
    assert drawn.usage.input_tokens_details.image_tokens == 45
    assert drawn.usage.input_tokens > 45 and drawn.usage.output_tokens == 72
    several = ai.images.edit(image=[ONE, TWO], prompt=WORDS, extra_body={"seed": 3}).data[0]
    (same,) = janus_jax.edit(*loaded, [ONE, TWO], WORDS, seed=3)
    np.testing.assert_array_equal(pixels(several.b64_json), np.asarray(same))


@pytest.mark.parametrize(
    "files, fields, param, told",
    [
        ([], {"prompt": WORDS, "n": "1"}, None, "Content-Type is .*; send a form with files"),
        ([ONE], {}, "prompt", "prompt: is missing; give it"),
        ([ONE], {"prompt": " "}, "prompt", "prompt is ' ': say what to do"),
        ([b"text"], {"prompt": WORDS}, "image", "image 0: damaged, or no picture"),
        ([ONE] * 9, {"prompt": WORDS}, "image", r"image: 9 files; give 1 to 8 \(--max_pictures\)"),
        ([ONE], {"prompt": WORDS, "size": "9x9"}, "size", "'9x9': this model draws 24x24"),
        ([ONE], {"prompt": WORDS, "n": "x"}, "n", "n is 'x': input should be a valid integer"),
        ([ONE], {"prompt": WORDS, "guidance_scale": "nan"}, "guidance_scale", "guidance_scale is 'nan'"),
        ([ONE], {"prompt": WORDS, "guidance": "1"}, "guidance", "no such field; did you mean 'guidance_scale'"),
        ([ONE], {"prompt": WORDS, "response_format": "url"}, "response_format", "no pictures are kept"),
        ([ONE], {"prompt": WORDS, "model": "other"}, "model", "this server has 'quickstart'"),
    ],
)  # fmt: skip
def test_what_cannot_be_edited_is_refused_by_field(server, files, fields, param, told):
    reply = sent(server, *files, **fields)
    error = reply.json()["error"]
    assert 400 <= reply.status_code < 500 and error["param"] == param
    assert re.search(told, error["message"]), error


@pytest.mark.parametrize(
    "body, told",
    [
        (b"--b\r\nContent-Disposition: form-data; name=prompt\r\n\r\nhi", "has no end"),
        (
            b"--c\r\n\r\nhi\r\n--c--",
            "has no end: it was cut on the way, or its boundary is another",
        ),
        (b"--b\r\n\r\nhi\r\n--b--", 'has no Content-Disposition with a name="..."'),
        (b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--b--", "a: is no UTF-8"),
        (
            b"--b\r\nContent-Disposition: form-data; name=image\r\n\r\nhi\r\n--b--",
            "image is text; send the picture's file, as -F image=@a.png",
        ),
        (
            b"--b\r\nContent-Disposition: form-data; name=mask; filename=m.png\r\n\r\nhi\r\n--b--",
            "mask: no file of this name is read; leave it out",
        ),
        (b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n" * 2 + b"--b--", "'a' twice"),
        (b"--b\r\n" * 200 + b"--b--", "the form has 200 parts, at most 99 are read"),
    ],
)
def test_a_form_that_is_damaged_is_refused(server, body, told):
    head = {"Content-Type": "multipart/form-data; boundary=b"}
    reply = ask(server, None, ROUTE, content=body, headers=head)
    assert reply.status_code == 400 and told in reply.json()["error"]["message"]


def test_the_schema_says_that_pictures_are_files(server):
    body = get(server, "/openapi.json").json()["paths"]["/v1/images/edits"]["post"]["requestBody"]
    form = body["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["prompt", "image"]
    assert form["properties"]["image"]["items"] == {"type": "string", "format": "binary"}
