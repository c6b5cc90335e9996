"""Random requests, made from the server's own OpenAPI document, never meet a fault of the server."""

import asyncio
import collections
import functools
import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.held_engine import HeldEngine
from support.hostile import CHAT, IMAGES, saved, uri

from janus_jax.serve.app import make_app
from janus_jax.serve.settings import Settings

WHOLE = [0, 1, 2, 7, -1, 10**9, 2**32, 2**63, 10**30]
NUMBERS = st.sampled_from([*WHOLE, 0.5, 1.0, -0.0, 1e9, 1e308, 5e-324])
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["quickstart", "a red circle", "24x24", "\0", "<image_placeholder>", "http://127.0.0.1/"]
    + [uri(saved("PNG")), uri(b"no picture"), "data:image/png;base64,AAAA"]
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
# Fields that nothing reads are of any type, and null is what most may be.
UNSAID = st.none() | st.none() | st.none() | st.none() | ANYTHING
USUAL = {"messages": st.just([{"role": "user", "content": "what is it?"}])}
KINDS = {
    "string": TEXTS, "integer": st.sampled_from(WHOLE), "number": NUMBERS,
    "boolean": st.booleans(), "null": st.none(),
}  # fmt: skip


class QuickEngine(HeldEngine):
    """Checks what is asked as the model's would, and has done it at once."""

    def __init__(self, model, processor):
        super().__init__()
        self.model = model
        self.processor = processor

    def draw(self, prompt, **how):
        self.processor.request(prompt)
        return self._done(super().draw(prompt, **how))

    def answer(self, conversation, **how):
        self.processor.question(conversation)
        return self._done(super().answer(conversation, **how))

    def picture(self, ids, size=None):
        return Image.new("RGB", (24, 24))

    def _done(self, job):
        self.finish(-1)
        self.jobs.clear()
        return job


def strategy(schema: dict, schemas: dict):
    """Values of a JSON schema, in the words that pydantic uses."""
    inner = functools.partial(strategy, schemas=schemas)
    if "$ref" in schema:
        return inner(schemas[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of(*map(inner, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    kind = schema.get("type")
    if kind == "array":
        return st.lists(inner(schema.get("items", {})), max_size=3)
    if kind == "object":
        fields = {name: inner(one) for name, one in schema.get("properties", {}).items()}
        fields |= {name: USUAL[name] | fields[name] for name in USUAL if name in fields}
        return objects(fields, schema.get("required", []))
    return KINDS.get(kind, UNSAID)


def objects(fields: dict, required: list):
    """With the fields that are needed and a few more; one in ten has a fault of its form."""
    name = st.sampled_from(sorted(fields))
    more = st.lists(name, max_size=2)
    fault = st.integers(0, 29)

    @st.composite
    def made(draw):
        out = {name: draw(fields[name]) for name in [*required, *draw(more)]}
        which = draw(fault)
        if which == 0:
            out[draw(TEXTS)] = draw(ANYTHING)
        if which == 1:
            out[draw(name)] = draw(ANYTHING)
        if which == 2:
            out.pop(draw(name), None)
        return out

    return made()


async def ask(app, route: str, body: bytes) -> tuple[int, bytes]:
    """Status and content of an app's reply, without a socket."""
    coming = [{"type": "http.request", "body": body, "more_body": False}]
    sent = []

    async def receive():
        return coming.pop() if coming else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": route, "root_path": "", "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "http_version": "1.1",
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def check(app, route: str, count: int) -> collections.Counter:
    """Asks `count` random requests. Gives how often each status came."""
    document = app.openapi()
    body = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]
    counts = collections.Counter()
    loop = asyncio.new_event_loop()

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(strategy(body["schema"], document["components"]["schemas"]))
    def one(value):
        status, content = loop.run_until_complete(ask(app, route, json.dumps(value).encode()))
        assert status < 500, content
        if status != 200:
            error = json.loads(content)["error"]
            assert error["message"] and error["code"] and len(content) < 20_000
        counts[status] += 1

    one()
    loop.close()
    assert app.state.service.open == app.state.service.held == 0
    return counts


@pytest.mark.parametrize("route", [CHAT, IMAGES])
def test_hundreds_of_random_requests_meet_no_fault(loaded, route):
    counts = check(make_app(QuickEngine(*loaded), Settings("quickstart")), route, 150)
    assert counts.total() == 150 and counts[200] and counts[400]


@pytest.mark.slow
@pytest.mark.parametrize("route", [CHAT, IMAGES])
def test_thousands_of_random_requests_meet_no_fault(loaded, route):
    counts = check(make_app(QuickEngine(*loaded), Settings("quickstart")), route, 2000)
    assert counts.total() == 2000 and min(counts[200], counts[400]) > 100
