"""Requests that no server should fall over, each with the status and a part of the message that
answer it: HOSTILE[name] = (route, body, headers, status, words)."""

import base64
import io
import json
import struct
import zlib

from PIL import Image

CHAT = "/v1/chat/completions"
IMAGES = "/v1/images/generations"
JSON = {"Content-Type": "application/json"}
HOSTILE = {}


def said(content, **more) -> dict:
    return {"messages": [{"role": "user", "content": content}]} | more


def shown(url, count: int = 1) -> dict:
    return said([{"type": "image_url", "image_url": {"url": url}}] * count)


def uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    """A PNG whose header claims so many grey pixels, and whose data holds one row of them."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1 + min(width, 1000)))
    parts = [chunk(b"IHDR", head), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(kind: str, size=(3, 2)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size).save(out, kind)
    return out.getvalue()


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each is a pass over all pixels."""
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


def add(name, route, body, status=400, words="", headers=JSON):
    assert name not in HOSTILE
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    HOSTILE[name] = route, body, headers, status, words


DEEP = 100_000
for name, body, words in [
    ("an empty body", b"", "no JSON"),
    ("half a body", b'{"prompt": ', "no JSON"),
    ("invalid UTF-8", b'{"prompt": "\xff\xfe"}', "no JSON"),
    ("a lone surrogate", b'{"prompt": "\\ud800"}', "no JSON"),
    ("lists in lists", b"[" * DEEP, "no JSON"),
    ("closed lists in lists", b"[" * DEEP + b"]" * DEEP, "no JSON"),
    ("objects in objects", b'{"prompt":' * DEEP + b"1" + b"}" * DEEP, "no JSON"),
    ("a list", b"[]", "the body is []"),
    ("a string", b'"draw a cat"', "the body is 'draw a cat'"),
    ("null", b"null", "the body is None"),
    ("a field twice", b'{"prompt": "a", "prompt": "b"}', "'prompt' twice in one object"),
    ("another encoding", '{"prompt": "a"}'.encode("utf-16"), "no JSON"),
    ("a compressed body", zlib.compress(b'{"prompt": "a"}'), "no JSON"),
    ("a million values", b'{"prompt": [' + b"0," * 10**6 + b"0]}", "commas"),
    (
        "a number of 100,000 digits",
        b'{"prompt": "a", "seed": 1' + b"0" * 10**5 + b"}",
        "out of range",
    ),
    (
        "words to avoid without end",
        b'{"prompt": "a", "negative_prompt": "' + b" " * 10**7 + b'"}',
        "negative_prompt",
    ),
    ("spaces alone", b" " * 19_000_000, "no JSON"),
    ("a prompt of spaces", b'{"prompt": "' + b" " * 19_000_000 + b'"}', "prompt"),
    ("a prompt of one endless word", b'{"prompt": "' + b"a" * 19_000_000 + b'"}', "prompt"),
    ("nothing at all", {}, "prompt: is missing"),
    ("a prompt that is a number", {"prompt": 5}, "prompt is 5"),
    ("a prompt that is null", {"prompt": None}, "prompt is None"),
    ("prompts in a list", {"prompt": ["a", "b"]}, "prompt is ['a', 'b']"),
    ("an unknown field", {"prompt": "a", "promt": "b"}, "promt: there is no such field"),
    ("a prototype", {"prompt": "a", "__proto__": {}}, "__proto__: there is no such field"),
    ("no pictures", {"prompt": "a", "n": 0}, "n: is 0"),
    ("a billion pictures", {"prompt": "a", "n": 10**9}, "n: is 1000000000"),
    ("true pictures", {"prompt": "a", "n": True}, "n is True"),
    ("another size", {"prompt": "a", "size": "1024x1024"}, "this model draws 24x24"),
    ("guidance that is NaN", b'{"prompt": "a", "guidance_scale": NaN}', "guidance_scale"),
    ("endless guidance", b'{"prompt": "a", "guidance_scale": 1e999}', "guidance_scale"),
    ("guidance in words", {"prompt": "a", "guidance_scale": "high"}, "guidance_scale is 'high'"),
    ("a temperature below zero", {"prompt": "a", "temperature": -1}, "temperature: is -1"),
    ("a seed below zero", {"prompt": "a", "seed": -1}, "seed: is -1"),
    ("half a seed", {"prompt": "a", "seed": 0.5}, "seed is 0.5"),
    ("a seed of 65 bits", {"prompt": "a", "seed": 2**64}, "seed: is 18446744073709551616"),
    ("pictures by address", {"prompt": "a", "response_format": "url"}, "response_format"),
    ("a long odd value", {"prompt": "a", "style": "x" * 10**6}, "style"),
    ("long odd names", {"prompt": "a"} | {"x" * 10**5 + str(i): 1 for i in range(50)}, "xxx"),
]:
    add(f"to draw: {name}", IMAGES, body, words=words)
add("to draw: another model", IMAGES, {"prompt": "a", "model": "../../etc/passwd"}, 404, "passwd")
add("to draw: 21 MB", IMAGES, b'{"prompt": "' + b"a" * 21_000_000 + b'"}', 413, "larger than 20")

for name, body, words in [
    ("no messages", {}, "messages: is missing"),
    ("an empty conversation", {"messages": []}, "messages"),
    ("messages that are words", {"messages": "hi"}, "messages"),
    ("a message that is null", {"messages": [None]}, "messages[0]"),
    ("messages in messages", {"messages": [[[]]]}, "messages[0]"),
    ("2,000 messages", {"messages": [{"role": "user", "content": "a"}] * 2000}, "messages"),
    ("a role of its own", {"messages": [{"role": "root", "content": "a"}]}, "messages[0].role"),
    ("no role", {"messages": [{"content": "a"}]}, "messages[0].role"),
    ("an answer and no question", {"messages": [{"role": "assistant", "content": "a"}]}, "user's"),
    ("content that is a number", said(5), "messages[0].content"),
    ("lists as content", said([[[["a"]]]]), "messages[0].content[0]"),
    ("a part without its words", said([{"type": "text"}]), "messages[0].content[0]"),
    ("a part of sound", said([{"type": "input_audio", "input_audio": {}}]), "content[0].type"),
    ("a billion tokens", said("hi", max_tokens=10**9), "max_tokens"),
    ("a float of tokens", said("hi", max_tokens=1e9), "max_tokens"),
    ("tokens below zero", said("hi", max_tokens=-1), "max_tokens: is -1"),
    ("tokens in words", said("hi", max_completion_tokens="5"), "max_completion_tokens is '5'"),
    ("a context of words", said("word " * 20_000), "shorten"),
    ("a top_p of 2", said("hi", top_p=2), "top_p: is 2"),
    ("100 stop strings", said("hi", stop=["x"] * 100), "stop"),
    ("a stop of nothing", said("hi", stop=""), "stop"),
    ("a tool", said("hi", tools=[{"type": "function"}]), "tools"),
    ("a stream that is a word", said("hi", stream="yes"), "stream is 'yes'"),
    ("half a surrogate", b'{"messages": [{"role": "user", "content": "\\udfff"}]}', "no JSON"),
    ("100 pictures", shown(uri(saved("PNG")), 100), "100 pictures, at most 8"),
]:
    add(f"to ask: {name}", CHAT, body, words=words)

PICTURE = "messages[0].content[0].image_url"
for name, url, words in [
    ("one pixel above 25 million", uri(png(25_000_001, 1)), "limit is 25 million"),
    ("a PNG that claims 10^10 pixels", uri(png(100_000, 100_000)), "pixels"),
    ("a GIF that claims 4 * 10^9", uri(b"GIF89a\xff\xff\xff\xff\0\0\0;"), "damaged"),
    ("no row of the pixels that it claims", uri(png(4000, 4000)), "damaged"),
    ("a JPEG of scans without end", uri(many_scans(200)), "at most 100 are decoded"),
    ("SVG", uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"), "type SVG"),
    ("a web page", uri(b"<!doctype html><script>alert(1)</script>"), "web page"),
    ("a PDF", uri(b"%PDF-1.4"), "type PDF"),
    ("a ZIP", uri(b"PK\3\4" + bytes(100)), "type ZIP"),
    ("EPS", uri(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "type EPS"),
    ("half a picture", uri(saved("JPEG", (300, 300))[:700]), "damaged"),
    ("no bytes", "data:image/png;base64,", "is empty"),
    ("broken base64", "data:image/png;base64,####", "no valid base64"),
    ("no comma", "data:image/png;base64", "no comma"),
    ("no address", "", "is no data URI"),
    ("a path", "/etc/passwd", "is no data URI"),
    ("a file", "file:///etc/passwd", "is no data URI"),
    ("a cloud's metadata", "http://169.254.169.254/latest/meta-data/", "--allow_urls"),
    ("this server itself", "http://127.0.0.1:8000/metrics", "--allow_urls"),
    ("FTP", "ftp://example.org/a.png", "is no data URI"),
    ("a script", "javascript:alert(1)", "is no data URI"),
    ("a NUL", "\0", "is no data URI"),
    ("10 MB of letters", "x" * 10**7, "is no data URI"),
]:
    add(f"a picture: {name}", CHAT, shown(url), words=words)
add("a picture: bare text for its part", CHAT, said([{"type": "image_url", "image_url": "a.png"}]))
add("a picture: as a number", CHAT, shown(5), words=f"{PICTURE}.url")

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
add("a form", IMAGES, b"prompt=a", 415, "send JSON", FORM)
add("no type", IMAGES, b'{"prompt": "a"}', 415, "send JSON", {})
add("an unknown route", "/v1/embeddings", b"{}", 404, "/v1/embeddings")
add("a long path", "/" + "a" * 10_000, b"", 404)
