import base64
import io

import openai
from PIL import Image


def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_the_openai_package_draws_and_asks_about_the_picture(server):
    ai = client(server)
    (model,) = ai.models.list().data
    drawn = ai.images.generate(prompt="a red circle", n=2, extra_body={"seed": 3})
    first, second = (picture(one.b64_json) for one in drawn.data)
    assert (
        first.size == (model.image_size, model.image_size) and first.tobytes() != second.tobytes()
    )
    assert first.info["prompt"] == "a red circle" and first.info["seed"] == "3"
    url = f"data:image/png;base64,{drawn.data[0].b64_json}"
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "what is it?"},
    ]
    answer = ai.chat.completions.create(
        model=model.id, messages=[{"role": "user", "content": parts}], max_tokens=8
    )
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 36
