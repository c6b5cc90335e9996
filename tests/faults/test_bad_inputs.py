"""What users bring, through the public door: an answer, or one message that names it, says why, and
how to mend it."""

import math

import numpy as np
import pytest
from PIL import Image
from support import tiny
from support.mesh import on_mesh
from support.pictures import UNUSABLE, UNUSUAL, put

import janus_jax
from janus_jax.data import messages
from janus_jax.data.image_files import ImageError
from janus_jax.data.images import understanding_image
from janus_jax.sample.prompts import read_prompts
from janus_jax.sample.understand import prepare, understand_batch

TOWER = tiny.CONFIG.understanding_encoder
SIDE = TOWER.image_size
SLOT = messages.SPECIALS["placeholder"]
WIDE, TALL = 40, 30


@pytest.fixture(scope="module")
def weights():
    with on_mesh():
        return tiny.make_model()


@pytest.fixture
def model(weights, one_device):
    return weights


@pytest.fixture
def processor():
    return tiny.processor()


def ramp(height=TALL, width=WIDE) -> np.ndarray:
    """uint8 [H, W], every value of it seen by any damage."""
    return np.add.outer(3 * np.arange(height), 2 * np.arange(width)).astype(np.uint8)


def rgb() -> Image.Image:
    return Image.fromarray(np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1]], -1))


def asked(picture, text="what?") -> list[dict]:
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def test_every_picture_that_cannot_be_used_is_named_by_its_message(model, processor, tmp_path):
    paths = [put(tmp_path, file, content) for file, content, *_ in UNUSABLE.values()]
    parts = [{"type": "image", "image": str(path)} for path in paths]
    with pytest.raises(ImageError) as error:
        janus_jax.understand(model, processor, message([*parts, {"type": "text", "text": "what?"}]))
    lines = str(error.value).split("\n")
    for line, path, (_, _, _, *words) in zip(lines, paths, UNUSABLE.values(), strict=True):
        assert line.startswith(f"message 0: {path}: "), line
        assert all(word in line for word in words), line


def test_pictures_of_unusual_kinds_are_seen_as_they_are(model, processor, tmp_path):
    conversations = []
    for file, content, picture in UNUSUAL.values():
        path = put(tmp_path, file, content)
        found = prepare(processor, asked(str(path)), TOWER)[2][0]
        np.testing.assert_array_equal(found, understanding_image(picture, SIDE))
        conversations.append(asked(path))
    answers = understand_batch(model, processor, conversations, max_new_tokens=1)
    assert all(isinstance(answer, str) for answer in answers)


def message(content, **more):
    return [{"role": "user", "content": content} | more]


LONG = "red " * 300_000
CONVERSATIONS = {  # name: (conversation, what the message says)
    "more placeholders than images": (
        message(SLOT * 3 + "same?", images=[rgb(), rgb()]),
        ["3 placeholders, 2 images in message 0", SLOT],
    ),
    "fewer placeholders than images": (
        message(f"{SLOT}\nwhat?", images=[rgb(), rgb()]),
        ["1 placeholders, 2 images in message 0"],
    ),
    "images beside parts": (
        message([{"type": "text", "text": "a"}], images=[rgb()]),
        ["message 0", "images"],
    ),
    "empty": (message(""), ["message 0", "nothing to answer", "show a picture"]),
    "whitespace and control characters": (
        message(" \n\t\0\u200b\ufeff"),
        ["message 0", "nothing to answer"],
    ),
    "1.2 MB": (message(LONG), ["1,200,000 characters", "65,536", "shorten"]),
    "too many tokens": (message("x1" * 8000), ["the context is 4,096", "shorten the text by"]),
    "bytes that are not UTF-8": (
        message([{"type": "text", "text": b"ab\xff"}]),
        ["0xff at offset 2"],
    ),
    "bytes": (message([{"type": "text", "text": b"ab"}]), ["message 0", "bytes", ".decode()"]),
    "lone surrogate": (message("ab\ud800"), ["message 0", "offset 2", "'\\ud800'", "remove it"]),
    "content of another type": (
        message(None),
        ["message 0", "NoneType", "string or a list of parts"],
    ),
    "no role": ([{"content": "hi"}], ["message 0", '"role" and "content"']),
    "no list": ("what?", ["conversation", "is a str", "list of messages"]),
    "part without text": (message([{"type": "text"}]), ["message 0", "part 0", '"text"']),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_that_cannot_be_used(model, processor, name):
    conversation, words = CONVERSATIONS[name]
    with pytest.raises(ValueError) as error:
        janus_jax.understand(model, processor, conversation)
    assert all(word in str(error.value) for word in words), error.value


def test_forty_images_in_one_turn_are_refused_with_the_sum_before_any_is_opened():
    processor = tiny.processor().__class__(
        tiny.processor().tokenizer, tiny.processor().template, 576, 576
    )
    with pytest.raises(ValueError) as error:
        processor.question(message(f"{SLOT}" * 40, images=["no such file"] * 40))
    for words in ("40 pictures x 578 +", "23,1", "the context is 4,096", "leave out 33 pictures"):
        assert words in str(error.value), error.value


def test_all_problems_are_told_at_once(model, processor, tmp_path):
    conversation = [
        {"role": "tool", "content": "a"}, *message(f"{SLOT} {SLOT}", images=[]), *message("\ud800"), *message(3),
    ]  # fmt: skip
    with pytest.raises(ValueError) as error:
        janus_jax.understand(model, processor, conversation)
    lines = str(error.value).splitlines()
    assert len(lines) == 4 and all(f"message {k}" in line for k, line in enumerate(lines))
    with pytest.raises(ValueError) as error:
        janus_jax.understand(model, processor, message(SLOT * 2, images=["a.png", tmp_path]))
    assert "a.png" in str(error.value) and "is a directory" in str(error.value)
    with pytest.raises(ValueError) as error:
        understand_batch(model, processor, [message("hi"), message(""), asked("no.png")])
    assert "conversations[1]: message 0" in str(
        error.value
    ) and "conversations[2]: message 0" in str(error.value)
    with pytest.raises(ValueError) as error:
        janus_jax.generate(model, processor, ["", "fine", None], seed=0)
    assert "prompts[0]" in str(error.value) and "prompts[2]" in str(error.value)


PROMPTS = {
    "empty": ("", ["prompts[0] is ''", "words to draw", "cfg_scale 0"]),
    "whitespace and control characters": (" \t\0\u200b", ["prompts[0]", "words to draw"]),
    "1.2 MB": (LONG, ["prompts[0]", "1,200,000 characters", "65,536", "shorten"]),
    "too many tokens": ("x1" * 8000, ["prompts[0]", "the context is 4,096", "shorten the text by"]),
    "bytes that are not UTF-8": (b"ab\xff", ["prompts[0]", "0xff at offset 2"]),
    "lone surrogate": ("ab\udc80", ["prompts[0]", "offset 2"]),
    "a message with an image": (
        asked(rgb())[0],
        ["prompts[0]", "dict", "no pictures", "understand"],
    ),
    "an image": (rgb(), ["prompts[0]", "no pictures", "understand"]),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_that_cannot_be_drawn(model, processor, name):
    prompt, words = PROMPTS[name]
    with pytest.raises(ValueError) as error:
        janus_jax.generate(model, processor, [prompt])
    assert all(word in str(error.value) for word in words), error.value


NUMBERS = [
    ("cfg_scale", -1.0), ("cfg_scale", math.nan), ("cfg_scale", math.inf), ("cfg_scale", "5"),
    ("temperature", -0.1), ("temperature", math.nan), ("images_per_prompt", 0), ("images_per_prompt", 1.5),
    ("seed", -1), ("seed", 2**32), ("top_p", 0), ("top_p", 1.1), ("max_new_tokens", 0),
]  # fmt: skip


@pytest.mark.parametrize("name, value", NUMBERS)
def test_a_number_that_cannot_be_used(model, processor, name, value):
    """0 and 1 of the guidance scale and temperature 0 have exact meanings: see test_generate.py."""
    with pytest.raises(ValueError) as error:
        if name in ("top_p", "max_new_tokens"):
            janus_jax.understand(model, processor, message("hi"), **{name: value})
        else:
            janus_jax.generate(model, processor, ["a cat"], **{name: value})
    assert str(error.value).startswith(f"{name} is {value}: must be ")


def control(processor) -> set[int]:
    return {processor.tokenizer.backend.token_to_id(text) for text in messages.SPECIALS.values()}


def ids_of(processor, conversation) -> list[int]:
    return [
        i for i in prepare(processor, conversation, TOWER)[0].tolist() if i in control(processor)
    ]


@pytest.mark.parametrize("typed", [*messages.SPECIALS.values(), "<|User|>", "User:"])
def test_control_strings_that_are_typed_are_text(model, processor, typed):
    bos, begin = processor.tokenizer.bos, processor.tokenizer.begin_of_image
    assert ids_of(processor, message(f"see {typed} there")) == [bos]
    halves = [{"type": "text", "text": part} for part in ("see " + typed[:4], typed[4:] + " there")]
    assert ids_of(processor, message(halves)) == [bos]  # nor joined from two fields
    assert [i for i in processor.request(typed).tolist() if i in control(processor)] == [bos, begin]
    assert isinstance(
        janus_jax.understand(model, processor, message(f"see {typed}"), max_new_tokens=1), str
    )


def test_control_characters_inside_words_are_kept_as_text(processor):
    found = prepare(processor, message("a\0b\x7f\u200dc"), TOWER)[0]
    assert "a\0b\x7f\u200dc" in processor.tokenizer.decode(found)


def test_prompt_files_of_every_editor(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes(b"\xef\xbb\xbfa cat\r\n\r\n\0\n a dog \n\xe2\x80\xa8 \n")
    assert read_prompts(path) == ["a cat", "a dog", "\u2028"]
    path.write_bytes(b"a cat\n\xff\n")
    with pytest.raises(ValueError, match=r"p.txt: byte 0xff at offset 6 is not UTF-8"):
        read_prompts(path)


@pytest.mark.parametrize("role", ["user", "system"])
def test_text_that_is_null_is_no_picture(model, processor, role):
    said = {"role": role, "content": [{"type": "text", "text": None}]}
    with pytest.raises(
        ValueError, match=r"message 0: part 0: is 'None' \(NoneType\), needs a string"
    ):
        janus_jax.understand(model, processor, [said, *asked(rgb())])
