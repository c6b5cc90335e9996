"""Answers of words and pictures: all ids are the likeliest of the row that training has of the same
conversation, and pictures are guided by the row without it."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support import tiny
from support.mesh import on_mesh
from support.sampling import N, make, picture, said

import janus_jax
from janus_jax.config.schema import Rows
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.images import understanding_image
from janus_jax.data.messages import PICTURE, Turn
from janus_jax.data.packing import assemble
from janus_jax.data.processor import Processor
from janus_jax.model import batch as bt
from janus_jax.sample import respond as responding
from janus_jax.sample import responded
from janus_jax.sample.chat import Chat
from janus_jax.sample.files import Gallery
from janus_jax.sample.understand import understand

LENGTH = 192
ASKED = {"words": said("draw a circle"), "picture": said("what is it?", picture(1))}
GREEDY = dict(temperature=0.0, image_temperature=0.0, max_new_tokens=10, max_images=2)


def drawing_model():
    """One whose answers begin pictures now and then."""
    model = make()
    head = model.text_head.linear
    kernel = np.array(head.kernel[...])
    column = np.random.default_rng(3).normal(size=len(kernel)) * 0.5
    kernel[:, tiny.processor().tokenizer.begin_of_image] = column
    head.kernel[...] = jax.device_put(kernel, head.kernel[...].sharding)
    return model


@pytest.fixture(scope="module")
def begins():
    with on_mesh():
        return drawing_model()


@pytest.fixture
def model(begins, one_device):
    return begins


def answered(model, conversation, **how):
    """An answer with the ids of its row: (`respond`'s private answer, tokens of the prompt)."""
    kept = []

    class Kept(responding._Answer):
        def __init__(self, *args):
            super().__init__(*args)
            kept.append((self, len(self.ids)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(responding, "_Answer", Kept)
        parts = janus_jax.respond(model, tiny.processor(), conversation, **how)
    return parts, *kept[0]


def row_of(conversation, answer, prompt: int, blank: int = 0) -> tuple[dict, np.ndarray]:
    """(the packed row that training has of an answer, the ids of its pictures). blank: the place of a
    begin_of_image; all between BOS and it is pad."""
    t = tiny.processor().tokenizer
    tokens = np.append(answer.ids, t.eos)
    role = np.full(len(tokens), bt.TEXT)
    slots = tokens == t.placeholder
    role[slots] = np.where(np.arange(len(tokens)) < prompt, 1, 2)[slots]
    supervised = (np.arange(len(tokens)) >= prompt) & (tokens != t.end_of_image)
    supervised[-1] = False  # an answer that is cut has no end
    if blank:
        tokens[1:blank] = t.pad
        role[1:blank] = bt.TEXT
    spans = [([a], int(b), int(c)) for a, b, c in zip(tokens, role, supervised)]
    row = assemble([bt.sequence(spans, "generation")], LENGTH)
    pictures = [part for part in answer.parts if not isinstance(part, str)]
    ids = np.array([part.info["image_ids"] for part in pictures], np.int32).reshape(1, -1)
    drawn = (role == bt.GENERATION_SLOT).sum()
    shown = [part["image"] for part in conversation[0]["content"] if part["type"] == "image"]
    seen = (
        [understanding_image(x, 16) for x in shown] if (role == bt.UNDERSTANDING_SLOT).any() else []
    )
    seen = np.stack(seen) if seen else np.zeros((0, 16, 16, 3), np.uint8)
    return row | {"understanding_images": seen}, ids[:, ids.shape[1] - drawn :]


@jax.jit
def logits_of(model, row, ids):
    hidden = model(row, ids)
    return model.text_head(hidden), model.image_head(hidden)


embedded = jax.jit(lambda model, row: model.embed(row, model.image_ids(row)))


def forced(model, row, ids) -> tuple[np.ndarray, np.ndarray]:
    """Teacher-forced logits of words and of image ids at every place of a row."""
    batch = {name: jnp.asarray(x)[None] for name, x in row.items()}
    return tuple(np.asarray(x)[0] for x in logits_of(model, batch, jnp.asarray(ids)))


@pytest.mark.parametrize("asked", [pytest.param("words", marks=pytest.mark.slow), "picture"])
def test_words_and_ids_are_the_likeliest_of_the_training_row(model, asked):
    parts, answer, prompt = answered(model, ASKED[asked], cfg_scale=1.0, **GREEDY)
    kinds = [isinstance(part, str) for part in parts]
    assert kinds[:3] == [True, False, True], "words, a picture, words"
    row, ids = row_of(ASKED[asked], answer, prompt)
    words, codes = forced(model, row, ids)
    at = row["text_targets"] != bt.IGNORE
    begun = row["text_targets"][at] == tiny.processor().tokenizer.begin_of_image
    assert at.sum() > begun.sum() >= 1
    assert words[at].argmax(-1).tolist() == row["text_targets"][at].tolist()
    at = row["image_targets"] > 0
    assert at.sum() == N * kinds.count(False) and len(set(ids[0].tolist())) > 3
    assert codes[at].argmax(-1).tolist() == ids[0][row["image_targets"][at] - 1].tolist()


def test_guidance_leads_away_from_the_row_without_its_conditions(model):
    """The second picture too: what was drawn before it is a condition."""
    scale = 3.0
    parts, answer, prompt = answered(model, ASKED["picture"], cfg_scale=scale, **GREEDY)
    begin = tiny.processor().tokenizer.begin_of_image
    begins = prompt + np.flatnonzero(answer.ids[prompt:] == begin)
    whole, ids = row_of(ASKED["picture"], answer, prompt)
    _, of = forced(model, whole, ids)
    drawn = [part.info["image_ids"] for part in parts if not isinstance(part, str)]
    assert len(drawn) == 2
    for at, own in zip(begins, drawn):
        blank, left = row_of(ASKED["picture"], answer, prompt, blank=at)
        _, without = forced(model, blank, left)
        here = slice(at, at + N)
        total = scale * of[here] + (1 - scale) * without[here]
        assert total.argmax(-1).tolist() == own
        assert (of[here].argmax(-1) != own).any(), "guidance changes them"


def test_an_answer_given_back_is_the_row_that_training_has_of_it(model, processor):
    drawn = picture(7)
    answer = ["Here: ", {"type": "image", "image": drawn}, " a circle."]
    asked = said("draw a circle", picture(1))
    chat = [*asked, {"role": "assistant", "content": answer}, *said("and now?")]
    (prompt,) = responding._prompts(model, processor, [chat])
    turns = [
        Turn("user", [PICTURE, "\n", "draw a circle"]),
        Turn("assistant", ["Here: ", PICTURE, " a circle."]),
        Turn("user", ["and now?"]),
        Turn("assistant", ["x"]),
    ]
    rows = Rows(1, LENGTH, 1, 1)
    encode = ExampleEncoder(processor, tiny.CONFIG, rows, "answers")
    record = {"messages": turns}
    example = encode("generation", record, np.random.default_rng(0))
    n = len(prompt.ids)
    assert prompt.ids.tolist() == example["tokens"][:n].tolist()
    assert (prompt.is_shown == (example["role"][:n] != bt.TEXT)).all()
    shown = [picture(1), drawn]
    source = types.SimpleNamespace(image=lambda i, k=0: shown[k])
    pixels = encode.pixels("generation", source, 0, record, example)
    row = assemble([example], LENGTH) | {name: np.stack(x) for name, x in pixels.items()}
    batch = {name: jnp.asarray(x)[None] for name, x in row.items()}
    x = np.asarray(embedded(model, batch))[0, :n]
    np.testing.assert_allclose(prompt.shown[prompt.is_shown], x[prompt.is_shown], atol=1e-5)


def test_in_company_answers_are_what_they_are_alone(model, processor):
    how = dict(temperature=1.0, max_new_tokens=8, max_images=1)
    several = [*ASKED.values(), said("a cross, please")]
    together = responding.respond_batch(model, processor, several, seed=[3, 4, 5], **how)
    plain = lambda parts: [x if isinstance(x, str) else x.tobytes() for x in parts]
    alone = [
        janus_jax.respond(model, processor, one, seed=seed, **how)
        for one, seed in zip(several, (3, 4, 5))
    ]
    assert [plain(x) for x in together] == [plain(x) for x in alone]
    assert any(not isinstance(part, str) for parts in together for part in parts)


def test_where_an_answer_ends(model, processor):
    ask = functools.partial(janus_jax.respond, model, conversation=ASKED["words"], cfg_scale=1.0)
    told = []
    parts, answer, prompt = answered(
        model, ASKED["words"], cfg_scale=1.0, stream=told.append, **GREEDY
    )
    assert told == parts and len(parts) > 2
    words = int(np.argmax(answer.ids[prompt:] == processor.tokenizer.begin_of_image))
    few = GREEDY | {"max_new_tokens": words}
    assert ask(processor, **few) == ask(processor, **GREEDY | {"max_images": 0}) == parts[:1]
    more = ask(processor, **few | {"max_new_tokens": words + 1})
    assert more[1].tobytes() == parts[1].tobytes()
    counts = processor.understanding_tokens, N
    for context, found in ((prompt + words + N + 1, 1), (prompt + words + N + 2, 2)):
        narrow = Processor(processor.tokenizer, processor.template, *counts, context=context)
        assert len(ask(narrow, **GREEDY)) == found, "a picture has room, or none is begun"
    plain = understand(model, processor, ASKED["words"], max_new_tokens=words)
    assert plain and parts[0].startswith(plain)


@pytest.mark.slow
def test_eight_devices_answer_what_one_answers(processor):
    found = []
    for mesh in ((), (4, 2)):
        with on_mesh(*mesh):
            parts = janus_jax.respond(
                drawing_model(), processor, ASKED["picture"], cfg_scale=3.0, **GREEDY
            )
            found.append([x if isinstance(x, str) else x.info["image_ids"] for x in parts])
    assert found[0] == found[1] and len(found[0]) > 2


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"drawing": "masked"}, "drawing is 'masked'"),
        ({"image_head": "diffusion"}, "image_head is 'diffusion'"),
        ({"sizes": ("16x8",)}, r"model.generation_encoder.sizes is \('16x8',\)"),
    ],
)
def test_a_model_that_draws_otherwise_is_refused(changes, told):
    vq = dataclasses.replace(tiny.CONFIG.generation_encoder, sizes=changes.pop("sizes", ()))
    config = types.SimpleNamespace(
        **{"drawing": "causal", "image_head": "softmax", "generation_encoder": vq} | changes
    )
    with pytest.raises(ValueError, match=told):
        responding.require_between(config)


@pytest.mark.parametrize(
    "chat, how, told",
    [
        (ASKED["words"], {"max_images": -1}, "max_images is -1: must be a whole number from 0"),
        (ASKED["words"], {"image_temperature": -1}, "image_temperature is -1: must be a finite"),
        (ASKED["words"], {"stream": 3}, "stream is 3"),
        (
            [*said("a"), {"role": "assistant", "content": [{"image": "no.png"}]}, *said("b")], {},
            "message 1: no.png: no such file",
        ),
        ([{"role": "assistant", "content": "hi"}], {}, "its last message must be the user's"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_said(model, processor, chat, how, told):
    with pytest.raises(ValueError, match=told):
        janus_jax.respond(model, processor, chat, **how)
    with pytest.raises(ValueError, match=told):
        responding.respond_batch(model, processor, [ASKED["words"], chat], **how)


def test_a_chat_writes_pictures_and_goes_on_from_them(model, processor, tmp_path):
    heard, told = [], []
    numbers = GREEDY | {"image_temperature": None}
    flags = types.SimpleNamespace(**numbers, top_p=1.0, seed=0)

    def ask(messages, stream):
        heard.append(messages)
        gallery = Gallery(tmp_path)
        how = {"cfg_scale": 1.0, "image_temperature": 0.0}
        return responded.tell(model, processor, messages, gallery, stream, flags, **how)

    talk = Chat(ask, None, None, lambda *words, **how: told.extend(words))
    assert talk.line("draw a circle") and talk.line("and another")
    assert [message["role"] for message in heard[1]] == ["user", "assistant", "user"]
    (prompt,) = responding._prompts(model, processor, [heard[1]])
    assert prompt.is_shown.sum() % N == 0 and prompt.is_shown.any()
    paths = [line.strip() for line in told if line.strip().endswith(".png")]
    assert paths and sorted({*paths}) == sorted(map(str, tmp_path.iterdir()))
    shown = [part["image"] for part in heard[1][1]["content"] if isinstance(part, dict)]
    with Image.open(paths[0]) as kept:
        assert kept.tobytes() == shown[0].tobytes() and kept.info["prompt"] == "draw a circle"
