"""Drawings for both routes that draw: begun, told as they grow, and done."""

import functools
import math
import secrets
import time

import numpy as np

from janus_jax.serve.pictures import drawn_png, png
from janus_jax.serve.sized import grid_of


def starts_of(service, prompt: str, asked, seed: int) -> list:
    """What begins each picture of a request: picture k is the k-th of the seed."""
    how = dict(
        negative_prompt=asked.negative_prompt, cfg_scale=asked.guidance_scale,
        temperature=asked.temperature, seed=seed,
    )  # fmt: skip
    size = service.size_of(asked)
    how |= {} if size is None else {"size": size}
    return [
        lambda tell, k=k: service.engine.draw(prompt, number=k, on_ids=tell, **how)
        for k in range(asked.n or 1)
    ]


def seed_of(asked) -> int:
    """The seed that was given, or a new one."""
    return secrets.randbelow(2**32) if asked.seed is None else asked.seed


async def drawn(jobs, prompt: str, asked, partial: int = 0):
    """Yields (k, base64 of a PNG file, ids that it shows, None) for at most `partial` unfinished
    pictures of each, and (k, base64, N, Drawn) for each picture; None where it is quiet."""
    service = jobs.service
    size = service.size_of(asked)
    rows, columns = grid_of(service.engine.model, size)
    marks = _marks(rows, partial)
    ids = [np.zeros(0, np.int32) for _ in jobs.jobs]
    shown = [0 for _ in jobs.jobs]  # of each, how many marks were reached
    async for item in jobs.news():
        if item is None:
            yield None
            continue
        k, new, result = item
        if result is not None:
            made = functools.partial(drawn_png, service, asked, prompt, k, result)
            file = await service.in_thread(made)
            service.metrics.picture.observe(jobs.seconds)
            yield k, file, len(result.ids), result
            continue
        ids[k] = np.concatenate([ids[k], np.asarray(new, np.int32)])
        if jobs.behind:  # later ids are there: no picture is painted that is old already
            continue
        for k, part in enumerate(ids):
            due = sum(len(part) >= mark * columns for mark in marks)
            if due > shown[k]:
                shown[k] = due
                part = part[: marks[due - 1] * columns]
                made = lambda part=part: png(service.engine.picture(part, size))
                file = await service.in_thread(made)
                yield k, file, len(part), None


def _marks(rows: int, partial: int) -> list[int]:
    """After how many rows of tokens an unfinished picture is shown."""
    found = {math.ceil(rows * (i + 1) / (partial + 1)) for i in range(partial)}
    return sorted(found - {0, rows})


def image_usage(jobs_done: list) -> dict:
    """OpenAI's count of tokens, of the `Drawn` of one prompt."""
    given = jobs_done[0].prompt_tokens
    shown = jobs_done[0].picture_tokens
    made = sum(len(one.ids) for one in jobs_done)
    return {
        "input_tokens": given,
        "input_tokens_details": {"text_tokens": given - shown, "image_tokens": shown},
        "output_tokens": made,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": made},
        "total_tokens": given + made,
    }


async def images_body(jobs, asked) -> dict:
    """The answer, once all pictures are drawn. asked: the form."""
    found = {}
    async for item in drawn(jobs, asked.prompt, asked):
        if item is not None:
            k, file, _, result = item
            found[k] = file, result
    results = [found[k][1] for k in sorted(found)]
    data = [{"b64_json": found[k][0], "seed": found[k][1].seed} for k in sorted(found)]
    look = look_of(jobs.service, asked)
    return {"created": int(time.time()), "data": data, "usage": image_usage(results)} | look


def look_of(service, asked) -> dict:
    """What OpenAI's answers say of the drawings of a form."""
    return {
        "background": "opaque",
        "output_format": "png",
        "quality": "auto",
        "size": service.size_of(asked) or service.limits.size,
    }
