"""Questions about inputs of further senses: what a prompt reads is what training reads."""

import jax.numpy as jnp
import numpy as np
import pytest
from support import sensing, tiny

from janus_jax import understand
from janus_jax.sample.understand import understand_batch


@pytest.fixture
def model(one_device):
    return tiny.make_model(sensing.CONFIG)


def said(*parts) -> list:
    words = {"type": "text", "text": "what is it?"}
    return [{"role": "user", "content": [*parts, words]}]


def points(seed: int) -> dict:
    return {"type": "points", "points": sensing.cloud(seed)}


def test_the_first_word_is_the_likeliest_of_a_row_as_training_has_it(model):
    told = []
    for seed in range(3):
        batch = sensing.batch(sensing.CONFIG, sensing.record(("points", sensing.cloud(seed))))
        hidden = model(tiny.put(batch), jnp.zeros((8, 0), jnp.int32))
        first = int(np.flatnonzero(batch["text_targets"][0] >= 0)[0])  # where the answer begins
        likely = int(np.asarray(model.text_head(hidden))[0, first].argmax())
        wanted = tiny.processor().tokenizer.decode([likely]).strip()
        answer = understand(model, tiny.processor(), said(points(seed)), max_new_tokens=1)
        assert answer == wanted
        told.append(answer)
    assert len(set(told)) > 1, "answers that show nothing"


def test_a_batch_answers_as_each_alone_with_pictures_beside(model):
    image = {"type": "image", "image": np.full((20, 20, 3), 200, np.uint8)}
    asked = [said(points(1)), said(), said(image, points(2)), said(points(2), image)]
    alone = [understand(model, tiny.processor(), one, max_new_tokens=5) for one in asked]
    assert understand_batch(model, tiny.processor(), asked, max_new_tokens=5) == alone


def test_what_cannot_be_used_is_listed_by_message(model, one_device):
    bad = said({"type": "points", "points": np.ones((3, 3))}, {"type": "points"})
    with pytest.raises(
        ValueError, match=r"(?s)message 0: points given here: has 3 points.*message 0: a part"
    ):
        understand(model, tiny.processor(), bad)
    with pytest.raises(ValueError, match="part of type 'points'; use 'text' or 'image'"):
        understand(tiny.make_model(), tiny.processor(), said(points(1)))
