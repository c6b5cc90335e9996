"""An option that cannot be used is named with its value."""

import copy
import dataclasses
import types

import jax
import numpy as np
import pytest
from support import tiny
from support.sampling import said

from janus_jax import generate, understand
from janus_jax.data.tokenizer import train
from janus_jax.sample import options
from janus_jax.sample.generate import generate_ids
from janus_jax.sample.options import listed


@pytest.mark.parametrize(
    "options, words",
    [
        ({"cfg_scale": -1.0}, ["cfg_scale", "-1.0"]),
        ({"cfg_scale": float("nan")}, ["cfg_scale", "nan"]),
        ({"cfg_scale": float("inf")}, ["cfg_scale", "inf"]),
        ({"cfg_scale": 1e39}, ["cfg_scale", "1e+39", "float32"]),
        ({"cfg_scale": 1e38}, ["cfg_scale", "1e+38", "1e30"]),
        ({"temperature": 1e39}, ["temperature", "1e+39", "float32"]),
        ({"seed": 1.5}, ["seed is 1.5"]),
        ({"seed": "7"}, ["seed is 7", "str"]),
        ({"progress": 3}, ["progress is 3"]),
        ({"prompts": {"a"}}, ["prompts is a set"]),
        ({"prompts": None}, ["prompts[0]", "None"]),
        ({"temperature": -0.5}, ["temperature", "-0.5"]),
        ({"images_per_prompt": 0}, ["images_per_prompt", "0"]),
        ({"prompts": [" "]}, ["prompts[0]", "' '"]),
        ({"prompts": ["a", ""]}, ["prompts[1]", "''"]),
        ({"prompts": ["a", None]}, ["prompts[1]", "None"]),
        ({"prompts": []}, ["0 prompts"]),
        ({"seed": [1, 2]}, ["seed", "2", "1"]),
        (
            {"first": 2**31 - 1, "images_per_prompt": 2},
            ["first is 2147483647", "at most 2147483648"],
        ),
        ({"return_exceptions": "no"}, ["return_exceptions is 'no': must be True or False"]),
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
        ({"max_new_tokens": 2.0}, ["max_new_tokens", "2.0"]),
        ({"stop": 5}, ["stop is '5'"]),
        ({"stop": ["a", ""]}, ["stop is", "not empty"]),
        ({"seed": 1.5}, ["seed is 1.5"]),
        ({"stream": "x"}, ["stream is x"]),
    ],
    ids=lambda x: str(x)[:30],
)
def test_understand_names_the_option_it_cannot_use(model, processor, options, words):
    with pytest.raises(ValueError) as error:
        understand(model, processor, said("what?"), **options)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "name", ["images_per_prompt", "max_new_tokens", "seed", "first", "temperature", "top_p"]
)
def test_a_number_without_end_is_refused_by_its_rule(name):
    with pytest.raises(ValueError, match=rf"^{name} is -?0x\w{{1,58}}: must be"):
        options.check(**{name: 10**5000})
    with pytest.raises(
        ValueError, match=r"is 100000000: .*at most 100,000: draw more with another"
    ):
        options.check(images_per_prompt=10**8)


@pytest.mark.parametrize("several", [False, True])
def test_a_key_is_no_seed(several):
    key = jax.random.key(0)
    with pytest.raises(
        ValueError, match=r"seed is Array.*: must be a whole .*, not a PRNGKeyArray"
    ):
        options.seeds(key[None] if several else key, 1, "prompts")


def test_a_processor_of_another_model_is_refused():
    model = types.SimpleNamespace(config=tiny.CONFIG, transformer=None)
    ours = tiny.processor()
    options.require(model, ours)
    model.tokenizer_fingerprint = ours.tokenizer.fingerprint
    options.require(model, ours)
    other = copy.copy(ours)
    other.tokenizer = train(["another text"], 300)
    with pytest.raises(ValueError, match=r"not of this model: its tokenizer is \w+, the model's"):
        options.require(model, other)
    other = copy.copy(ours)
    other.generation_tokens = 9
    with pytest.raises(ValueError, match=r"generation_tokens is 9, the model's 16"):
        options.require(model, other)
    model.config = dataclasses.replace(
        tiny.CONFIG, transformer=dataclasses.replace(tiny.CONFIG.transformer, vocabulary=4)
    )
    with pytest.raises(ValueError, match=r"beyond the model's vocabulary of 4"):
        options.require(model, ours)


def test_model_and_processor_in_the_other_order_are_refused(model, processor):
    with pytest.raises(TypeError, match="model is a Processor"):
        generate(processor, model, "a")


def test_none_is_the_default_and_a_seed_that_was_drawn_is_told(model, processor):
    options = dict(cfg_scale=None, temperature=None, images_per_prompt=None, progress=None)
    first = generate(model, processor, ["a cat", "a cat"], seed=None, **options)
    seeds = [picture.info["seed"] for picture in first]
    again = generate(model, processor, ["a cat", "a cat"], seed=seeds)
    assert [p.tobytes() for p in first] == [p.tobytes() for p in again] and seeds[0] != seeds[1]
    none = dict.fromkeys(("temperature", "top_p", "stop", "stream"))
    asked = said("what?")
    given = understand(model, processor, asked, max_new_tokens=4, **none)
    assert given == understand(model, processor, asked, max_new_tokens=4)


@pytest.mark.parametrize("kind", [np.array, jax.numpy.array, iter, tuple, list])
def test_seeds_come_in_a_row_of_any_kind(kind):
    assert options.seeds(kind([3, 5]), 2, "prompts") == [3, 5]
    assert options.seeds(jax.numpy.uint32(5), 2, "prompts") == [5, 5]


@pytest.mark.parametrize("kind", [np.array, iter, tuple])
def test_prompts_come_in_a_row_of_any_kind(kind):
    assert listed(kind(["a", "b"]), "prompts") == ["a", "b"]


@pytest.mark.parametrize(
    "numbers",
    [
        {"temperature": 1e-9, "top_p": 0.9},
        {"temperature": 1e-38, "top_p": 0.9},
        {"temperature": 1e-46},
        {"temperature": 1.0, "top_p": 1e-45},
        {"temperature": 1.0, "top_p": 1e-300},
    ],
    ids=str,
)
def test_at_the_edge_of_float32_the_likeliest_token_is_taken(model, processor, numbers):
    likeliest = understand(model, processor, said("what?"), max_new_tokens=6)
    assert understand(model, processor, said("what?"), max_new_tokens=6, **numbers) == likeliest


def test_huge_guidance_is_the_direction_alone(model, processor):
    ids = [
        generate_ids(model, processor, "a cat", cfg_scale=scale, temperature=0).tolist()
        for scale in (1e8, 1e28)
    ]
    assert ids[0] == ids[1] and len(set(ids[0][0])) > 2
