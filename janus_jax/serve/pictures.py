"""Pictures of requests and replies: data URIs and addresses to pixels, pixels to PNG files."""

import base64
import io

from PIL.PngImagePlugin import PngInfo

from janus_jax.common.text import short, version
from janus_jax.data.image_files import NamedBytes, from_data_uri, read_image
from janus_jax.data.images import understanding_image
from janus_jax.serve.errors import Refused
from janus_jax.serve.remote_pictures import fetch

FETCHING = 10.0  # seconds for a picture that is named by its address


def conversation_of(asked, service) -> list[dict]:
    """The messages of a chat as `understand` takes them, their pictures at the model's size: of each
    no more than that is kept. Raises Refused that lists the pictures that cannot be read."""
    faults = {}
    side = service.engine.model.config.understanding_encoder.image_size
    background = service.engine.processor.background
    out = []
    for i, message in enumerate(asked.messages):
        parts = []
        for j, part in enumerate(message.content or ()):
            if part.image_url is None:
                parts.append({"type": "text", "text": part.text})
                continue
            try:
                picture = _opened(part.image_url.url, service.settings)
                pixels = understanding_image(picture, side, background)
                parts.append({"type": "image", "image": pixels})
            except ValueError as error:
                faults[f"messages[{i}].content[{j}].image_url"] = str(error)
        role = "system" if message.role == "developer" else message.role
        out.append({"role": role, "content": parts})
    if faults:
        text = "\n".join(f"{where}: {fault}" for where, fault in faults.items())
        raise Refused(400, "invalid_image", text, next(iter(faults)))
    return out


def _opened(url: str, settings):
    """The picture of a data URI, or of an address where its host is allowed. Raises ValueError."""
    scheme = url.lstrip()[:8].lower()
    if scheme.startswith("data:"):
        name = f"data URI {short(url.strip(), 40)}"
        try:
            data = from_data_uri(url.lstrip())
        except ValueError as error:
            raise ValueError(
                f"{name}: no valid base64 ({error}); encode the file's bytes again"
            ) from None
    elif scheme.startswith(("http://", "https://")) and settings.allow_urls:
        name = short(url, 120)
        data = fetch(url, settings.allow_urls, settings.max_body, FETCHING)
    else:
        web = scheme.startswith(("http://", "https://"))
        why = "no address is followed here (--allow_urls)" if web else "is no data URI"
        raise ValueError(
            f"{short(url, 80)}: {why}; send the picture itself, as data:image/png;base64,..."
        )
    return read_image(NamedBytes(data, name), max_pixels=settings.max_picture)


def png(picture, facts: dict | None = None) -> str:
    """A picture as a PNG file in base64. facts: its texts, as `sample/files.py` writes them."""
    chunks = PngInfo()
    for key, value in (facts or {}).items():
        chunks.add_itxt(key, str(value))
    file = io.BytesIO()
    picture.save(file, "PNG", pnginfo=chunks)
    return base64.b64encode(file.getvalue()).decode()


def drawn_png(service, prompt: str, negative_prompt: str | None, index: int, drawn) -> str:
    """A drawing as a PNG file in base64 that tells how it was drawn."""
    facts = {"model": service.settings.model, "janus_jax": version(), "prompt": prompt}
    facts |= {name: getattr(drawn, name) for name in ("seed", "cfg_scale", "temperature")}
    facts["index"] = index
    if negative_prompt is not None:
        facts["negative_prompt"] = negative_prompt
    return png(service.engine.picture(drawn.ids), facts)
