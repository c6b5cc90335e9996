"""The body of a request: read within its limits, and brought to its form."""

import asyncio
import json

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from janus_jax.common.text import size
from janus_jax.serve.errors import Refused, told, unfit
from janus_jax.serve.jobs import LEFT

COMMAS = 50_000  # of a body: far more than any form has values and its texts have commas


async def read_form(request, form):
    """The body of a request as `form`, a pydantic model. Raises Refused."""
    service = request.app.state.service
    service.require_ready()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(
            415, "unsupported_media_type",
            f"Content-Type is {kind!r}; send JSON, and the header Content-Type: application/json",
        )  # fmt: skip
    data = await read_bytes(request, service)
    if data.count(b",") > COMMAS:
        raise Refused(
            400, "too_many_values", f"the body has more than {COMMAS:,} commas; send less"
        )
    try:
        values = from_json(data)
        json.loads(data, object_pairs_hook=_once)
    except ValueError as error:
        raise Refused(
            400, "invalid_json", f"the body is no JSON in UTF-8: {error}; encode it again"
        ) from None
    try:
        asked = form.model_validate(values, context=service.limits)
    except ValidationError as error:
        raise unfit(error, form) from None
    service.require_model(asked.model)
    return asked


async def read_bytes(request, service) -> bytearray:
    """The bytes of a body; of one that is too long as many again, so that the client hears why."""
    settings = service.settings
    most = settings.max_body
    out = bytearray()
    count = 0
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for part in request.stream():
                count += len(part)
                if count <= most:
                    request.scope["held"] += service.hold(len(part))
                    out += part
                elif count > 2 * most:
                    break
    except TimeoutError:
        raise Refused(
            408, "body_timeout",
            f"the body did not come within {settings.body_timeout:g} s (--body_timeout); send it faster",
            headers={"Connection": "close"},
        ) from None  # fmt: skip
    except ClientDisconnect:
        raise Refused(LEFT, "client_left", "the client closed the connection") from None
    if count > most:
        raise Refused(
            413, "body_too_large",
            f"the body is larger than {size(most)} (--max_body_mb); send smaller or fewer pictures",
            headers={"Connection": "close"},
        )  # fmt: skip
    return out


def _once(pairs: list[tuple]):
    """Raises Refused for a field that stands twice in an object: one of the values would be lost
    without a word."""
    names = set()
    for name, _ in pairs:
        if name in names:
            text = f"the body has {told(name)} twice in one object; give it once"
            raise Refused(400, "repeated_field", text)
        names.add(name)
