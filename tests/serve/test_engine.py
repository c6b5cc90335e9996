"""The engine in its thread: requests of any thread, broken off, refused, failed, and its end."""

import concurrent.futures
import threading

import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh
from support.sampling import PROMPTS, draw, make, said

from janus_jax import understand
from janus_jax.serve.engine import Engine
from janus_jax.serve.job import Closed, Full

LONG = "a red circle " * 230


@pytest.fixture(scope="module")
def model():
    with on_mesh():
        yield make()


@pytest.fixture
def begin(model):
    """Begins an engine of four rows, which ends with the test."""
    begun = []

    def one(**how) -> Engine:
        begun.append(Engine(model, tiny.processor(), **({"rows": 4} | how)))
        return begun[-1]

    yield one
    for engine in begun:
        engine.close()
        assert not engine._thread.is_alive()


class Held:
    """An `on_ids` that holds the engine's thread until it is let go."""

    def __init__(self):
        self.came = threading.Event()
        self.free = threading.Event()

    def __call__(self, _):
        self.came.set()
        assert self.free.wait(60)


def drawn(model, seed: int, prompt: str = PROMPTS[0]) -> list[int]:
    return draw(model, prompt, seed=seed)[0].tolist()


def ids(job) -> list[int]:
    return job.result(60).ids.tolist()


def asked(engine, seed: int, **how):
    return engine.draw(PROMPTS[0], seed=seed, cfg_scale=5.0, temperature=1.0, **how)


def test_threads_get_what_the_library_gives(begin, model):
    engine = begin()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda seed: asked(engine, seed), range(4)))
    parts = []
    answer = engine.answer(said("what?"), max_new_tokens=9, on_text=parts.append)
    assert [ids(job) for job in jobs] == [drawn(model, seed) for seed in range(4)]
    found = answer.result(60)
    want = understand(model, tiny.processor(), said("what?"), max_new_tokens=9)
    assert found.text == want == "".join(parts) and found.finish_reason == "length"
    assert engine.counts() == {
        "waiting": 0, "running": 0, "rows_used": 0, "rows": 4, "tokens": 4 * 16 + 9, "pictures": 4,
    }  # fmt: skip


def test_without_a_seed_one_is_drawn_and_told(begin, model):
    found = begin().draw(PROMPTS[0], seed=None, cfg_scale=5.0, temperature=1.0).result(60)
    assert found.ids.tolist() == drawn(model, found.seed)


def test_rows_must_be_pairs(model):
    with pytest.raises(ValueError, match="rows is 3: must be a multiple of 2"):
        Engine(model, tiny.processor(), rows=3)


def test_what_is_cancelled_ends_also_while_it_runs_and_leaves_its_rows(begin, model):
    engine, held = begin(), Held()
    running = asked(engine, 0, on_ids=held)
    assert held.came.wait(60)
    waiting = asked(engine, 1)
    assert waiting.cancel() and running.cancel()
    held.free.set()
    for job in (running, waiting):
        with pytest.raises(concurrent.futures.CancelledError):
            job.result(60)
    assert ids(asked(engine, 2)) == drawn(model, 2)
    assert engine.counts()["rows_used"] == 0 and engine.counts()["pictures"] == 1


def test_only_those_for_whom_no_rows_are_free_wait(begin):
    """Cancelled ones do not."""
    engine, held = begin(waiting=1), Held()
    jobs = [asked(engine, 0, on_ids=held)]
    assert held.came.wait(60)
    jobs += [asked(engine, 1), asked(engine, 2)]
    with pytest.raises(Full, match="requests wait already"):
        asked(engine, 3)
    jobs[2].cancel()
    jobs.append(asked(engine, 4))
    held.free.set()
    assert len({tuple(ids(jobs[i])) for i in (0, 1, 3)}) == 3


def test_a_fault_of_the_device_ends_those_that_had_rows_and_no_other(begin, model, caplog):
    engine, held = begin(), Held()
    running = asked(engine, 0, on_ids=held)
    assert held.came.wait(60)

    def fails():
        step()
        raise RuntimeError("RESOURCE_EXHAUSTED")

    step, engine._inner.step = engine._inner.step, fails
    beside, waiting = asked(engine, 1), asked(engine, 2)
    held.free.set()
    for job in (running, beside):
        error = job.exception(60)
        assert str(error) == "RESOURCE_EXHAUSTED"
        assert error.__traceback__ is None, "it would hold the lost cache"
    assert ids(waiting) == drawn(model, 2)
    assert "a chunk has failed" in caplog.text


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_callback_that_fails_ends_its_own_request(begin, model, error):
    def fails(_):
        raise error("mine")

    engine = begin()
    broken, other = asked(engine, 0, on_ids=fails), asked(engine, 1)
    with pytest.raises(error, match="mine"):
        broken.result(60)
    assert ids(other) == drawn(model, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_ends_by_a_fault_says_so_and_leaves_nobody_waiting(begin, caplog):
    engine, held = begin(), Held()
    running = asked(engine, 0, on_ids=held)
    assert held.came.wait(60)
    engine._inner.add = None  # what no request can do
    waiting = asked(engine, 1)
    held.free.set()
    assert isinstance(running.exception(60), Closed)
    with pytest.raises((Closed, concurrent.futures.CancelledError)):
        waiting.result(60)
    with pytest.raises(Closed):
        asked(engine, 2)
    assert engine.failed and "the engine has ended by a fault" in caplog.text


def test_at_the_end_what_runs_may_end_and_the_rest_is_cancelled(begin, model):
    engine, held = begin(), Held()
    job = asked(engine, 0, on_ids=held)
    assert held.came.wait(60)
    closing = threading.Thread(target=engine.close, args=(60,))
    closing.start()
    while not engine._closed:
        pass
    with pytest.raises(Closed):
        asked(engine, 1)
    held.free.set()
    closing.join(60)
    assert ids(job) == drawn(model, 0) and engine._inner.cache is None

    engine, held = begin(), Held()
    jobs = [asked(engine, seed, on_ids=held) for seed in range(3)]
    assert held.came.wait(60)
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not engine._dropped:
        pass
    held.free.set()
    closing.join(60)
    for job in jobs:
        with pytest.raises(concurrent.futures.CancelledError):
            job.result(60)


def test_a_picture_so_far_is_its_whole_rows(begin):
    engine = begin()
    whole = engine.picture(np.arange(16, dtype=np.int32))
    part = engine.picture(np.arange(10, dtype=np.int32))
    assert part.size == (whole.width, whole.height // 2)
