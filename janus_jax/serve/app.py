"""The server as an ASGI app."""

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from janus_jax.common.text import short, version
from janus_jax.serve.chat import chat_router
from janus_jax.serve.chat_form import ChatRequest
from janus_jax.serve.door import Door
from janus_jax.serve.edits import edit_router
from janus_jax.serve.errors import ErrorBody, Refused
from janus_jax.serve.facts import PAGE_FOLDER, fact_router
from janus_jax.serve.image_form import EditRequest, ImageRequest
from janus_jax.serve.images import image_router
from janus_jax.serve.multipart import KIND
from janus_jax.serve.service import Service
from janus_jax.serve.settings import Settings

FORMS = {"/v1/chat/completions": ChatRequest, "/v1/images/generations": ImageRequest}
EDITS = "/v1/images/edits"


def make_app(engine, settings: Settings) -> FastAPI:
    """The app. engine: None where the model is still to be loaded: `app.state.service.begin(engine)`
    opens it, from any thread."""
    app = FastAPI(
        title="janus-jax", version=version(), docs_url=None, redoc_url=None, redirect_slashes=False,
        responses={"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}},
    )  # fmt: skip
    service = app.state.service = Service(engine, settings)
    for router in (chat_router, image_router, edit_router, fact_router):
        app.include_router(router)
    if PAGE_FOLDER.is_dir():
        app.mount("/page", StaticFiles(directory=PAGE_FOLDER))
    app.openapi = lambda: _schema(app)

    def told(request, refused: Refused):
        service.refused(refused.code)
        return refused.response()

    def unknown(request, error: HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        text = f"{request.method} {short(request.url.path, 120)}: {error.detail.lower()}"
        text += "; docs/serving.md lists the routes"
        return told(request, Refused(error.status_code, code, text, headers=error.headers))

    app.add_exception_handler(Refused, told)
    app.add_exception_handler(HTTPException, unknown)
    app.add_middleware(Door, service=service)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors, allow_methods=("GET", "POST"),
            allow_headers=("*",), expose_headers=("X-Request-Id",),
        )  # fmt: skip
    return app


def _schema(app: FastAPI) -> dict:
    """The OpenAPI document, with the forms of the bodies, which `body.read_form` checks."""
    if app.openapi_schema:
        return app.openapi_schema
    schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    ref = "#/components/schemas/{model}"
    both = [(form, "validation") for form in FORMS.values()]
    _, found = models_json_schema(both, ref_template=ref)
    schema.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
    for path, form in FORMS.items():
        content = {"application/json": {"schema": {"$ref": ref.format(model=form.__name__)}}}
        schema["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
    files = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
    form = EditRequest.model_json_schema(ref_template=ref)
    form |= {"properties": form["properties"] | {"image": files}, "required": ["prompt", "image"]}
    content = {KIND: {"schema": form}}
    schema["paths"][EDITS]["post"]["requestBody"] = {"required": True, "content": content}
    app.openapi_schema = schema
    return schema
