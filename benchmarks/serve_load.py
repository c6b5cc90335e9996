"""Load on a server: a closed loop (each client asks again when it has its answer), an open one (requests
come at random times, whatever waits), and short answers beside drawings that never end.
"""

import asyncio
import time

import numpy as np
import serve_client as sc

from janus_jax.data.toy import shapes

GUIDANCE = 5.0
LONG, SHORT = 32, 8  # tokens of an answer at most
SHARES = (50, 95, 99)


def mix(count: int, side: int, seed: int = 0) -> list[sc.Request]:
    """Drawings (guided, temperature 1) and answers (greedy; every second one about a picture of
    `side` pixels) in turn; what is drawn and asked is of the shapes world."""
    rng = np.random.default_rng(seed)
    prompts = shapes.evaluation_prompts(-(-count // len(shapes.TASKS)), seed)
    asked = []
    for i in range(count):
        words = prompts[i].text
        if i % 2:
            shown = [rng.integers(0, 256, (side, side, 3), np.uint8)] if i % 4 == 1 else []
            asked.append(answer(f"where is {words}, and what stands beside it?", *shown))
        else:
            asked.append(drawing(words, seed=i))
    return asked


def drawing(prompt: str, temperature: float = 1.0, seed: int = 0) -> sc.Request:
    how = {"guidance_scale": GUIDANCE, "temperature": temperature, "seed": seed}
    return sc.Request("draw", {"prompt": prompt, **how})


def answer(words: str, *pictures: np.ndarray, most: int = LONG) -> sc.Request:
    body = {"messages": [sc.message(words, *pictures)], "max_tokens": most, "temperature": 0.0}
    return sc.Request("answer", body)


async def closed(url: str, requests: list[sc.Request], clients: int) -> list[sc.Reply]:
    """The replies in the order of the requests; each client takes the next that nobody has."""
    replies, left = [None] * len(requests), iter(enumerate(requests))
    async with sc.client(url) as send:

        async def one():
            for i, request in left:
                replies[i] = await send(request)

        await asyncio.gather(*(one() for _ in range(clients)))
    return replies


async def opened(url: str, requests: list[sc.Request], rate: float) -> list[sc.Reply]:
    """Requests that come as a Poisson process does, `rate` a second on average. A reply's time
    begins when its request was due."""
    due = np.random.default_rng(0).exponential(1 / rate, len(requests)).cumsum()
    async with sc.client(url) as send:
        begin = time.perf_counter()

        async def one(request, at: float):
            await asyncio.sleep(begin + at - time.perf_counter())
            reply = await send(request)
            reply.begun = begin + at
            return reply

        return await asyncio.gather(*map(one, requests, due))


async def beside(url: str, count: int, drawers: int) -> tuple[list[sc.Reply], list[sc.Reply]]:
    """`count` short answers one after the other, alone and then while `drawers` clients draw
    without a pause."""
    short = [
        answer(f"how many circles are there in picture {i}?", most=SHORT) for i in range(count)
    ]
    async with sc.client(url) as send:
        alone = [await send(request) for request in short]
        over = asyncio.Event()

        async def draw(seed: int):
            while not over.is_set():
                reply = await send(drawing("a red circle", seed=seed))
                if reply.error:
                    raise reply.error

        drawing_ = [asyncio.create_task(draw(i)) for i in range(drawers)]
        running = [await send(request) for request in short[:1] + short][1:]  # they have begun
        over.set()
        await asyncio.gather(*drawing_)
    return alone, running


def percentiles(times) -> dict[str, float]:
    """p50, p95 and p99 of seconds; {} of none."""
    times = [x for x in times if np.isfinite(x)]
    found = np.percentile(times, SHARES).tolist() if times else []
    return {f"p{share}": x for share, x in zip(SHARES, found)}


def measured(replies: list[sc.Reply]) -> dict:
    """Rates over the time from the first request to the last reply, and latencies. Raises
    RuntimeError that tells what was not answered."""
    wrong = [f"{x.request.kind}: {x.error}" for x in replies if x.error]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {len(replies)} requests failed: {wrong[0]}")
    seconds = max(x.ended for x in replies) - min(x.begun for x in replies)
    of = lambda kind: [x for x in replies if x.request.kind == kind]
    took = lambda kind: percentiles(x.ended - x.begun for x in of(kind))
    return {
        "requests": len(replies), "seconds": seconds, "requests/s": len(replies) / seconds,
        "tokens/s": sum(x.tokens for x in replies) / seconds,
        "pictures/min": 60 * sum(len(x.value) for x in of("draw")) / seconds,
        "answer": took("answer"), "picture": took("draw"),
        "first token": percentiles(x.first - x.begun for x in of("answer")),
    }  # fmt: skip


def alike(ours: list[sc.Reply], theirs: list[sc.Reply], near: int = 0) -> dict[str, list[int]]:
    """kind -> [how many replies of both sides are the same, of how many]. near: levels of 255 by
    which the same ids' pixels may differ."""
    count = {"draw": [0, 0], "answer": [0, 0]}
    for a, b in zip(ours, theirs, strict=True):
        if a.request.kind == "answer":
            same = a.value == b.value
        else:
            gap = [np.abs(x.astype(int) - y).max() for x, y in zip(a.value, b.value, strict=True)]
            same = max(gap) <= near
        count[a.request.kind][0] += bool(same)
        count[a.request.kind][1] += 1
    return count
