"""Refusals in OpenAI's form: {"error": {"message", "type", "param", "code"}}, with the remedy in the
message (platform.openai.com/docs/guides/error-codes; the fields as the package `openai` reads them).
"""

import re
import reprlib

from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse

from janus_jax.common.text import bounded, listed, near, short

TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_FIELD = re.compile(r"(negative_prompt|prompt|message(?= \d)|conversation)(?=[ :])")
RETRY = 2  # seconds after which one may ask again


class ErrorDetail(BaseModel):
    """What is wrong and how to mend it; the kind; the field; the cause in a word."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every answer that is none, and of the event that ends a stream."""

    error: ErrorDetail


class Refused(Exception):
    """A request that is not answered. status: of HTTP. code: the cause, in a word, for programs and
    for the metrics. param: the field, where it is one's."""

    def __init__(self, status: int, code: str, message: str, param=None, headers=None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if status in (429, 503):
            self.headers["Retry-After"] = str(RETRY)

    def form(self) -> dict:
        """The body of the answer."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = TYPES.get(self.status, kind)
        detail = ErrorDetail(
            message=bounded(str(self)), type=kind, param=self.param, code=self.code
        )
        return ErrorBody(error=detail).model_dump()

    def response(self) -> JSONResponse:
        return JSONResponse(self.form(), self.status, self.headers)


def fault(error: Exception) -> Refused:
    """What is told of an error that is nobody's but ours."""
    return Refused(
        500,
        "internal_error",
        f"a fault of the server ({type(error).__name__}): its log has the rest, at the number of the "
        "header X-Request-Id",
    )


def stopping() -> Refused:
    """What is told where the server ends before the request does."""
    text = "the server stops: send the request again, to another or later"
    return Refused(503, "stopping", text, headers={"Connection": "close"})


def unusable(error: ValueError, prompt: str) -> Refused:
    """What the engine says of options, prompts and pictures that it cannot use, by the names of the
    form's fields. prompt: the field that holds the words to draw."""
    text = str(error).replace("cfg_scale", "guidance_scale")
    found = _FIELD.match(text)
    param = {"negative_prompt": "negative_prompt", "prompt": prompt}
    return Refused(400, "invalid_value", text, found and param.get(found[0], "messages"))


def unfit(error: ValidationError, form) -> Refused:
    """All that is wrong with a body, field by field. form: the pydantic model it should be."""
    found = error.errors(include_url=False)
    lines = list(dict.fromkeys(_line(one, form) for one in found))
    text = lines[0] if len(lines) == 1 else f"{len(lines):,} faults:{listed(lines)}"
    unknown = all(one["type"] == "extra_forbidden" for one in found)
    code = "unknown_field" if unknown else "invalid_value"
    return Refused(400, code, text, place(found[0]["loc"]))


def place(loc: tuple) -> str | None:
    """("messages", 0, "content") as messages[0].content."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return short(text.lstrip("."), 120) or None


def _line(one: dict, form) -> str:
    where = place(one["loc"]) or "the body"
    if one["type"] == "extra_forbidden":
        name = str(one["loc"][-1])[:50]  # comparing long ones takes long
        known = near(name, form.model_fields) if len(one["loc"]) == 1 else ""
        known = known if known.startswith("; did") else ""
        return f"{where}: there is no such field{known}; leave it out"
    if one["type"] == "missing":
        return f"{where}: is missing; give it"
    if one["type"] == "value_error":
        return f"{where}: {one['ctx']['error']}"
    message = one["msg"][:1].lower() + one["msg"][1:]
    return f"{where} is {told(one['input'])}: {message}"


def told(value) -> str:
    """A value of a request, for a message."""
    try:
        return short(reprlib.repr(value), 80)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
