"""Sampling against loops without a cache, and answers that do not depend on the company they are asked in."""

import base64
import copy
import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import on_mesh
from PIL import Image

from janus_jax import generate, understand
from janus_jax.batch import pixels
from janus_jax.data.images import understanding_image
from janus_jax.sample import decode
from janus_jax.sample.answer import Answer
from janus_jax.sample.decode import left_pad
from janus_jax.sample.generate import decode_ids, generate_ids
from janus_jax.sample.understand import prepare, understand_batch

N = tiny.CONFIG.generation_encoder.tokens
LENGTH = 96  # of the reference loops' rows
WORDS = 12  # of an answer
PROMPTS = [
    "a red circle",
    "two blue squares",
    "a cross",
    "a yellow triangle to the left of a green circle, and a blue cross below both of them",
]


@pytest.fixture(scope="module")
def weights():
    """A model of random weights, sharpened so that its ids vary."""
    with on_mesh():
        return make()


def make():
    model = tiny.make_model()
    model.text_embedding.table[...] = model.text_embedding.table[...] * 4
    model.generation_adaptor.fc2.kernel[...] = model.generation_adaptor.fc2.kernel[...] * 4
    model.understanding_adaptor.fc2.kernel[...] = model.understanding_adaptor.fc2.kernel[...] * 4
    return model


@pytest.fixture
def model(weights, one_device):
    return weights


@pytest.fixture
def processor():
    return tiny.processor()


def draw(model, prompts, cfg_scale=5.0, temperature=1.0, **options):
    options |= dict(cfg_scale=cfg_scale, temperature=temperature)
    return generate_ids(model, tiny.processor(), prompts, **options)


@jax.jit
def forward(model, x):
    """Embedded rows [B, T, D], no cache, no padding on the left -> hidden states."""
    b, t, _ = x.shape
    positions = jnp.broadcast_to(jnp.arange(t), (b, t))
    return model.transformer(x, positions, jnp.ones((b, t), jnp.int32))


def images_by_hand(model, prompt: str, combine):
    """Greedy ids, the whole row run anew for each; `combine` (conditional, unconditional logits)."""
    tokens = tiny.processor().tokenizer
    spans = tiny.processor().drawing(prompt)
    conditional = np.concatenate([span[0] for span in spans])
    middle = [tokens.pad] * (len(conditional) - 2)
    unconditional = np.array([tokens.bos, *middle, tokens.begin_of_image])
    assert conditional[0] == tokens.bos and conditional[-1] == tokens.begin_of_image
    n, table = len(conditional), np.asarray(model.text_embedding.table[...])
    x = np.zeros((2, LENGTH, table.shape[1]), np.float32)
    x[:, :n] = table[np.stack([conditional, unconditional])]
    ids = []
    for i in range(N):
        hidden = forward(model, x)[:, n + i - 1 : n + i]
        logits = np.asarray(model.image_head(hidden))[:, 0]
        ids.append(int(combine(*logits).argmax()))
        x[:, n + i] = np.asarray(model.embed_image_ids(jnp.array([[ids[-1]]])))[0, 0]
    return ids


@pytest.mark.parametrize(
    "scale, combine",
    [(1.0, lambda c, u: c), (0.0, lambda c, u: u), (5.0, lambda c, u: 5 * c - 4 * u)],
    ids=["conditional", "unconditional", "guided"],
)
def test_greedy_ids_are_those_of_a_loop_without_cache(model, scale, combine):
    for prompt in (PROMPTS[0], PROMPTS[3]):
        want = images_by_hand(model, prompt, combine)
        assert len(set(want)) > 2, "ids that do not vary show nothing"
        assert draw(model, [prompt], cfg_scale=scale, temperature=0.0)[0].tolist() == want


def test_guidance_and_prompt_matter(model):
    by_scale = [draw(model, PROMPTS[0], cfg_scale=s, temperature=0.0).tolist() for s in (0.0, 1.0, 5.0)]
    assert by_scale[0] != by_scale[1] != by_scale[2]
    ids = draw(model, PROMPTS[:2], cfg_scale=1.0, temperature=0.0)
    assert ids[0].tolist() != ids[1].tolist()


def test_seeds_move_the_draw_at_temperature_one_only(model):
    cold = [draw(model, PROMPTS[0], temperature=0.0, seed=s).tolist() for s in (0, 1)]
    assert cold[0] == cold[1]
    warm = [draw(model, PROMPTS[0], seed=s).tolist() for s in (0, 0, 1)]
    assert warm[0] == warm[1] != warm[2]


def test_a_draw_does_not_depend_on_its_company(model):
    alone = [draw(model, prompt, seed=7)[0].tolist() for prompt in PROMPTS]
    together = draw(model, PROMPTS, seed=7).tolist()
    assert together == alone
    twice = draw(model, PROMPTS[:2], seed=7, images_per_prompt=2).tolist()
    assert twice[::2] == alone[:2]
    assert twice[1] != twice[0] and twice[3] != twice[2]
    seeded = draw(model, PROMPTS, seed=[7, 1, 2, 7]).tolist()
    assert [seeded[0], seeded[3]] == [alone[0], alone[3]] and seeded[1] != alone[1]


def test_more_padding_changes_nothing(model, processor, monkeypatch):
    """Prompt lengths are padded up to a bucket; a longer neighbour pushes a prompt into the next."""
    asked = [said(text, *map(picture, range(k))) for k, text in enumerate(["what?", "is it red?", "where?"])]
    numbers = dict(max_new_tokens=WORDS)
    drawn = draw(model, PROMPTS, seed=7).tolist()
    alone = [understand(model, processor, c, **numbers) for c in asked]
    assert len(set(alone)) == 3
    lengths = [left_pad([processor.request(p)], 0, 1)[0].shape[1] for p in PROMPTS]
    monkeypatch.setattr(decode, "BUCKET", 96)
    assert lengths != [left_pad([processor.request(p)], 0, 1)[0].shape[1] for p in PROMPTS]
    assert draw(model, PROMPTS, seed=7).tolist() == drawn
    assert draw(model, PROMPTS[:1], seed=7).tolist() == drawn[:1]
    assert understand_batch(model, processor, asked, **numbers) == alone


def test_eight_devices_draw_what_one_draws(model, processor):
    want = draw(model, PROMPTS[:3], seed=3).tolist()
    pictures = generate(model, processor, PROMPTS[:3], seed=3)
    answer = understand(model, processor, said("what is it?", picture(1)), max_new_tokens=WORDS)
    with on_mesh(1, 4, 2):
        split = make()
        assert generate_ids(split, processor, PROMPTS[:3], seed=3).tolist() == want
        for a, b in zip(generate(split, processor, PROMPTS[:3], seed=3), pictures):
            np.testing.assert_allclose(np.asarray(a, int), np.asarray(b, int), atol=1)
        assert understand(split, processor, said("what is it?", picture(1)), max_new_tokens=WORDS) == answer


def test_generate_gives_pictures_in_order(model, processor):
    pictures = generate(model, processor, PROMPTS[:2], seed=7, images_per_prompt=2)
    ids = draw(model, PROMPTS[:2], seed=7, images_per_prompt=2)
    assert [p.size for p in pictures] == [(16, 16)] * 4 and all(p.mode == "RGB" for p in pictures)
    for one, picture_ in zip(ids, pictures):
        want = (np.clip(decode_ids(model, one[None])[0], -1, 1) + 1) / 2 * 255
        np.testing.assert_allclose(np.asarray(picture_, int), np.floor(want), atol=1)
    assert len({p.tobytes() for p in pictures}) == 4


def test_the_processor_says_how_its_weights_draw_best(model, processor):
    tuned = copy.copy(processor)
    tuned.cfg_scale, tuned.temperature = 2.0, 0.0
    want = draw(model, PROMPTS[:2], cfg_scale=2.0, temperature=0.0).tolist()
    assert generate_ids(model, tuned, PROMPTS[:2], seed=5).tolist() == want
    explicit = generate_ids(model, tuned, PROMPTS[:2], cfg_scale=0.0, temperature=0.0).tolist()
    assert explicit == draw(model, PROMPTS[:2], cfg_scale=0.0, temperature=0.0).tolist() != want


# Answers


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8))


def said(text: str, *pictures) -> list[dict]:
    parts = [{"type": "image", "image": p} for p in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def answer_by_hand(model, conversation, steps: int = WORDS) -> list[int]:
    """Greedy ids, the whole row run anew for each; the picture's features stand on its placeholders."""
    processor = tiny.processor()
    spans = processor.conversation([*conversation, {"role": "assistant", "content": ""}])
    ids = np.concatenate([span[0] for span in spans])
    table = np.asarray(model.text_embedding.table[...])
    x = np.zeros((1, LENGTH, table.shape[1]), np.float32)
    x[0, : len(ids)] = table[ids]
    shown = [p["image"] for m in conversation for p in m["content"] if p["type"] == "image"]
    if shown:
        images = pixels(np.stack([understanding_image(image, 16) for image in shown]))
        features = np.asarray(model.embed_pictures(jnp.asarray(images)))
        x[0, : len(ids)][ids == processor.tokenizer.placeholder] = features.reshape(-1, table.shape[1])
    out, n = [], len(ids)
    for i in range(steps):
        hidden = forward(model, x)[:, n + i - 1 : n + i]
        out.append(int(np.asarray(model.text_head(hidden))[0, 0].argmax()))
        x[0, n + i] = table[out[-1]]
    return out


CONVERSATIONS = {
    "text": said("how many circles are there?"),
    "picture": said("what color is the cross?", picture(1)),
    "turns": [
        *said("what is it?", picture(2)),
        {"role": "assistant", "content": "a cross"},
        {"role": "user", "content": [{"type": "text", "text": "where is it?"}]},
    ],
}
CONVERSATIONS["turns"][1]["content"] = [{"type": "text", "text": "a cross"}]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_greedy_answers_are_those_of_a_loop_without_cache(model, processor, name):
    ids = answer_by_hand(model, CONVERSATIONS[name])
    assert len(set(ids)) > 2 and processor.tokenizer.eos not in ids, "an answer that shows nothing"
    got = understand(model, processor, CONVERSATIONS[name], max_new_tokens=WORDS)
    assert got == processor.tokenizer.decode(ids).strip()


def test_the_picture_matters(model, processor):
    a, b = (understand(model, processor, said("what?", picture(s)), max_new_tokens=WORDS) for s in (1, 2))
    assert a != b


def test_answers_do_not_depend_on_their_company(model, processor):
    asked = [
        said(text, picture(k)) for k, text in enumerate(["what?", PROMPTS[3], "is it red or is it blue?"])
    ]
    options = dict(max_new_tokens=WORDS)
    alone = [understand(model, processor, c, **options) for c in asked]
    assert understand_batch(model, processor, asked, **options) == alone
    assert len(set(alone)) == 3


def test_conversations_of_any_number_of_pictures_share_a_batch(model, processor):
    asked = [
        said("what?"),
        said(PROMPTS[3], picture(1)),
        CONVERSATIONS["turns"],
        said("are these two the same?", picture(2), picture(3), picture(1)),
    ]
    numbers = dict(max_new_tokens=WORDS)
    alone = [understand(model, processor, c, **numbers) for c in asked]
    assert understand_batch(model, processor, asked, **numbers) == alone and len(set(alone)) == 4
    same = [asked[0]] * 4
    seeded = understand_batch(model, processor, same, temperature=1.0, seed=[3, 5, 3, 6], **numbers)
    assert seeded[0] == seeded[2] and len(set(seeded)) == 3
    assert seeded[1] == understand(model, processor, asked[0], temperature=1.0, seed=5, **numbers)


def test_answers_stream_as_they_come_and_sum_to_the_answer(model, processor):
    asked = [said("what?"), said("is it red?", picture(1))]
    told = {0: [], 1: []}
    numbers = dict(temperature=1.0, seed=1, max_new_tokens=WORDS)
    answers = understand_batch(
        model, processor, asked, stream=lambda row, text: told[row].append(text), **numbers
    )
    assert ["".join(parts) for parts in told.values()] == answers and len(told[0]) > 3
    alone = []
    assert (
        understand(model, processor, asked[1], stream=alone.append, **numbers) == "".join(alone) == answers[1]
    )
    stop = answers[0][2:4]
    assert (
        understand(model, processor, asked[0], stop=stop, **numbers) == answers[0].partition(stop)[0].strip()
    )


def test_pictures_are_read_by_the_processors_numbers(model, processor, monkeypatch):
    own = copy.copy(processor)
    own.image_mean, own.image_std, own.background = (0.1, 0.2, 0.3), (1.0, 0.5, 0.25), (9, 8, 7)
    wide = picture(1).crop((0, 0, 16, 8))
    seen = []

    def stop(*args):
        seen.append(np.asarray(args[2]))
        raise InterruptedError

    monkeypatch.setattr(decode, "text_ids", stop)
    with pytest.raises(InterruptedError):
        understand_batch(model, own, [said("what?", wide), said("hi")])
    whole = np.broadcast_to(np.array(own.background, np.float32), (16, 16, 3)).copy()
    whole[1:15] = np.asarray(wide.resize((16, 14), Image.Resampling.BICUBIC))  # 14 is the least side
    np.testing.assert_allclose(seen[0][0, 0], (whole / 255 - own.image_mean) / own.image_std, atol=1e-5)


def told(text: str, *stops: str, most=999, tokenizer=None) -> tuple[list[str], Answer]:
    """What an Answer tells of the ids of `text`, given one by one."""
    tokenizer, parts = tokenizer or tiny.processor().tokenizer, []
    answer = Answer(tokenizer, {tokenizer.eos}, stops, most, parts.append)
    ids = [*tokenizer.encode(text)[0], tokenizer.eos, *tokenizer.encode("never")[0]]
    for i in ids:
        answer.add([i])
    at_once = Answer(tokenizer, {tokenizer.eos}, stops, most)
    at_once.add(ids)
    assert at_once.text == answer.text and at_once.done
    return parts, answer


@pytest.mark.parametrize(
    "text", ["héllo wörld", "日本語のテキスト", "👩‍👩‍👧 🇫🇷!", " \n two  spaces \n", "\ufffd ok \ufffd", ""]
)
def test_an_answer_is_told_in_whole_characters_that_sum_to_it(text):
    parts, answer = told(text)
    assert "".join(parts) == answer.text == text.strip() and answer.done
    assert all(part in text for part in parts)
    if "\ufffd" not in text:
        assert not any("\ufffd" in part for part in parts)
    if len(text) > 8:
        assert len(parts) > 3, "it comes as it is made"


def test_an_answer_ends_before_a_stop_string_that_comes_in_pieces():
    for text in ("a cat. User: and", "a cat.  Us", "User: hi", "a Use User User:"):
        parts, answer = told(text, "User:", "END")
        want = text.partition("User:")[0].strip()
        assert "".join(parts) == answer.text == want
        assert not any("User:" in "".join(parts[:n]) for n in range(len(parts) + 1))
    assert told("one END two User:", "User:", "END")[1].text == "one"


def test_an_answer_has_at_most_so_many_ids():
    tokenizer = tiny.processor().tokenizer
    parts, answer = told("a red circle and a blue square", most=3)
    assert len(answer.ids) == 3 and answer.text == tokenizer.decode(answer.ids).strip() == "".join(parts)


def test_the_next_users_tag_ends_an_answer_also_where_it_is_one_token(model, processor, monkeypatch):
    ids = answer_by_hand(model, CONVERSATIONS["text"])
    cut = next(i for i in range(2, WORDS) if ids[i] not in ids[:i])
    pro = copy.copy(processor)
    pro.tokenizer = copy.copy(processor.tokenizer)
    pro.tokenizer._control = processor.tokenizer._control | {"<tag>": ids[cut]}
    pro.template = dataclasses.replace(processor.template, user="<tag>")
    plain = understand(model, processor, CONVERSATIONS["text"], max_new_tokens=WORDS)
    assert plain == processor.tokenizer.decode(ids).strip()
    seen = []

    def fixed(*args):
        seen.append(args[-1](np.array([ids])))
        return np.array([ids])

    monkeypatch.setattr(decode, "text_ids", fixed)
    ended = understand(model, pro, CONVERSATIONS["text"], max_new_tokens=WORDS, stop="never said")
    assert ended == processor.tokenizer.decode(ids[:cut]).strip() and seen == [True]


def test_the_original_form_of_a_conversation_is_the_same_question(model, processor):
    picture_ = picture(1)
    ours = prepare(processor, said("what?", picture_), 16)
    theirs = [
        {"role": "<|User|>", "content": "<image_placeholder>\nwhat?", "images": [picture_]},
        {"role": "<|Assistant|>", "content": ""},
    ]
    for got, want in zip(prepare(processor, theirs, 16), ours):
        np.testing.assert_array_equal(got, want)


def test_an_answer_stays_within_the_context(model, processor):
    asked = said("how many circles are there?")
    long = understand(model, processor, asked, max_new_tokens=WORDS)
    tight = copy.copy(processor)
    tight.context = len(prepare(processor, asked, 16)[0]) + 5
    short = understand(model, tight, asked, max_new_tokens=WORDS)
    assert 0 < len(short) < len(long) and long.startswith(short)


def test_progress_reaches_the_end(model):
    seen = []
    draw(model, PROMPTS[:2], progress=lambda *where: seen.append(where))
    assert seen[-1] == (N, N) and all(total == N for _, total in seen) and seen == sorted(seen)


def test_an_answer_ends_at_the_end_of_sentence(model, processor):
    asked = [said("what?"), said("how many circles are there?")]
    ids = answer_by_hand(model, asked[0])
    cut = next(i for i in range(2, WORDS) if ids[i] not in ids[:i])
    short = copy.copy(processor)
    short.tokenizer = copy.copy(processor.tokenizer)
    short.tokenizer.eos = ids[cut]
    want = processor.tokenizer.decode(ids[:cut]).strip()
    assert want and understand(model, short, asked[0], max_new_tokens=WORDS) == want
    both = understand_batch(model, short, asked, max_new_tokens=WORDS)
    assert both == [want, understand(model, short, asked[1], max_new_tokens=WORDS)]


def test_sampling_with_the_smallest_mass_is_greedy(model, processor):
    options = dict(max_new_tokens=WORDS)
    greedy = understand(model, processor, CONVERSATIONS["picture"], **options)
    narrow = dict(temperature=1.0, top_p=1e-6)
    for seed in (0, 1):
        got = understand(model, processor, CONVERSATIONS["picture"], seed=seed, **narrow, **options)
        assert got == greedy
    wide = [
        understand(model, processor, CONVERSATIONS["picture"], temperature=1.0, seed=s, **options)
        for s in (0, 1)
    ]
    assert len({greedy, *wide}) == 3


def test_a_picture_may_come_as_file_data_or_openai_part(model, processor, tmp_path):
    file = tmp_path / "p.png"
    picture(1).save(file)
    buffer = io.BytesIO()
    picture(1).save(buffer, "PNG")
    data = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    want = prepare(processor, said("what?", picture(1)), 16)
    for part in (
        {"type": "image", "image": str(file)},
        {"type": "image", "path": file},
        {"type": "image", "url": data},
        {"type": "image_url", "image_url": {"url": data}},
    ):
        message = {"role": "user", "content": [part, {"type": "text", "text": "what?"}]}
        for got, same in zip(prepare(processor, [message], 16), want):
            np.testing.assert_array_equal(got, same)


# What cannot be done


@pytest.mark.parametrize(
    "options, words",
    [
        ({"cfg_scale": -1.0}, ["cfg_scale", "-1.0"]),
        ({"cfg_scale": float("nan")}, ["cfg_scale", "nan"]),
        ({"cfg_scale": float("inf")}, ["cfg_scale", "inf"]),
        ({"temperature": -0.5}, ["temperature", "-0.5"]),
        ({"images_per_prompt": 0}, ["images_per_prompt", "0"]),
        ({"prompts": [" "]}, ["prompts[0]", "' '"]),
        ({"prompts": ["a", ""]}, ["prompts[1]", "''"]),
        ({"prompts": ["a", None]}, ["prompts[1]", "None"]),
        ({"prompts": []}, ["0 prompts"]),
        ({"seed": [1, 2]}, ["seed", "2", "1"]),
    ],
    ids=lambda x: str(x)[:30],
)
def test_generate_names_what_it_cannot_use(model, processor, options, words):
    with pytest.raises(ValueError) as error:
        generate(model, processor, **({"prompts": ["a"]} | options))
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "options, words",
    [
        ({"temperature": -0.5}, ["temperature", "-0.5"]),
        ({"temperature": float("nan")}, ["temperature", "nan"]),
        ({"top_p": 0.0}, ["top_p", "0.0"]),
        ({"top_p": 1.5}, ["top_p", "1.5"]),
        ({"top_p": float("nan")}, ["top_p", "nan"]),
        ({"max_new_tokens": 0}, ["max_new_tokens", "0"]),
    ],
    ids=lambda x: str(x)[:30],
)
def test_understand_names_the_option_it_cannot_use(model, processor, options, words):
    with pytest.raises(ValueError) as error:
        understand(model, processor, said("what?"), **options)
    assert all(word in str(error.value) for word in words), error.value


def part(**fields):
    return [{"role": "user", "content": [fields, {"type": "text", "text": "what?"}]}]


@pytest.mark.parametrize(
    "conversation, words",
    [
        ([], ["conversation"]),
        ([*said("a"), {"role": "assistant", "content": "b"}], ["last message", "user"]),
        ([{"role": "tool", "content": "a"}, *said("b")], ["message 0", "'tool'"]),
        (part(type="image", image="http://x.org/a.png"), ["message 0", "http://x.org/a.png"]),
        (part(type="image_url", image_url={"url": "https://x.org/a"}), ["message 0", "https://x.org/a"]),
        (part(type="image", url="data:image/png;base64,@@@"), ["message 0", "base64"]),
        (part(type="image", image="no/such.png"), ["no/such.png"]),
        (part(type="image"), ["message 0", "picture"]),
        (part(type="video", video="a.mp4"), ["message 0"]),
    ],
    ids=lambda x: str(x)[:40],
)
def test_understand_names_the_message_it_cannot_use(model, processor, conversation, words):
    with pytest.raises(ValueError) as error:
        understand(model, processor, conversation)
    assert all(word in str(error.value) for word in words), error.value
