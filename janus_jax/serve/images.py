"""POST /v1/images/generations."""

import time

from fastapi import APIRouter, Request

from janus_jax.serve.body import read_form
from janus_jax.serve.drawings import drawn, image_usage, images_body, look_of, seed_of, starts_of
from janus_jax.serve.image_form import ImageRequest
from janus_jax.serve.jobs import Events, jobs_of, whole
from janus_jax.serve.sized import grid_of

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


async def _events(jobs, asked):
    """OpenAI's events, with `image_index`, `done` and `total` (ids), and `seed`."""
    partial = PARTIAL if asked.partial_images is None else asked.partial_images
    rows, columns = grid_of(jobs.service.engine.model, jobs.service.size_of(asked))
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
        event |= look_of(jobs.service, asked) | {
            "image_index": k,
            "done": done,
            "total": rows * columns,
        }
        if result is None:
            event["partial_image_index"] = counts[k]
            counts[k] += 1
        else:
            event |= {"usage": image_usage([result]), "seed": result.seed}
        yield event
