"""Random requests, and whether a server gives to each in company what generate and understand give to
it alone: the same pixels, the same words.
"""

import asyncio

import numpy as np
import serve_client as sc

import janus_jax
from janus_jax.data.toy import shapes

GUIDANCES = (0.0, 1.0, 1.5, 5.0)
STOPS = (None, "e", [" o", "circle"], "?")
SYSTEMS = (None, "Answer with one word.")


def random_requests(count: int, seed: int = 0) -> list[sc.Request]:
    """Half drawings, half answers, every setting drawn anew; the words and pictures are of the
    shapes world."""
    rng = np.random.default_rng(seed)
    prompts = [x.text for x in shapes.evaluation_prompts(4, seed)]
    asked = shapes.evaluation_questions(2, seed)
    return [
        _drawing(rng, prompts) if rng.random() < 0.5 else _answer(rng, prompts, asked)
        for _ in range(count)
    ]


def _heat(rng) -> float:
    return float(rng.choice([0.0, 1.0, 2.0, round(rng.random(), 3)]))


def _drawing(rng, prompts: list[str]) -> sc.Request:
    body = {
        "prompt": str(rng.choice(prompts)), "n": int(rng.integers(1, 3)),
        "guidance_scale": float(rng.choice(GUIDANCES)), "temperature": _heat(rng),
        "seed": int(rng.integers(2**32)),
    }  # fmt: skip
    if body["guidance_scale"] != 1 and rng.random() < 0.4:  # 1 is no guidance
        body["negative_prompt"] = str(rng.choice(prompts))
    return sc.Request("draw", body)


def _answer(rng, prompts: list[str], asked: list) -> sc.Request:
    _, picture, question, said = asked[rng.integers(len(asked))]
    shown = [picture, shapes.draw(shapes.any_scene(rng))][: rng.integers(0, 3)]
    messages = [sc.message(question, *shown)]
    if rng.random() < 0.3:
        messages += [{"role": "assistant", "content": said}, sc.message(str(rng.choice(prompts)))]
    system = SYSTEMS[rng.integers(len(SYSTEMS))]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    body = {
        "messages": messages, "max_tokens": int(rng.integers(1, 40)), "temperature": _heat(rng),
        "top_p": float(rng.choice([1.0, 0.3, round(0.01 + 0.98 * rng.random(), 3)])),
        "seed": int(rng.integers(2**32)),
    }  # fmt: skip
    stop = STOPS[rng.integers(len(STOPS))]
    return sc.Request("answer", body | ({"stop": stop} if stop else {}))


NAMES = {"guidance_scale": "cfg_scale", "n": "images_per_prompt", "max_tokens": "max_new_tokens"}


def offline(model, processor, request: sc.Request):
    """What generate or understand gives: uint8 pictures, or the answer."""
    body = {NAMES.get(name, name): x for name, x in request.body.items()}
    if request.kind == "draw":
        drawn = janus_jax.generate(model, processor, body.pop("prompt"), **body)
        return [np.asarray(picture) for picture in drawn]
    return janus_jax.understand(model, processor, body.pop("messages"), **body)


def difference(request: sc.Request, served, alone) -> str:
    """What is not the same, in words; "" if nothing is."""
    if request.kind == "answer":
        return "" if served == alone else f"served {served!r}, alone {alone!r}"
    for k, (a, b) in enumerate(zip(served, alone, strict=True)):
        if not np.array_equal(a, b):
            return f"picture {k}: {(a != b).any(-1).sum()} of {a[..., 0].size} pixels differ"
    return ""


def told(request: sc.Request) -> str:
    """A request in one line, its pictures left out."""
    body = dict(request.body)
    if "messages" in body:
        kinds = lambda x: x if isinstance(x, str) else [p.get("text", "a picture") for p in x]
        body["messages"] = [(x["role"], kinds(x["content"])) for x in body["messages"]]
    return f"{request.kind} {body}"


def require_same(replies: list[sc.Reply], model, processor):
    """Raises AssertionError at the first reply that is not what the library gives alone."""
    for i, reply in enumerate(replies):
        where = f"request {i} of {len(replies)}, {told(reply.request)}"
        if reply.error:
            raise AssertionError(f"{where}: was not answered: {reply.error}")
        gap = difference(reply.request, reply.value, offline(model, processor, reply.request))
        if gap:
            raise AssertionError(f"{where}: {gap}")


def run(url: str, count: int, model, processor) -> str:
    """Asks a server that serves `model` so many requests at once; says what was compared."""
    requests = random_requests(count)
    require_same(asyncio.run(sc.together(url, requests)), model, processor)
    drawn = [x.body["n"] for x in requests if x.kind == "draw"]
    return (
        f"{count} requests at once: {len(drawn)} drawings of {sum(drawn)} pictures and "
        f"{count - len(drawn)} answers, all as generate and understand give them alone\n"
    )
