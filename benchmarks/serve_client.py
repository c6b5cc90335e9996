"""Requests to a server in OpenAI's forms, by the `openai` client, and what became of each."""

import asyncio
import base64
import contextlib
import dataclasses
import io
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import machine
import numpy as np
import openai
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
START = 600  # seconds that a server has to load its model


@dataclasses.dataclass
class Request:
    """kind: "draw" or "answer". body: the fields of the form, `model` apart."""

    kind: str
    body: dict


@dataclasses.dataclass
class Reply:
    """begun, first, ended: seconds of time.perf_counter; first is that of the first piece of text.
    tokens: of the picture or the answer. value: the answer, or the pictures, uint8 [H, W, 3] each.
    error: what came instead."""

    request: Request
    begun: float
    first: float = float("nan")
    ended: float = float("nan")
    tokens: int = 0
    value: object = None
    error: Exception | None = None


class Server:
    """A server as a process of its own, on a free port, until `stop`."""

    def __init__(self, command: list[str], log: pathlib.Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.log = log
        with open(log, "w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command, f"--port={self.port}"], stdout=file, stderr=file,
                env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
            )  # fmt: skip
        deadline = time.monotonic() + START
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text()[-2000:]
                self.stop()
                raise RuntimeError(f"{' '.join(command)}: does not answer; it said\n{said}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/models", timeout=5) as reply:
                return reply.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def memory(self) -> float:
        """Bytes that it holds."""
        return machine.resident(self.process.pid)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Its exit code."""
        if self.process.poll() is None:
            self.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def running(command: list[str], log: pathlib.Path):
    server = Server(command, log)
    try:
        yield server
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def client(url: str):
    """client(url).send: a function of a Request. Nothing is tried twice."""
    how = {"api_key": "none", "max_retries": 0, "timeout": START}
    async with openai.AsyncOpenAI(base_url=url, **how) as it:
        model = (await it.models.list()).data[0].id
        yield lambda request: send(it, model, request)


async def send(it: openai.AsyncOpenAI, model: str, request: Request) -> Reply:
    reply = Reply(request, time.perf_counter())
    try:
        await (_draw if request.kind == "draw" else _answer)(it, model, reply)
    except openai.OpenAIError as error:
        reply.error = error
    except Exception as error:
        if not type(error).__module__.startswith("http"):  # what broke in the middle of a stream
            raise
        reply.error = error
    reply.ended = time.perf_counter()
    return reply


KNOWN = ("prompt", "n", "size", "response_format")  # fields that the client has names for


async def _draw(it, model: str, reply: Reply):
    body = dict(reply.request.body)
    named = {name: body.pop(name) for name in KNOWN if name in body}
    found = await it.images.generate(model=model, extra_body=body, **named)
    reply.value = [pixels(one.b64_json) for one in found.data]
    reply.tokens = found.usage.output_tokens


async def _answer(it, model: str, reply: Reply):
    stream = await it.chat.completions.create(
        model=model, stream=True, stream_options={"include_usage": True}, **reply.request.body
    )
    texts = []
    async for chunk in stream:
        if chunk.usage:
            reply.tokens = chunk.usage.completion_tokens
        for choice in chunk.choices:
            if choice.delta.content:
                if not texts:
                    reply.first = time.perf_counter()
                texts.append(choice.delta.content)
    reply.value = "".join(texts)


def pixels(b64: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(b64))))


def data_uri(picture: np.ndarray) -> str:
    Image.fromarray(picture).save(file := io.BytesIO(), "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def message(words: str, *pictures: np.ndarray) -> dict:
    shown = [{"type": "image_url", "image_url": {"url": data_uri(x)}} for x in pictures]
    return {"role": "user", "content": [*shown, {"type": "text", "text": words}]}


async def together(url: str, requests: list[Request]) -> list[Reply]:
    """All at once."""
    async with client(url) as send:
        return await asyncio.gather(*map(send, requests))
