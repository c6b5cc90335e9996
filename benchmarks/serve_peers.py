"""What a server is without an engine: a FastAPI loop that runs one request at a time, in the order in
which they come. `one` is this package's generate and understand, `transformers` its
JanusForConditionalGeneration; both in float32.

    python benchmarks/serve_peers.py --side=one --checkpoint=/tmp/random --port=8001

It knows as much of OpenAI's forms as serve.py asks: streamed answers, and drawings.
"""

import asyncio
import base64
import concurrent.futures
import io
import json

import fastapi
import fastapi.responses
import numpy as np
import uvicorn
from absl import app, flags
from PIL import Image

SIDES = ("one", "transformers")


def parts(body: dict) -> tuple[str, list]:
    """The words and the pictures of the one message."""
    content = body["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    pictures = [base64.b64decode(url.partition(",")[2]) for url in urls]
    words = " ".join(part["text"] for part in content if part["type"] == "text")
    return words, [Image.open(io.BytesIO(png)) for png in pictures]


class One:
    """generate and understand. draw(body) gives a PIL image and the count of its tokens,
    answer(body, tell) tells the text as it comes and gives the counts of prompt and answer."""

    def __init__(self, checkpoint: str):
        import janus_jax

        self.package = janus_jax
        self.model, self.processor = janus_jax.load(checkpoint, dtype="float32")

    def draw(self, body: dict):
        names = {"guidance_scale": "cfg_scale", "temperature": "temperature", "seed": "seed"}
        how = {ours: body[name] for name, ours in names.items() if name in body}
        (picture,) = self.package.generate(self.model, self.processor, body["prompt"], **how)
        return picture, self.processor.generation_tokens

    def answer(self, body: dict, tell):
        how = {
            name: body[name] for name in ("temperature", "top_p", "seed", "stop") if name in body
        }
        text = self.package.understand(
            self.model, self.processor, body["messages"], max_new_tokens=body["max_tokens"],
            stream=tell, **how,
        )  # fmt: skip
        return len(self.processor.tokenizer.encode(text))


class Transformers:
    """The same of transformers."""

    def __init__(self, checkpoint: str):
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        self.torch, self.streamer = torch, transformers.TextStreamer
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        cls = transformers.JanusForConditionalGeneration
        self.model = cls.from_pretrained(checkpoint, dtype=torch.float32).to(self.device).eval()
        self.processor = transformers.AutoProcessor.from_pretrained(checkpoint)

    def inputs(self, words: str, pictures: list, mode: str):
        content = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": words}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return self.processor(
            text=text, images=pictures or None, generation_mode=mode, return_tensors="pt"
        ).to(self.device)

    def sampling(self, body: dict) -> dict:
        heat = body.get("temperature", 1.0)
        self.torch.manual_seed(body.get("seed", 0))
        return {"do_sample": True, "temperature": heat} if heat else {"do_sample": False}

    def draw(self, body: dict):
        with self.torch.inference_mode():
            ids = self.model.generate(
                **self.inputs(body["prompt"], [], "image"), generation_mode="image",
                guidance_scale=body["guidance_scale"], **self.sampling(body),
            )  # fmt: skip
            (pixels,) = self.model.decode_image_tokens(ids).float().cpu().numpy()
        picture = Image.fromarray(((pixels + 1) * 127.5).clip(0, 255).astype(np.uint8))
        return picture, ids.shape[1]

    def answer(self, body: dict, tell):
        class Tell(self.streamer):
            def on_finalized_text(self, text: str, stream_end: bool = False):
                tell(text)

        asked = self.inputs(*parts(body), "text")
        streamer = Tell(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        with self.torch.inference_mode():
            out = self.model.generate(
                **asked, generation_mode="text", max_new_tokens=body["max_tokens"],
                streamer=streamer, **self.sampling(body),
            )  # fmt: skip
        return out.shape[1] - asked["input_ids"].shape[1]


def make_app(side) -> fastapi.FastAPI:
    door = fastapi.FastAPI()
    only = concurrent.futures.ThreadPoolExecutor(1)

    @door.get("/v1/models")
    async def models():
        return {"object": "list", "data": [{"id": "peer", "object": "model", "created": 0}]}

    @door.post("/v1/images/generations")
    async def images(body: dict):
        picture, count = await asyncio.get_running_loop().run_in_executor(only, side.draw, body)
        picture.save(file := io.BytesIO(), "PNG")
        usage = {"input_tokens": 0, "output_tokens": count, "total_tokens": count}
        data = [{"b64_json": base64.b64encode(file.getvalue()).decode()}]
        return {"created": 0, "data": data, "usage": usage}

    @door.post("/v1/chat/completions")
    async def chat(body: dict):
        loop, texts = asyncio.get_running_loop(), asyncio.Queue()
        put = lambda item: loop.call_soon_threadsafe(texts.put_nowait, item)
        work = loop.run_in_executor(only, side.answer, body, put)
        work.add_done_callback(lambda _: put(None))
        about = {"id": "0", "object": "chat.completion.chunk", "created": 0, "model": "peer"}
        line = lambda **more: f"data: {json.dumps(about | more)}\n\n"

        async def lines():
            while (text := await texts.get()) is not None:
                yield line(choices=[{"index": 0, "delta": {"content": text}}])
            count = await work
            yield line(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
            usage = {"prompt_tokens": 0, "completion_tokens": count, "total_tokens": count}
            yield line(choices=[], usage=usage)
            yield "data: [DONE]\n\n"

        return fastapi.responses.StreamingResponse(lines(), media_type="text/event-stream")

    return door


def main(_):
    f = flags.FLAGS
    side = {"one": One, "transformers": Transformers}[f.side](f.checkpoint)
    uvicorn.run(make_app(side), port=f.port, log_level="warning")


if __name__ == "__main__":
    flags.DEFINE_enum("side", "one", SIDES, "Whose generation.")
    flags.DEFINE_string("checkpoint", None, "A Janus in transformers' layout.", required=True)
    flags.DEFINE_integer("port", 8001, "Where it listens.")
    app.run(main)
