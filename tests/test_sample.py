"""Sampling against loops without a cache, and answers that do not depend on the company they are asked in."""

import base64
import copy
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
from janus_jax.model.layers import causal_mask
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
    return model.transformer(x, positions, causal_mask(jnp.ones((b, t), jnp.int32)))


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


def test_a_batch_of_unlike_pictures_is_refused(model, processor):
    with pytest.raises(ValueError, match=r"\[0, 1\] pictures"):
        understand_batch(model, processor, [said("a"), said("b", picture(1))])
