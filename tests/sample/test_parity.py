"""What transformers' Janus says and draws for the same weights: greedy ids, equal in mixed
left-padded batches."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from support import oracle
from support.mesh import on_mesh

from janus_jax.config.schema import Template
from janus_jax.data import tokenizer as tok
from janus_jax.data.processor import Processor
from janus_jax.model import sharding as sh
from janus_jax.model.batch import pixels
from janus_jax.model.janus import abstract
from janus_jax.sample import understand
from janus_jax.sample.generate import generate_ids
from janus_jax.sample.understand import prepare, understand_batch

SIDE, N, WORDS = 32, 16, 12
PROMPTS = [
    "a red circle",
    "x",
    "two blue squares to the left of a green cross, and a yellow triangle below",
]


@pytest.fixture(scope="module")
def processor():
    text = "User: what color is the circle?\n\nAssistant: a red circle and two blue squares " * 3
    return Processor(tok.train([text], 340), Template(system=""), N, N)


@pytest.fixture(scope="module")
def models(processor):
    """(theirs, ours) of the same random weights over the processor's vocabulary."""
    t, config = processor.tokenizer, oracle.tiny_config()
    config = dataclasses.replace(
        config, transformer=dataclasses.replace(config.transformer, vocabulary=len(t))
    )
    with pytest.MonkeyPatch.context() as patch, on_mesh():
        patch.setattr(oracle, "IMAGE_TOKEN", t.placeholder)
        theirs = oracle.their_model(config, seed=2)  # one whose greedy ids vary
        ours = sh.concrete(abstract(config))
        oracle.copy_into(ours, theirs.state_dict())
    for name, i in (("bos", t.bos), ("eos", t.eos), ("pad", t.pad)):
        setattr(theirs.generation_config, f"{name}_token_id", i)
    theirs.generation_config.generation_kwargs = {"boi_token_id": t.begin_of_image}
    return theirs, ours


def padded(rows, pad: int):
    """Their inputs: ids and mask, padded on the left to the longest row and no further."""
    longest = max(map(len, rows))
    ids = np.stack([np.pad(row, (longest - len(row), 0), constant_values=pad) for row in rows])
    mask = np.stack([np.pad(np.ones(len(row), int), (longest - len(row), 0)) for row in rows])
    return torch.tensor(ids, dtype=torch.long), torch.tensor(mask)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    )


def said(text: str, *pictures) -> list[dict]:
    parts = [{"type": "image", "image": p} for p in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.mark.parametrize("scale", [5.0, 1.5])
def test_guided_drawings_of_unlike_prompts_have_their_ids(models, processor, one_device, scale):
    theirs, ours = models
    rows = [processor.request(prompt) for prompt in PROMPTS]
    ids, mask = padded(rows, processor.tokenizer.pad)
    want = theirs.generate(
        ids, attention_mask=mask, generation_mode="image", guidance_scale=scale, do_sample=False
    )  # fmt: skip
    got = generate_ids(ours, processor, PROMPTS, cfg_scale=scale, temperature=0.0)
    np.testing.assert_array_equal(got, want.numpy())
    assert len({tuple(row) for row in got.tolist()}) == len(rows) and all(
        len(set(r)) > 3 for r in got.tolist()
    )


def test_answers_of_a_mixed_batch_have_their_ids(models, processor, one_device, monkeypatch):
    theirs, ours = models
    asked = [
        said("what color?", picture(1)),
        said("hi"),
        said("are these two the same, or is one of them red?", picture(2), picture(3)),
        [
            *said("what is it?", picture(4)),
            {"role": "assistant", "content": "a red circle"},
            {"role": "user", "content": "and the color?"},
        ],
    ]
    rows, _, shown = zip(*(prepare(processor, c, ours.config.understanding_encoder) for c in asked))
    ids, mask = padded(rows, processor.tokenizer.pad)
    shown = torch.tensor(pixels(np.concatenate(shown)).transpose(0, 3, 1, 2))
    out = theirs.generate(
        ids, attention_mask=mask, pixel_values=shown, do_sample=False, max_new_tokens=WORDS
    )  # fmt: skip
    want = out[:, ids.shape[1] :].numpy()
    seen, true_ids = [], understand.text_ids

    def spy(*args, **options):
        seen.append(true_ids(*args, **options))
        return seen[-1]

    monkeypatch.setattr(understand, "text_ids", spy)
    answers = understand_batch(ours, processor, asked, max_new_tokens=WORDS)
    for ids, right in zip(seen[0], want, strict=True):
        np.testing.assert_array_equal(ids, right[: len(ids)])
    assert len(set(answers)) == len(asked) and len({tuple(row) for row in want.tolist()}) == len(
        asked
    )
