"""POST /v1/chat/completions."""

import secrets
import time

from fastapi import APIRouter, Request

from janus_jax.serve.body import read_form
from janus_jax.serve.chat_form import ChatRequest
from janus_jax.serve.drawings import drawn, seed_of, starts_of
from janus_jax.serve.jobs import Events, in_time, jobs_of, whole
from janus_jax.serve.pictures import conversation_of, fetched

chat_router = APIRouter()


@chat_router.post("/v1/chat/completions")
async def complete_chat(request: Request):
    """Answers a conversation, or draws its last message."""
    asked = await read_form(request, ChatRequest)
    service = request.app.state.service
    seed = seed_of(asked)
    if asked.draws:
        starts = starts_of(service, asked.words(), asked, seed)
    else:
        starts = await in_time(request, _answers(request, asked, seed))
    async with jobs_of(request, starts, "messages") as jobs:
        told = _drawn_choices(jobs, asked) if asked.draws else _written(jobs, asked)
        head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": service.settings.model,
            "seed": seed,
        }
        if asked.stream:
            return Events(jobs, _chunks(head, told, asked))
        return await whole(request, jobs, _completion(head, told))


async def _answers(request, asked, seed: int) -> list:
    """What begins each answer: answer k has the seed after the k-th."""
    service = request.app.state.service
    files = await service.in_thread(fetched, asked, service.settings, pool=service.fetching)
    sizes = [len(file) for file in files.values() if isinstance(file, bytes)]
    request.scope["held"] += service.hold(sum(sizes))
    conversation = await conversation_of(asked, files, service)
    given = {"temperature": asked.temperature, "top_p": asked.top_p, "stop": asked.stop}
    how = {name: x for name, x in given.items() if x is not None} | asked.most()
    return [
        lambda tell, k=k: service.engine.answer(
            conversation, seed=(seed + k) % 2**32, on_text=tell if asked.stream else None, **how
        )
        for k in range(asked.n or 1)
    ]


async def _written(jobs, asked):
    """Yields (k, new text, None), and (k, "", end) where end is (finish reason, tokens of the
    prompt, new tokens)."""
    first = True
    async for item in jobs.news():
        if item is None:
            yield None
            continue
        k, new, result = item
        if first and asked.stream:  # only then the engine tells of it
            jobs.service.metrics.first_token.observe(jobs.seconds)
            first = False
        if result is None:
            yield k, new, None
            continue
        if not asked.stream:
            yield k, result.text, None
        yield k, "", (result.finish_reason, result.prompt_tokens, result.completion_tokens)


async def _drawn_choices(jobs, asked):
    """The same of drawings, whose content is a part with the picture."""
    async for item in drawn(jobs, asked.words(), asked):
        if item is None:
            yield None
            continue
        k, file, count, result = item
        yield (
            k,
            [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{file}"}}],
            None,
        )
        yield k, "", ("stop", result.prompt_tokens, count)


def _usage(ends: list) -> dict:
    """Of the ends of one prompt's answers."""
    given = ends[0][1]
    made = sum(end[2] for end in ends)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


async def _completion(head: dict, told) -> dict:
    contents = {}
    ends = {}
    async for item in told:
        if item is None:
            continue
        k, new, end = item
        if end is None:
            contents[k] = contents[k] + new if k in contents else new
        else:
            ends[k] = end
    choices = [
        {
            "index": k,
            "message": {"role": "assistant", "content": contents.get(k, ""), "refusal": None},
            "logprobs": None,
            "finish_reason": ends[k][0],
        }
        for k in sorted(ends)
    ]
    usage = _usage(list(ends.values()))
    return head | {"object": "chat.completion", "choices": choices, "usage": usage}


async def _chunks(head: dict, told, asked):
    head = head | {"object": "chat.completion.chunk"}
    counts = bool(asked.stream_options and asked.stream_options.include_usage)

    def chunk(k: int, delta: dict, reason=None) -> dict:
        choice = {"index": k, "delta": delta, "logprobs": None, "finish_reason": reason}
        return head | {"choices": [choice]} | ({"usage": None} if counts else {})

    for k in range(asked.n or 1):
        yield chunk(k, {"role": "assistant", "content": ""})
    ends = []
    async for item in told:
        if item is None:
            yield None
            continue
        k, new, end = item
        if end is None:
            yield chunk(k, {"content": new})
        else:
            ends.append(end)
            yield chunk(k, {}, end[0])
    if counts:
        yield head | {"choices": [], "usage": _usage(ends)}
