"""Keys, origins, headers, figures, and what is answered while no model is there."""

import re

import pytest
from support.held_engine import HeldEngine, soon
from support.servers import CLIENT, ask, asking, get, running, serving, user

from janus_jax.serve.app import make_app
from janus_jax.serve.settings import Settings

KEY = "a-key-of-the-test"


def figure(address: str, name: str, **labels) -> float:
    told = "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}" if labels else ""
    text = get(address, "/metrics").text
    found = re.search(rf"^janus_jax_{re.escape(name + told)} (\S+)$", text, re.M)
    assert found, text
    return float(found[1])


@pytest.fixture(scope="module")
def locked():
    with serving(HeldEngine(), api_keys=("another", KEY)) as address:
        yield address


@pytest.mark.parametrize("route", ["/v1/models", "/v1/models/quickstart", "/openapi.json", "/x"])
@pytest.mark.parametrize(
    "given", [None, "", "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer ÿ"]
)
def test_without_a_key_nothing_is_told(locked, route, given):
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    reply = get(locked, route, headers=headers)
    assert reply.status_code == 401 and reply.headers["www-authenticate"] == "Bearer"
    assert reply.json()["error"]["type"] == "authentication_error" and KEY not in reply.text


def test_a_key_opens_all(locked):
    for route in ("/v1/models", "/openapi.json"):
        headers = {"Authorization": f"Bearer {KEY}"}
        assert get(locked, route, headers=headers).status_code == 200
    assert ask(locked, user("hi")).status_code == 401


def test_health_readiness_figures_and_the_page_need_no_key(locked):
    assert get(locked, "/metrics").status_code == 200
    assert get(locked, "/health").json() == {"status": "ok"}
    assert get(locked, "/ready").json() == {"status": "ready"}
    assert get(locked, "/").status_code in (200, 404)
    assert get(locked, "/page/none").status_code == 404


def test_other_origins_are_refused_unless_they_are_named(door):
    origin = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in get(door, "/health", headers=origin).headers
    assert CLIENT.options(f"{door}/v1/models", headers=origin).status_code == 405
    with serving(HeldEngine(), cors=("https://example.org",), api_keys=(KEY,)) as address:
        url = f"{address}/v1/chat/completions"
        allowed = CLIENT.options(url, headers=origin).headers["access-control-allow-origin"]
        assert allowed == "https://example.org"
        other = CLIENT.options(url, headers=origin | {"Origin": "https://example.com"})
        assert other.status_code == 400 and "access-control-allow-origin" not in other.headers
        reply = CLIENT.post(url, headers=origin)  # a page can read why it is refused
        assert reply.status_code == 401 and "access-control-allow-origin" in reply.headers


def test_every_answer_has_the_headers_that_bind_a_browser(door):
    for route in ("/", "/health", "/nothing", "/v1/models"):
        headers = get(door, route).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-request-id"]
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


def test_health_ends_with_the_engine(held, hold):
    with hold() as address:
        assert get(address, "/health").status_code == 200
        held.failed = True
        reply = get(address, "/health")
        assert reply.status_code == 500 and reply.json()["error"]["code"] == "engine_failed"


@pytest.mark.parametrize("route", ["/", "/health", "/ready"])
def test_probes_may_ask_for_the_head_alone(door, route):
    reply = CLIENT.head(door + route)
    assert (reply.status_code, reply.content) == (200, b"")


def test_no_answer_leads_to_an_address_that_the_caller_did_not_give(door):
    """The server does not know its own behind a proxy."""
    assert get(door, "/health/", follow_redirects=False).status_code == 404


def test_the_package_of_javascript_passes_the_preflight():
    asks = {
        "Origin": "https://example.org", "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-arch",
    }  # fmt: skip
    with serving(HeldEngine(), cors=("https://example.org",)) as address:
        reply = CLIENT.options(f"{address}/v1/chat/completions", headers=asks)
    assert reply.status_code == 200
    assert "x-stainless-arch" in reply.headers["access-control-allow-headers"]


def test_a_fault_of_the_server_can_be_read_by_a_page_and_found_in_the_log(held, hold, caplog):
    held.draw = lambda *_, **__: 1 / 0
    headers = {"Origin": "https://example.org"}
    with hold(cors=("https://example.org",)) as address:
        reply = ask(address, {"prompt": "a"}, "images/generations", headers=headers)
    assert reply.status_code == 500 and reply.json()["error"]["code"] == "internal_error"
    assert reply.headers["access-control-allow-origin"] == "https://example.org"
    assert reply.headers["x-content-type-options"] == "nosniff"
    (record,) = [one for one in caplog.records if one.exc_info]
    assert reply.headers["x-request-id"] in record.getMessage()


def test_unknown_routes_and_methods_are_told_in_the_same_form(door):
    unknown = get(door, "/v1/nothing")
    assert unknown.status_code == 404 and unknown.json()["error"]["code"] == "not_found"
    method = get(door, "/v1/chat/completions")
    assert method.status_code == 405 and method.headers["allow"] == "POST"
    assert method.json()["error"]["code"] == "method_not_allowed"


def test_until_the_model_is_there_the_server_lives_and_is_not_ready():
    app = make_app(None, Settings("quickstart"))
    with running(app) as address:
        assert get(address, "/health").status_code == 200
        for reply in (
            get(address, "/ready"),
            get(address, "/v1/models"),
            ask(address, user("hi")),
        ):
            assert reply.status_code == 503 and reply.headers["retry-after"]
            assert reply.json()["error"]["code"] == "not_ready"
        assert figure(address, "ready") == 0
        app.state.service.begin(HeldEngine())
        assert get(address, "/ready").status_code == 200
        app.state.service.draining = True
        reply = ask(address, user("hi"))
        assert reply.status_code == 503 and reply.json()["error"]["code"] == "stopping"
        assert reply.headers["connection"] == "close"


def test_figures_count_requests_refusals_and_times(held, hold):
    with hold() as server:
        body = {"prompt": "a red circle", "n": 2}
        with (
            asking(server, body, "images/generations") as drawing,
            asking(server, user("hi") | {"stream": True}) as answer,
        ):
            assert soon(lambda: len(held.jobs) == 3)
            assert figure(server, "running") == 3 and figure(server, "requests_open") == 3
            for k in range(3):
                held.finish(k)
            assert drawing.result().is_success and answer.result().is_success
        assert ask(server, {}).status_code == 400
        get(server, f"/x/{'y' * 50}")
        assert figure(server, "picture_seconds_count") == 2
        assert figure(server, "first_token_seconds_count") == 1
        assert figure(server, "refusals_total", cause="invalid_value") == 1
        for status in "200", "400":
            assert (
                figure(server, "requests_total", route="/v1/chat/completions", status=status) == 1
            )
        assert figure(server, "requests_total", route="other", status="404") == 1
        assert figure(server, "rows") == 8 and figure(server, "ready") == 1
        assert figure(server, "requests_open") == 1  # this very one


def test_the_description_of_the_routes_names_every_field(door):
    schema = get(door, "/openapi.json").json()
    fields = schema["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"messages", "max_tokens", "draw", "guidance_scale"} <= fields.keys()
    body = schema["paths"]["/v1/images/generations"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"]["$ref"].endswith("/ImageRequest")
