"""Requests that join and leave: each has the ids that it has alone, and none waits for long."""

import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh
from support.sampling import PROMPTS, N, draw, make, picture, said

from janus_jax.sample import programs, reading
from janus_jax.sample.decode import drawing, text_ids
from janus_jax.sample.engine import Engine, Request
from janus_jax.sample.reading import Prompt
from janus_jax.sample.understand import prepare, prompts_of

LONG = "a red circle " * 230


@pytest.fixture(scope="module")
def model():
    with on_mesh():
        yield make()


@pytest.fixture
def processor():
    return tiny.processor()


def picture_of(processor, words: str, seed: int, scale: float = 5.0, heat: float = 1.0) -> Request:
    ids = processor.request(words)
    pair = Prompt(ids), Prompt(processor.unconditional(ids))
    request = drawing(pair, seed, 0, scale, heat, N)
    request.steps = 3
    return request


def answer_to(model, processor, conversation, most: int = 12, seed: int = 0, **how) -> Request:
    (prompt,) = prompts_of(
        model, processor, [prepare(processor, conversation, model.config.understanding_encoder)]
    )
    return Request((prompt,), False, most, seed, steps=1, **how)


def finish(engine: Engine, found=None, steps: int = 10**6) -> dict:
    """The ids of each request, once the engine has nothing to do or has done so many steps."""
    found = {} if found is None else found
    while engine.busy and steps:
        steps -= 1
        for request, ids, _ in engine.step():
            if isinstance(ids, ValueError):
                raise ids
            found.setdefault(request, []).extend(ids.tolist())
    return found


def some(model, processor) -> list[Request]:
    """Pictures and answers with settings of their own."""
    kinds = [(5.0, 1.0), (1.0, 0.7), (0.0, 1.0), (2.0, 0.0)]
    asked = [said("what is it?", picture(1)), said("how many circles are there?")]
    hot = [dict(temperature=0.0), dict(temperature=1.0), dict(temperature=1.0, top_p=0.7)]
    return [
        *(picture_of(processor, PROMPTS[i], i, *kind) for i, kind in enumerate(kinds)),
        *(
            answer_to(model, processor, c, 5 + 4 * i, seed=i, **how)
            for c in asked
            for i, how in enumerate(hot)
        ),
    ]


@pytest.fixture(scope="module")
def alone(model):
    """The ids that each of `some` has where it is alone."""
    found = []
    for request in some(model, tiny.processor()):
        engine = Engine(model, (8,), 2)
        engine.add(request)
        found.append(finish(engine)[request])
    assert [len(ids) for ids in found] == [N] * 4 + [5, 9, 13] * 2
    return found


@pytest.mark.parametrize("seed", range(3))
def test_ids_are_the_same_in_any_company_that_comes_and_goes(model, processor, alone, seed):
    rng = np.random.default_rng(seed)
    engine = Engine(model, (8,), 1, kept=512)
    requests = some(model, processor)
    found = {}
    for i in rng.permutation(len(requests)):
        engine.add(requests[i])
        finish(engine, found, rng.integers(0, 6))
    finish(engine, found)
    assert [found[request] for request in requests] == alone
    assert engine.taken == [None] * 8


def test_the_library_gives_the_same_ids(model, processor, alone):
    assert draw(model, PROMPTS[0], seed=0)[0].tolist() == alone[0]
    request = some(model, processor)[6]
    ids = text_ids(model, list(request.prompts), [2], -1, 1.0, 0.7, request.most)
    assert ids[0].tolist() == alone[6]


def test_a_mesh_gives_the_same_ids(alone, processor):
    with on_mesh(2, 2, 2):
        split = make()
        engine = Engine(split, (16,), 1)
        requests = some(split, processor)
        for request in requests:
            engine.add(request)
        found = finish(engine)
    assert [found[request] for request in requests] == alone


def test_a_request_that_is_ended_gives_its_rows_back_and_disturbs_nobody(model, processor, alone):
    engine = Engine(model, (4,), 1)
    kept, *others = some(model, processor)[:4]
    for request in (kept, *others):
        engine.add(request)
    found = finish(engine, steps=4)
    assert engine.taken == [kept, kept, others[0], others[1]] and kept.done == 9
    for request in others:
        engine.end(request)
    assert engine.taken == [kept, kept, None, None] and not engine.waiting
    assert finish(engine, found)[kept] == alone[0]
    assert not any(len(found.get(request, ())) == N for request in others)


def test_requests_get_rows_in_the_order_in_which_they_came(model, processor):
    engine = Engine(model, (4,), 1)
    first, second = (picture_of(processor, PROMPTS[i], i) for i in range(2))
    short = answer_to(model, processor, said("what?"), 2)
    third = picture_of(processor, PROMPTS[2], 2)
    for request in (first, second, short, third):
        engine.add(request)
    began = []
    while engine.busy:
        engine.step()
        began += [request for request in engine.active if request not in began]
    assert began == [first, second, short, third]
    assert first.rows == (0, 1) and second.rows == (2, 3)


def test_a_single_row_is_taken_beside_another_rather_than_of_a_free_pair(model, processor):
    engine = Engine(model, (4,), 1)
    ones = [answer_to(model, processor, said(f"what {i}?"), 3) for i in range(2)]
    pair = picture_of(processor, PROMPTS[0], 0)
    for request in (*ones, pair):
        engine.add(request)
    finish(engine, steps=1)
    assert [request.rows for request in ones] == [(0,), (1,)] and pair.rows == (2, 3)


def test_a_long_prompt_does_not_stall_who_writes(model, processor):
    """It is read a stretch at a time, and a short one that comes after it is read before its end."""
    engine = Engine(model, (8,), 1)
    writer = answer_to(model, processor, said("how many circles are there?"), 100)
    engine.add(writer)
    finish(engine, steps=2)
    long, short = picture_of(processor, LONG, 0), picture_of(processor, PROMPTS[0], 1)
    assert len(long.prompts[0].ids) > 2 * reading.READ[1]
    engine.add(long)
    engine.add(short)
    told, ready = [writer.told], []
    while long.lacking or not long.rows:
        engine.step()
        told.append(writer.told)
        ready.append((long.lacking == 0, short.lacking == 0))
    assert (np.diff(told) == 1).all() and len(told) > 4, "a token between two stretches"
    finish(engine)


def test_a_look_is_taken_between_stretches_also_where_nobody_is_ready(model, processor):
    """So a request that is ended or that is new does not wait for a long prompt's end."""
    engine = Engine(model, (8,), 1)
    long = picture_of(processor, LONG, 0, scale=1.0)
    engine.add(long)
    engine.step()
    assert long.lacking == 1 and next(iter(engine.unread.values())).at == reading.READ[1]
    engine.end(long)
    assert not engine.unread and not engine.busy


def test_nobody_begins_before_all_prompts_are_read_where_nobody_waits(
    model, processor, monkeypatch
):
    """As a batch of the library has it: no row runs empty."""
    written, write = [], programs.write
    spy = lambda *a, **how: written.append(int(a[4].runs.sum())) or write(*a, **how)
    monkeypatch.setattr(programs, "write", spy)
    engine = Engine(model, (8,))
    for i in range(4):
        engine.add(picture_of(processor, PROMPTS[i], i))
    finish(engine)
    assert set(written) == {8}


def test_a_prompt_that_is_kept_is_not_read_again(model, processor, monkeypatch):
    reads, read = [], reading.read
    monkeypatch.setattr(reading, "read", lambda *a, **how: reads.append(a) or read(*a, **how))
    for kept, want in (512, 2), (0, 4):
        engine = Engine(model, (8,), 1, kept)
        reads.clear()
        ids = []
        for _ in range(2):
            request = picture_of(processor, PROMPTS[0], 3)
            engine.add(request)
            ids.append(finish(engine)[request])
        assert len(reads) == want and ids[0] == ids[1]
        assert len(engine.prompts) == (2 if kept else 0)
    engine = Engine(model, (8,), 1, kept=512)
    for i in range(3):
        engine.add(picture_of(processor, PROMPTS[i], 3))
        finish(engine)
        assert sum(kept.places for kept in engine.prompts.values()) <= 512


def test_what_is_not_finite_ends_its_own_request_and_leaves_nothing_behind(model, processor, alone):
    engine = Engine(model, (4,), 1)
    broken = picture_of(processor, PROMPTS[1], 1, scale=1.0)
    width = model.config.transformer.width
    prompt = broken.prompts[0]
    prompt.shown = np.full((len(prompt.ids), width), np.nan, np.float32)
    prompt.is_shown = np.ones(len(prompt.ids), bool)
    beside = some(model, processor)[1]
    for request in (broken, beside):
        engine.add(request)
    outcomes = {}
    while engine.busy:
        for request, ids, last in engine.step():
            outcomes.setdefault(request, []).append((ids, last))
    assert (broken.rows, beside.rows) == ((0,), (1,)), "of one pair"
    assert [type(ids) for ids, _ in outcomes[broken]] == [ValueError]
    assert np.concatenate([ids for ids, _ in outcomes[beside]]).tolist() == alone[1]
    again = some(model, processor)[1]
    engine.add(again)
    assert finish(engine)[again] == alone[1], "in the rows that held NaN"


def test_the_cache_shrinks_where_long_ones_have_gone(model, processor):
    engine = Engine(model, (8,), 1)
    long, short = answer_to(model, processor, said(LONG), 2), picture_of(processor, PROMPTS[0], 1)
    engine.add(long)
    finish(engine)
    assert engine.length == 768
    engine.add(short)
    finish(engine)
    assert engine.length == 256
