"""What an engine makes of many requests at once: image ids under guidance, ids of answers."""

import jax
import numpy as np

from janus_jax.common import heap
from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax
from janus_jax.model.serving import serving
from janus_jax.sample.cache import put
from janus_jax.sample.engine import Engine, Request
from janus_jax.sample.options import require_ids
from janus_jax.sample.programs import insert, paint, read, resize, see, see_ids, write
from janus_jax.sample.reading import Prompt


def run(model, requests: list[Request], tell):
    """Runs all requests to their ends. tell([(number of the request, its new ids)]) is called as they
    come, and returns the numbers of those whose rest is not wanted. Raises ValueError where the
    model's logits are not finite."""
    if any(request.draws for request in requests):
        require_ids(model.config)
    engine = Engine(model, group=4 if any(len(x.prompts) > 2 for x in requests) else 2)
    numbers = {request: i for i, request in enumerate(requests)}
    for request in requests:
        engine.add(request)
    while engine.busy:
        found = engine.step()
        for _, ids, _ in found:
            if isinstance(ids, ValueError):
                raise ids
        if found:
            for i in tell([(numbers[request], ids) for request, ids, _ in found]) or ():
                engine.end(requests[i])
    del engine  # and its cache
    heap.trim()


def image_ids(
    model, prompts: list[tuple[Prompt, Prompt]], seeds, numbers, cfg_scale: float,
    temperature: float, count: int, progress=None,
) -> np.ndarray:  # fmt: skip
    """`count` image ids per row under classifier-free guidance, int32 [B, count].

    prompts: of each row the conditional and the unconditional one, begin_of_image last. At scale 1
        or 0 only the branch that counts is run.
    seeds, numbers: see `row_keys`.
    progress(done, total) is called as ids come.
    """
    requests = [
        drawing(pair, seed, number, cfg_scale, temperature, count)
        for pair, seed, number in zip(prompts, seeds, numbers, strict=True)
    ]
    return ids_of(model, requests, progress)


def ids_of(model, requests: list[Request], progress=None) -> np.ndarray:
    """The image ids of requests for pictures, int32 [B, N]; see `image_ids`."""
    out = np.zeros((len(requests), requests[0].most), np.int32)
    done = np.zeros(len(requests), int)

    def tell(found):
        for i, ids in found:
            out[i, done[i] : done[i] + len(ids)] = ids
            done[i] += len(ids)
        if progress:
            progress(int(done.sum()), out.size)

    run(model, requests, tell)
    return out


def drawing(
    pair: tuple[Prompt, Prompt], seed: int, number: int, cfg_scale: float, temperature: float,
    count: int,
) -> Request:  # fmt: skip
    """The request for a picture, as `image_ids` takes it."""
    prompts = pair if cfg_scale not in (0, 1) else (pair[cfg_scale == 0],)
    weights = cfg_scale, 1 - cfg_scale
    return Request(prompts, True, count, seed, number, temperature, weights=weights)


def text_ids(
    model, prompts: list[Prompt], seeds, eos: int, temperature: float, top_p: float, most,
    stream=None, often: bool = False,
) -> list[np.ndarray]:  # fmt: skip
    """The text ids that follow each prompt, int32 [n]: n is `most` (one number, or one a prompt), or
    less where the last is eos.

    stream(row, ids) is called as ids of a prompt come, and may return True to end them.
    often: fewer at once, 1 on CPU, where a token takes long.
    """
    steps = 16 if not often else 1 if jax.default_backend() == "cpu" else 8
    requests = [
        Request((prompt,), False, n, seed, -1, temperature, top_p, eos=eos, steps=steps)
        for prompt, seed, n in zip(prompts, seeds, np.broadcast_to(most, len(prompts)).tolist())
    ]
    parts = [[np.zeros(0, np.int32)] for _ in requests]

    def tell(found):
        for i, ids in found:
            parts[i].append(ids)
        return [i for i, ids in found if stream and stream(i, ids)]

    run(model, requests, tell)
    return [np.concatenate(some) for some in parts]


def features(model, pictures: np.ndarray) -> np.ndarray:
    """The features [B, N, D] of pictures, float32 [B, H, W, 3]."""
    with own_jax(model):
        return one_by_one(see, serving(model), pictures)


def pixels(model, ids: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The pictures [B, H, W, 3] of image ids, int32 [B, N]; grid: their rows and columns."""
    with own_jax(model):
        return one_by_one(paint, model.generation_encoder, ids, grid=grid)


def one_by_one(program, model, rows: np.ndarray, **static) -> np.ndarray:
    """`see` or `paint` of each row; as many at once as the mesh's batch axes have devices."""
    leaves, tree = jax.tree.flatten(model)
    each = sh.batch_shards()
    out = []
    for i in range(0, len(rows), each):
        some = rows[i : i + each]
        more = np.repeat(some[-1:], each - len(some), 0)
        done = program(leaves, put(np.concatenate([some, more])), tree=tree, **static)
        out.append(np.asarray(done)[: len(some)])
    heap.trim()
    return np.concatenate(out)


def clear_caches():
    """Gives back the memory of all programs that draw and answer."""
    for program in (read, insert, write, resize, see, see_ids, paint):
        program.clear_cache()
