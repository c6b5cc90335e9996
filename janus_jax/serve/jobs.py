"""From the engine's threads to the event loop: the jobs of one request, and what becomes of them."""

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import time

from starlette.responses import StreamingResponse

from janus_jax.serve.errors import Refused, fault, stopping, unusable
from janus_jax.serve.job import Closed, Full

QUIET = 10.0  # seconds without a word after which a stream shows that it lives
LEFT = 499  # the client is gone: nobody reads it


class Jobs:
    """The jobs of one request. Whatever way it ends, `close` cancels those that still run, and
    those that a thread begins after it."""

    def __init__(self, request, prompt: str):
        self.service = request.app.state.service
        self.begun = request.scope["begun"]
        self.number = request.scope["number"]
        self.prompt = prompt  # the field that holds the words to draw
        self.closed = False
        self.jobs = []
        self._loop = asyncio.get_running_loop()
        self._queue = asyncio.Queue()

    @property
    def seconds(self) -> float:
        """Since the request came."""
        return time.monotonic() - self.begun

    @property
    def behind(self) -> bool:
        """Whether more news wait already."""
        return not self._queue.empty()

    async def start(self, begin):
        """Adds `begin(tell)`, called in a thread: a job whose news go to `tell`. Raises Refused."""
        number = len(self.jobs)

        def run():
            job = begin(lambda new: self._put((number, new, None)))
            self.jobs.append(job)  # here, for the request may be gone
            if self.closed:
                job.cancel()
            job.add_done_callback(lambda job: self._put((number, None, job)))

        try:
            await self.service.in_thread(run)
        except Full as error:
            raise Refused(429, "queue_full", str(error)) from None
        except (Closed, ValueError) as error:
            raise self._refusal(error) from None

    async def news(self):
        """Yields (number of the job, new, None) and at its end (number, None, result), until all
        have ended; None where it is quiet for long. Raises Refused."""
        left = len(self.jobs)
        limit = self.service.settings.request_timeout
        while left:
            room = limit - self.seconds
            if not self.behind:  # what is there already comes in time
                try:
                    async with asyncio.timeout(min(room, QUIET)):
                        item = await self._queue.get()
                except TimeoutError:
                    if self.behind:
                        continue
                    if room <= QUIET:
                        raise _late(limit) from None
                    yield None
                    continue
            else:
                item = self._queue.get_nowait()
            number, new, job = item
            if job is not None:
                left -= 1
                new = None
                try:
                    job = job.result()
                except (concurrent.futures.CancelledError, Closed, ValueError) as error:
                    raise self._refusal(error) from None
            yield number, new, job

    def close(self):
        self.closed = True
        for job in self.jobs:
            job.cancel()

    def _refusal(self, error) -> Refused:
        return unusable(error, self.prompt) if isinstance(error, ValueError) else stopping()

    def _put(self, item):
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)


def _late(limit: float) -> Refused:
    text = f"not done after {limit:g} s (--request_timeout): ask for less"
    return Refused(504, "timeout", text)


@contextlib.asynccontextmanager
async def jobs_of(request, starts, prompt: str):
    """The jobs that `starts` begin, cancelled where what follows fails. prompt: the field that holds
    the words to draw."""
    jobs = Jobs(request, prompt)

    async def begin():
        for start in starts:
            await jobs.start(start)

    try:
        await in_time(request, begin())
        yield jobs
    except BaseException:
        jobs.close()
        raise


async def whole(request, jobs: Jobs, work):
    """What the coroutine `work` gives, which looks at the time itself; its jobs are cancelled when
    the client leaves. Raises Refused."""
    try:
        return await _unless_left(request, work, None)
    finally:
        jobs.close()


async def in_time(request, work):
    """What the coroutine `work` gives, which is cancelled when the client leaves or the request's
    time is over. Raises Refused."""
    limit = request.app.state.service.settings.request_timeout
    left = max(request.scope["begun"] + limit - time.monotonic(), 0)
    try:
        return await _unless_left(request, work, left)
    except TimeoutError:
        raise _late(limit) from None


async def _unless_left(request, work, seconds: float | None):
    work = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({work, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        if gone.done():
            raise Refused(LEFT, "client_left", "the client closed the connection")
        raise TimeoutError
    finally:
        gone.cancel()
        work.cancel()
        # Where the client is gone nobody asks how it ended, which asyncio would log.
        work.add_done_callback(lambda work: work.cancelled() or work.exception())


async def _gone(request):
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Events(StreamingResponse):
    """Server-sent events (html.spec.whatwg.org/multipage/server-sent-events.html); the jobs that
    they tell of are cancelled when the client leaves."""

    def __init__(self, jobs: Jobs, events):
        super().__init__(
            self._told(events),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self.jobs = jobs

    async def __call__(self, scope, receive, send):
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.jobs.close()

    async def _told(self, events):
        line = lambda value: f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
        try:
            async for value in events:
                if value is None:
                    yield ": waiting\n\n"
                    continue
                name = value.get("type")
                yield (f"event: {name}\n" if name else "") + line(value)
            yield "data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.jobs.service.refused("client_left")
            raise
        except Refused as refused:
            self.jobs.service.refused(refused.code)
            yield line(refused.form())
        except Exception as error:
            log = logging.getLogger(__name__)
            log.exception("the stream of request %s failed", self.jobs.number)
            self.jobs.service.refused("internal_error")
            yield line(fault(error).form())
