"""Hours of mixed load on a server: what became of each request, what memory it took, and what clients
saw when it was ended.

Clients ask at random for what serve_identity makes, break off one request in eight and send one in
eight that must be refused. A canary, the same request each time, must be answered with the same words.
"""

import asyncio
import collections
import time

import numpy as np
import openai
import serve_client as sc
import serve_identity

LOOK = 60  # seconds between two looks at the memory
LAST = 12  # requests that run when the server is ended
REFUSED = (
    ("draw", {"prompt": "a red circle", "size": "1x1"}),
    ("draw", {"prompt": "a red circle", "guidance_scale": -1}),
    ("draw", {"prompt": "a red circle", "n": 100}),
    ("draw", {"prompt": ""}),
    ("answer", {"messages": [{"role": "user", "content": "why? " * 100_000}], "max_tokens": 4}),
    ("answer", {"messages": [], "max_tokens": 4}),
    ("answer", {"messages": [{"role": "user", "content": "why?"}], "max_tokens": -1}),
    ("answer", {"messages": [{"role": "user", "content": "why?"}], "temperature": -1}),
)


async def soak(server: sc.Server, minutes: float, clients: int) -> dict:
    """Counts of outcomes by kind of request, the memory in bytes at each look, and the outcomes of
    the end. `wrong` tells what should not have been."""
    over = time.monotonic() + 60 * minutes
    counts = collections.defaultdict(collections.Counter)
    async with sc.client(server.url) as send:
        loops = [_client(send, i, over, counts) for i in range(clients)]
        looks, *_ = await asyncio.gather(_look(server, over), *loops, _canary(send, over, counts))
        memory = [*looks, [60 * minutes, server.memory()]]
        end = await _end(server, send)
    wrong = [f"{kind}: {what}" for kind in counts for what in counts[kind] if "!" in what]
    if end["exit code"]:
        wrong.append(f"exit code {end['exit code']} after SIGTERM")
    return {"counts": counts, "memory": memory, "end": end, "wrong": wrong}


async def _client(send, number: int, over: float, counts):
    rng = np.random.default_rng(number)
    while time.monotonic() < over:
        (request,) = serve_identity.random_requests(1, int(rng.integers(2**31)))
        chance = rng.random()
        if chance < 1 / 8:
            broken = await _broken(send, request, rng.exponential(0.3))
            counts["broken off"][broken] += 1
        elif chance < 2 / 8:
            request = sc.Request(*REFUSED[rng.integers(len(REFUSED))])
            counts["bad"][_refused(await send(request))] += 1
        else:
            reply = await send(request)
            counts[request.kind][outcome(reply)] += 1
            if reply.error:
                await asyncio.sleep(1)


async def _broken(send, request: sc.Request, after: float) -> str:
    """Closes the connection after so many seconds."""
    work = asyncio.create_task(send(request))
    done, _ = await asyncio.wait([work], timeout=after)
    work.cancel()
    return "was quicker" if done else "closed"


async def _canary(send, over: float, counts):
    """The same request every few seconds, in all this company."""
    (request,) = serve_identity.random_requests(1, 5)
    want = (await send(request)).value
    while time.monotonic() < over:
        reply = await send(request)
        same = not reply.error and not serve_identity.difference(request, reply.value, want)
        counts["canary"]["the same" if same else f"! {reply.error or 'another'}"] += 1
        await asyncio.sleep(2)


def _refused(reply: sc.Reply) -> str:
    """4xx is right for what cannot be used."""
    status = getattr(reply.error, "status_code", None)
    right = status is not None and (400 <= status < 500)
    return (
        str(status) if right else f"! {status or reply.error or 'answered'} to {reply.request.body}"
    )


def outcome(reply: sc.Reply) -> str:
    """What the client saw; with a ! what it must not see of a good request."""
    if reply.error is None:
        return "answered"
    if isinstance(reply.error, openai.APIStatusError):
        status = reply.error.status_code
        return f"{status}" if status in (429, 503) else f"! {status}: {reply.error.message[:200]}"
    return f"! {type(reply.error).__name__}: {reply.error}"


async def _look(server: sc.Server, over: float) -> list[list[float]]:
    begin, found = time.monotonic(), []
    while time.monotonic() < over:
        found.append([time.monotonic() - begin, server.memory()])
        await asyncio.sleep(min(LOOK, max(over - time.monotonic(), 0)))
    return found


async def _end(server: sc.Server, send) -> dict:
    """SIGTERM while requests run, and as many again after it."""
    requests = serve_identity.random_requests(2 * LAST, 9)
    running = [asyncio.create_task(send(request)) for request in requests[:LAST]]
    await asyncio.sleep(0.5)
    begin = time.monotonic()
    server.terminate()
    await asyncio.sleep(0.5)
    late = [asyncio.create_task(send(request)) for request in requests[LAST:]]
    before, after = await asyncio.gather(*running), await asyncio.gather(*late)
    code = await asyncio.to_thread(server.process.wait)
    said = lambda x: (
        type(x.error).__name__ if isinstance(x.error, openai.APIConnectionError) else outcome(x)
    )
    return {
        "running": collections.Counter(map(said, before)),
        "later": collections.Counter(map(said, after)),
        "exit code": code, "seconds": time.monotonic() - begin,
    }  # fmt: skip


def page(found: dict) -> str:
    looks = [x for _, x in found["memory"]]
    lines = [
        f"`{found['command']}` on {found['processor']}",
        "",
        "| requests | outcomes |",
        "|---|---|",
    ]
    many = lambda counter: ", ".join(f"{n} {what}" for what, n in sorted(counter.items()))
    lines += [f"| {kind} | {many(of)} |" for kind, of in sorted(found["counts"].items())]
    end = found["end"]
    lines += [
        f"| sent in the half second before SIGTERM | {many(end['running'])} |",
        f"| sent in the half second after it | {many(end['later'])} |",
        "", f"Memory of the server: {looks[0] / 1e6:.0f} MB at the start, {looks[-1] / 1e6:.0f} MB at "
        f"the end, at most {max(looks) / 1e6:.0f} MB. {end['seconds']:.1f} s after SIGTERM it had ended, "
        f"with exit code {end['exit code']}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def chart(found: dict, path):
    """The memory over the minutes, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    seconds, held = np.asarray(found["memory"]).T
    axes.plot(seconds / 60, held / 1e6, marker=".")
    axes.set(
        xlabel="minutes of load", ylabel="memory of the server, MB", ylim=(0, 1.2 * max(held) / 1e6)
    )
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
