"""The reward of a trained pair of towers: transformers' numbers, and weights that cannot score."""

import functools
import shutil
import types

import numpy as np
import pytest
import torch
from PIL import Image
from support import siglip_oracle, tiny

from janus_jax.data.images import understanding_image
from janus_jax.data.sources import SourceError
from janus_jax.model.batch import pixels
from janus_jax.training import rewards, rewards_siglip
from janus_jax.training.rewards import Asked, RewardError
from janus_jax.training.tasks import grpo
from janus_jax.weights.load import export

WORDS = ("a red circle", "two blue squares and much more than six tokens", "a red circle")


@functools.cache
def theirs():
    return siglip_oracle.their_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """transformers' weights as big_vision writes them, and a tokenizer beside them."""
    out = tmp_path_factory.mktemp("siglip")
    arrays = siglip_oracle.big_vision(siglip_oracle.tensors(theirs()), siglip_oracle.TOWER.heads)
    np.savez(out / "model.npz", **{f"params/{name}": x for name, x in arrays.items()})
    tiny.processor().tokenizer.save(out)
    return out


@pytest.fixture(scope="module")
def reward(folder):
    return rewards_siglip.siglip_reward(str(folder))


def drawings() -> list:
    """PIL pictures of other sizes than the tower's."""
    rng = np.random.default_rng(0)
    sides = (24, 24), (16, 16), (30, 20)
    return [Image.fromarray(rng.integers(0, 256, (*side, 3)).astype(np.uint8)) for side in sides]


def test_logits_are_transformers(reward):
    """Of each picture and its own text, temperature and bias included; texts in lower case, cut, the
    last id end of sentence."""
    side, length = siglip_oracle.TOWER.image_size, siglip_oracle.LENGTH
    tokenizer = tiny.processor().tokenizer
    tokens = np.full((len(WORDS), length), tokenizer.eos)
    for row, words in zip(tokens, WORDS):
        ids = tokenizer.encode(words)[0][: length - 1]
        row[: len(ids)] = ids
    assert len(tokenizer.encode(WORDS[1])[0]) >= length
    seen = pixels(np.stack([understanding_image(x, side, fast=True) for x in drawings()]))
    with torch.no_grad():
        out = theirs()(
            input_ids=torch.tensor(tokens), pixel_values=torch.tensor(seen.transpose(0, 3, 1, 2))
        )
    want = out.logits_per_image.numpy().diagonal()
    got = reward.logits([words.upper() for words in WORDS], drawings())
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.ptp(want) > 0.03 and got.dtype == np.float32
    scores = reward([Asked(words) for words in WORDS], drawings())
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-want)), atol=1e-5)


def test_a_part_that_task_siglip_hands_on_scores_alike(reward, tmp_path):
    own = tmp_path / "own"
    export(own, reward.params, None, tiny.processor(), part_of=siglip_oracle.CONFIG)
    (weighted,) = rewards.opened("drawing", f"siglip:{own}=0.5")
    assert (weighted.name, weighted.weight) == (f"siglip:{own}", 0.5)
    asked = [Asked(words) for words in WORDS]
    np.testing.assert_array_equal(weighted.reward(asked, drawings()), reward(asked, drawings()))
    (own / "tokenizer.json").write_text((own / "tokenizer.json").read_text() + "\n")
    with pytest.raises(
        RewardError, match=r"another tokenizer than theirs: .* not the file that was"
    ):
        rewards_siglip.siglip_reward(str(own))


def without_tokenizer(folder, out):
    shutil.copy(folder / "model.npz", out)


def without_texts(folder, out):
    arrays = np.load(folder / "model.npz")
    np.savez(out / "model.npz", **{k: x for k, x in arrays.items() if k.startswith("params/img")})
    shutil.copy(folder / "tokenizer.json", out)


def of_fewer_ids(folder, out):
    arrays = dict(np.load(folder / "model.npz"))
    arrays["params/txt/Embed_0/embedding"] = arrays["params/txt/Embed_0/embedding"][:99]
    np.savez(out / "model.npz", **arrays)
    shutil.copy(folder / "tokenizer.json", out)


@pytest.mark.parametrize(
    "make, told",
    [
        (None, "no weights can be read there .*name what task siglip has made"),
        (without_tokenizer, "have no text_tower, contrast .*no tokenizer.json says what its ids mean"),
        (without_texts, "have no text_tower, contrast .*a trained pair of image and text tower"),
        (of_fewer_ids, "another tokenizer than theirs: tokenizer.json has .* ids, their text tower 99"),
    ],
)  # fmt: skip
def test_weights_that_cannot_score_are_refused_before_the_run(folder, tmp_path, make, told):
    """Where the first record is looked at; the field and its value are named."""
    where = tmp_path / "weights"
    if make:
        where.mkdir()
        make(folder, where)
    plan = types.SimpleNamespace(name="one", options={"rewards": f"shapes+siglip:{where}"})
    with pytest.raises(SourceError, match=told) as error:
        grpo.read_first(plan, None)
    assert str(error.value).startswith(f"stages.one.options.rewards has 'siglip:{where}': ")


def test_a_config_that_names_no_weights_or_scores_answers_is_refused():
    problems = functools.partial(rewards.reward_problems, "options.x")
    assert "without a path" in problems("drawing", "siglip:")[0]
    assert "scores pictures" in problems("answering", "siglip:runs/a")[0]
    assert not problems("drawing", "siglip:runs/a+shapes=2"), "files are looked at before a run"
    assert "siglip:PATH" in problems("drawing", "siglib")[0]
