"""The routes that tell: the model, the server's state, its figures, its page."""

import pathlib

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import FileResponse

from janus_jax.serve.errors import Refused

PAGE_FOLDER = pathlib.Path(__file__).parent / "page"
fact_router = APIRouter()


@fact_router.get("/v1/models")
def list_models(request: Request):
    """The one model, and what a page needs to know of it."""
    return {"object": "list", "data": [_model(request.app.state.service)]}


@fact_router.get("/v1/models/{name:path}")
def retrieve_model(request: Request, name: str):
    """The same of one model."""
    service = request.app.state.service
    service.require_model(name)
    return _model(service)


def _model(service) -> dict:
    service.require_ready()
    engine = service.engine
    vq = engine.model.config.generation_encoder
    processor = engine.processor
    limits = service.limits
    return {
        "id": service.settings.model,
        "object": "model",
        "created": service.created,
        "owned_by": "janus_jax",
        "image_size": vq.image_size,
        "image_tokens": processor.generation_tokens,
        "grid": list(vq.grid),
        "cfg_scale": processor.cfg_scale,
        "temperature": processor.temperature,
        "context": processor.context,
        "max_images": service.settings.max_pictures,
        "max_n": service.settings.max_n,
    } | ({"sizes": [limits.size, *limits.sizes]} if limits.sizes else {})


@fact_router.head("/health", include_in_schema=False)
@fact_router.get("/health")
async def health(request: Request):
    """200 while the process and its engine work, else 500: start it again."""
    engine = request.app.state.service.engine
    if engine is not None and engine.failed:
        raise Refused(
            500, "engine_failed", "the engine has ended by a fault: start the server again"
        )
    return {"status": "ok"}


@fact_router.head("/ready", include_in_schema=False)
@fact_router.get("/ready")
async def ready(request: Request):
    """200 while requests are taken, else 503."""
    request.app.state.service.require_ready()
    return {"status": "ready"}


@fact_router.get("/metrics")
def metrics(request: Request):
    """For Prometheus."""
    registry = request.app.state.service.metrics.registry
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@fact_router.head("/", include_in_schema=False)
@fact_router.get("/", include_in_schema=False)
def page():
    """The page."""
    index = PAGE_FOLDER / "index.html"
    if not index.is_file():
        raise Refused(404, "not_found", "this server has no page; it answers under /v1")
    return FileResponse(index, headers={"Cache-Control": "no-cache"})
