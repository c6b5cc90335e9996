"""Questions about inputs of further senses: what a prompt reads is what training reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import sensing, tiny

from janus_jax import understand
from janus_jax.sample import senses
from janus_jax.sample.understand import prompts_of, understand_batch


@pytest.fixture
def model(one_device):
    return tiny.make_model(sensing.CONFIG)


def said(*parts) -> list:
    words = {"type": "text", "text": "what is it?"}
    return [{"role": "user", "content": [*parts, words]}]


def points(seed: int) -> dict:
    return {"type": "points", "points": sensing.cloud(seed)}


def test_a_prompt_reads_what_a_row_of_training_reads(model):
    batch = sensing.batch(sensing.CONFIG, sensing.record(("points", sensing.cloud(1))))
    embed = jax.jit(lambda model, batch: model.embed(batch, jnp.zeros((8, 0), jnp.int32)))
    embedded = np.asarray(embed(model, tiny.put(batch)))[0]
    asked = senses.prepared(tiny.processor(), said(points(1)), sensing.CONFIG)
    (prompt,) = prompts_of(model, tiny.processor(), [asked])
    n = len(prompt.ids)
    assert prompt.ids.tolist() == batch["tokens"][0, :n].tolist()
    slots = batch["points_slots"][0, :n] > 0
    assert slots.sum() == 8 and prompt.is_shown.tolist() == slots.tolist()
    np.testing.assert_allclose(prompt.shown[slots], embedded[:n][slots], atol=1e-5)


def test_a_batch_answers_as_each_alone_and_by_what_it_sees(model):
    model.points_adaptor.fc2.kernel[...] *= 30  # random weights hardly look
    image = {"type": "image", "image": np.full((20, 20, 3), 200, np.uint8)}
    asked = [said(points(1)), said(), said(image, points(2)), said(points(2), image)]
    alone = [understand(model, tiny.processor(), one, max_new_tokens=5) for one in asked]
    assert understand_batch(model, tiny.processor(), asked, max_new_tokens=5) == alone
    assert len(set(alone)) == 4, alone


def test_what_cannot_be_used_is_listed_by_message(model, one_device):
    bad = said({"type": "points", "points": np.ones((3, 3))}, {"type": "points"})
    with pytest.raises(
        ValueError, match=r"(?s)message 0: points given here: has 3 points.*message 0: a part"
    ):
        understand(model, tiny.processor(), bad)
    with pytest.raises(ValueError, match="part of type 'points'; use 'text' or 'image'"):
        understand(tiny.make_model(), tiny.processor(), said(points(1)))
