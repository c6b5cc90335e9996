"""What every request passes: its number, the key, the count, the headers of every answer, and what
is answered where the rest failed."""

import asyncio
import hmac
import logging
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders

from janus_jax.serve.errors import Refused, fault, stopping

ROUTES = (
    "/v1/chat/completions", "/v1/images/generations", "/v1/images/edits", "/v1/models", "/health",
    "/ready", "/metrics", "/openapi.json", "/",
)  # fmt: skip
OPEN = ("/health", "/ready", "/metrics", "/")  # without a key, as is the page's folder
PAGE = "/page/"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
}


class Door:
    """ASGI around the app."""

    def __init__(self, app, service):
        self.app = app
        self.service = service
        self.keys = [key.encode() for key in service.settings.api_keys]

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"]
        status = "none"  # the client left before one was sent
        number = secrets.token_hex(8)

        async def sent(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = number
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        scope["held"] = 0  # bytes that came with it
        scope["number"] = number
        scope["begun"] = time.monotonic()
        self.service.open += 1
        try:
            if not self._may_pass(path, Headers(scope=scope)):
                self.service.refused("invalid_api_key")
                await _no_key().response()(scope, receive, sent)
            else:
                await self.app(scope, receive, sent)
        except (Exception, asyncio.CancelledError) as error:
            ended = isinstance(error, asyncio.CancelledError)  # with the server
            if not ended:
                logging.getLogger(__name__).exception(
                    "request %s (%s) failed", number, route_of(path)
                )
            if status != "none":  # half an answer stays one: the connection is closed
                status = status if ended else "500"
                raise
            refused = stopping() if ended else fault(error)
            self.service.refused(refused.code)
            await refused.response()(scope, receive, sent)
        finally:
            self.service.open -= 1
            self.service.held -= scope["held"]
            self.service.metrics.requests.labels(route_of(path), status).inc()

    def _may_pass(self, path: str, headers: Headers) -> bool:
        if not self.keys or path in OPEN or path.startswith(PAGE):
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = given.strip().encode("latin-1")  # its bytes, as they came
        fits = [hmac.compare_digest(given, key) for key in self.keys]  # each takes the same time
        return any(fits) and scheme.lower() == "bearer"


def _no_key() -> Refused:
    return Refused(
        401, "invalid_api_key",
        "no valid API key: send the header Authorization: Bearer KEY, KEY being a line of the "
        "server's --api_key_file", headers={"WWW-Authenticate": "Bearer"},
    )  # fmt: skip


def route_of(path: str) -> str:
    """The path as a label of metrics: few, whatever is asked for."""
    if path.startswith(PAGE):
        return PAGE
    if path.startswith("/v1/models/"):
        return "/v1/models"
    return path if path in ROUTES else "other"
