"""Pictures of requests and replies: data URIs and addresses to pixels, pixels to PNG files."""

import base64
import importlib
import io
import time

from PIL.PngImagePlugin import PngInfo

from janus_jax.common.text import short, version
from janus_jax.data.image_files import NamedBytes, from_data_uri, read_image
from janus_jax.data.images import understanding_image
from janus_jax.serve.errors import Refused
from janus_jax.serve.remote_pictures import fetch

SECONDS = 20.0  # for the pictures of a request that are named by their addresses
SCANS = 100  # of a JPEG file: each is a pass over all pixels, and costs the sender some 500 bytes


def fetched(asked, settings) -> dict[str, bytes | ValueError]:
    """The files of a chat's pictures that are named by addresses, together no larger than a body,
    or why there is none. Waits for other hosts, not for the CPU."""
    end = time.monotonic() + SECONDS
    room = settings.max_body
    out = {}
    for message in asked.messages:
        for part in message.content or ():
            url = part.image_url.url if part.image_url else ""
            if not settings.allow_urls or not _is_address(url) or url in out:
                continue
            try:
                left = max(end - time.monotonic(), 0)
                out[url] = fetch(url, settings.allow_urls, room, left)
                room -= len(out[url])
            except ValueError as error:
                out[url] = error
    return out


def _is_address(url: str) -> bool:
    return url[:8].lower().startswith(("http://", "https://"))


async def conversation_of(asked, files: dict, service) -> list[dict]:
    """The messages of a chat as `understand` takes them, their pictures at the model's size, or cut:
    of each no more than that is kept. files: of `fetched`. Raises Refused that lists the pictures that
    cannot be read."""
    faults = {}
    tower = service.engine.model.config.understanding_encoder
    background = service.engine.processor.background
    kept = lambda picture: understanding_image(picture, tower.image_size, background)
    if tower.tiles > 1:  # its file is loaded where it is used
        tiled = importlib.import_module("janus_jax.data.tiled_chat")
        kept = lambda picture: tiled.Cut.of(picture, tower, background)
    pixels_of = lambda url: kept(_opened(url, files, service.settings))
    out = []
    for i, message in enumerate(asked.messages):
        parts = []
        for j, part in enumerate(message.content or ()):
            if part.image_url is None:
                parts.append({"type": "text", "text": part.text})
                continue
            try:
                url = part.image_url.url  # one by one: between two the request may be ended
                pixels = await service.in_thread(pixels_of, url, pool=service.decoding)
                parts.append({"type": "image", "image": pixels})
            except ValueError as error:
                faults[f"messages[{i}].content[{j}].image_url"] = str(error)
        role = "system" if message.role == "developer" else message.role
        out.append({"role": role, "content": parts})
    if faults:
        text = "\n".join(f"{where}: {fault}" for where, fault in faults.items())
        raise Refused(400, "invalid_image", text, next(iter(faults)))
    return out


def _opened(url: str, files: dict, settings):
    """The picture of a data URI, or of an address where its host is allowed. Raises ValueError."""
    if url.lstrip()[:5].lower() == "data:":
        name = f"data URI {short(url.strip(), 40)}"
        try:
            data = from_data_uri(url.lstrip())
        except ValueError as error:
            raise ValueError(
                f"{name}: no valid base64 ({error}); encode the file's bytes again"
            ) from None
    elif url in files:
        name = short(url, 120)
        data = files[url]
        if isinstance(data, ValueError):
            raise data
    else:
        why = "no address is followed here (--allow_urls)" if _is_address(url) else "is no data URI"
        raise ValueError(
            f"{short(url, 80)}: {why}; send the picture itself, as data:image/png;base64,..."
        )
    return decoded(data, name, settings)


def decoded(data: bytes, name: str, settings):
    """The picture of a file's bytes. Raises ValueError."""
    scans = data.count(b"\xff\xda") if data.startswith(b"\xff\xd8") else 0
    if scans > SCANS:
        raise ValueError(
            f"{name}: is a JPEG of {scans} scans, at most {SCANS} are decoded; save it again, as a "
            "baseline JPEG or a PNG"
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


def drawn_png(service, asked, prompt: str, index: int, drawn) -> str:
    """A drawing as a PNG file in base64 that tells how it was drawn. asked: the form."""
    facts = {"model": service.settings.model, "janus_jax": version(), "prompt": prompt}
    facts |= {name: getattr(drawn, name) for name in ("seed", "cfg_scale", "temperature")}
    facts["index"] = index
    size = service.size_of(asked)
    said = {"negative_prompt": asked.negative_prompt, "size": size}
    facts |= {name: value for name, value in said.items() if value is not None}
    return png(service.engine.picture(drawn.ids, size), facts)
