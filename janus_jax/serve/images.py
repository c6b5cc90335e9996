"""POST /v1/images/generations."""

import time

from fastapi import APIRouter, Request

from janus_jax.serve.body import read_form
from janus_jax.serve.drawings import drawn, image_usage, seed_of, starts_of
from janus_jax.serve.image_form import ImageRequest
from janus_jax.serve.jobs import Events, jobs_of, whole

PARTIAL = 3  # unfinished pictures where the request does not say how many
image_router = APIRouter()


@image_router.post("/v1/images/generations")
async def generate_images(request: Request):
    """Draws pictures for a prompt."""
    asked = await read_form(request, ImageRequest)
    service = request.app.state.service
    seed = seed_of(asked)
    starts = starts_of(service, asked.prompt, asked, seed)
    async with jobs_of(request, starts, "prompt") as jobs:
        if asked.stream:
            return Events(jobs, _events(jobs, asked))
        return await whole(request, jobs, images_body(jobs, asked))


async def images_body(jobs, asked) -> dict:
    """The answer, once all pictures are drawn. asked: the form."""
    found = {}
    async for item in drawn(jobs, asked.prompt, asked):
        if item is not None:
            k, file, _, result = item
            found[k] = file, result
    results = [found[k][1] for k in sorted(found)]
    data = [{"b64_json": found[k][0], "seed": found[k][1].seed} for k in sorted(found)]
    return {"created": int(time.time()), "data": data, "usage": image_usage(results)} | _look(jobs)


def _look(jobs) -> dict:
    return {
        "background": "opaque",
        "output_format": "png",
        "quality": "auto",
        "size": jobs.service.limits.size,
    }


async def _events(jobs, asked):
    """OpenAI's events, with `image_index`, `done` and `total` (ids), and `seed`."""
    partial = PARTIAL if asked.partial_images is None else asked.partial_images
    total = jobs.service.engine.processor.generation_tokens
    counts = [0 for _ in jobs.jobs]
    async for item in drawn(jobs, asked.prompt, asked, partial):
        if item is None:
            yield None
            continue
        k, file, done, result = item
        kind = "partial_image" if result is None else "completed"
        event = {
            "type": f"image_generation.{kind}",
            "b64_json": file,
            "created_at": int(time.time()),
        }
        event |= _look(jobs) | {"image_index": k, "done": done, "total": total}
        if result is None:
            event["partial_image_index"] = counts[k]
            counts[k] += 1
        else:
            event |= {"usage": image_usage([result]), "seed": result.seed}
        yield event
