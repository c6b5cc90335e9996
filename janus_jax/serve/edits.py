"""POST /v1/images/edits."""

import functools

from fastapi import APIRouter, Request

from janus_jax.serve.drawings import images_body, seed_of
from janus_jax.serve.errors import Refused, unusable
from janus_jax.serve.image_form import EditRequest
from janus_jax.serve.jobs import in_time, jobs_of, whole
from janus_jax.serve.multipart import read_files
from janus_jax.serve.pictures import decoded

NAMES = ("image", "image[]")  # the package `openai` calls several so
edit_router = APIRouter()


@edit_router.post("/v1/images/edits")
async def edit_images(request: Request):
    """Draws what an instruction makes of pictures."""
    asked, files = await read_files(request, EditRequest, NAMES)
    branches = await in_time(request, _seen(request.app.state.service, asked, files))
    engine = request.app.state.service.engine
    how = dict(cfg_scale=asked.guidance_scale, temperature=asked.temperature, seed=seed_of(asked))
    starts = [
        lambda tell, k=k: engine.edit(branches, number=k, on_ids=tell, **how)
        for k in range(asked.n or 1)
    ]
    async with jobs_of(request, starts, "prompt") as jobs:
        return await whole(request, jobs, images_body(jobs, asked))


async def _seen(service, asked, files: list[bytes]):
    """The prompts of guidance, their pictures seen. Raises Refused."""
    most = service.settings.max_pictures
    if not 1 <= len(files) <= most:
        raise Refused(
            400, "invalid_value", f"image: {len(files)} files; give 1 to {most} (--max_pictures)", "image"
        )  # fmt: skip
    pictures = []
    for k, data in enumerate(files):
        open_one = functools.partial(decoded, data, f"image {k}", service.settings)
        try:
            pictures.append(await service.in_thread(open_one, pool=service.decoding))
        except ValueError as error:
            raise Refused(400, "invalid_image", str(error), "image") from None
    try:
        return await service.in_thread(service.engine.see, pictures, asked.prompt)
    except ValueError as error:
        text = str(error).replace("instruction", "prompt")  # as the form calls it
        raise unusable(ValueError(text), "prompt") from None
