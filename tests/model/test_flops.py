"""Model FLOPs against figures derived elsewhere, and against what XLA counts in our own boxes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny

from janus_jax.config.schema import Ratio, Rows
from janus_jax.model import config as sizes
from janus_jax.model import flops, presets
from janus_jax.model.generation_encoder import GenerationEncoder

FULL = presets.janus_1_3b()


@dataclasses.dataclass
class Stage:
    rows: Rows
    ratio: Ratio
    supervise: str = "all"


def work(**counts):
    return flops.Work(
        **{
            **dict.fromkeys(
                ("tokens", "pairs", "text", "image", "understanding_images", "generation_images"),
                0.0,
            ),
            **counts,
        }
    )


def test_matrices_beside_pairs_pass_gradients_down_and_learn_nothing():
    """A pair of n numbers costs 2 n a token forwards, and backwards twice as many."""
    asked = work(tokens=10.0, pairs=55.0, text=10.0, understanding_images=2.0)
    forward = flops.count(FULL, (), asked)
    found = flops.count(FULL, (), asked, {"transformer": 1000})
    assert found["transformer"] == 2 * forward["transformer"] + 6 * 1000 * 10
    assert found["attention"] == 3 * forward["attention"]
    assert found["text_head"] == 2 * forward["text_head"]
    assert found["understanding_encoder"] == forward["understanding_encoder"]
    tower = flops.count(FULL, (), asked, {"understanding_encoder": 1000})
    assert tower["transformer"] == 2 * forward["transformer"]
    assert tower["understanding_adaptor"] == 2 * forward["understanding_adaptor"]


def test_the_released_sizes_cost_what_their_papers_shapes_say():
    """SigLIP-L at 384: 24 layers of 12.6 M weights over 576 tokens, and attention. VQ-16: its
    convolutions."""
    one = flops.count(FULL, (), work(understanding_images=1, generation_images=1))
    assert one["understanding_encoder"] == pytest.approx(381e9, rel=0.01)
    assert one["generation_encoder"] == pytest.approx(313e9, rel=0.01)
    t = 4096
    text = flops.count(FULL, sizes.CHILDREN, work(tokens=t, pairs=t * (t + 1) / 2, text=t))
    assert sum(text.values()) / t == pytest.approx(9.87e9, rel=0.005)
    assert text["transformer"] / t == pytest.approx(7.40e9, rel=0.005)


def test_frozen_parts_cost_no_weight_gradients_and_nothing_below_costs_no_backward():
    w = work(tokens=100, pairs=1000, text=50, image=50, understanding_images=2, generation_images=2)
    forward = flops.count(FULL, (), w)
    ratio = lambda trainable: {
        k: x / forward[k] for k, x in flops.count(FULL, trainable, w).items()
    }
    head = ratio(("text_head",))
    assert head["text_head"] == 2 and all(x == 1 for k, x in head.items() if k != "text_head")
    stage1 = ratio(
        ("understanding_adaptor", "generation_adaptor", "generation_embedding", "image_head")
    )
    assert stage1["transformer"] == 2 and stage1["attention"] == 3 and stage1["text_head"] == 2
    assert stage1["understanding_encoder"] == 1 and stage1["generation_encoder"] == 1
    assert stage1["image_head"] == 3 and stage1["generation_adaptor"] == 3
    assert 2 < stage1["understanding_adaptor"] < 3
    assert 2.99 < ratio(("understanding_encoder",))["understanding_encoder"] < 3


def test_the_vq_encoder_costs_what_xla_counts(one_device):
    """With heights and widths of 96 the borders' zeros, which XLA leaves out, are few."""
    vq = sizes.GenerationEncoderConfig(
        image_size=96,
        channels=16,
        multipliers=(1, 2, 2),
        res_blocks=2,
        z_channels=16,
        norm_groups=4,
        codebook_size=64,
    )
    model = jax.eval_shape(lambda: GenerationEncoder(vq, nnx.Rngs(0)))
    pixels = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
    counted = jax.jit(lambda m, x: m.encode(x)).lower(model, pixels).cost_analysis()["flops"]
    assert flops.vq_encode(vq) == pytest.approx(counted, rel=0.08)


def test_the_work_of_a_batch_is_counted_from_its_arrays():
    batch = tiny.rows(4)
    found = flops.of_batch(batch, tiny.CONFIG)
    real = batch["segment_ids"] > 0
    pairs = sum(
        n * (n + 1) / 2
        for row in batch["segment_ids"]
        for n in np.unique(row[row > 0], return_counts=True)[1]
    )
    assert found == flops.Work(
        real.sum(),
        pairs,
        (batch["text_targets"] >= 0).sum(),
        4 * tiny.CONFIG.generation_encoder.tokens,
        4,
        4,
    )
    del batch["generation_images"]
    batch["image_ids"] = np.zeros((4, 2, tiny.CONFIG.generation_encoder.tokens), np.int32)
    assert flops.of_batch(batch, tiny.CONFIG).generation_images == 0


def test_the_expected_work_fills_the_rows_at_the_ratio():
    stage = Stage(Rows(104, 4096, 3, 4), Ratio(2, 3, 5))
    w, n = flops.expected(stage, FULL), flops.examples(stage, FULL)
    assert w.tokens == 104 * 4096 and n["text"] == pytest.approx(1.5 * n["understanding"])
    assert w.tokens == pytest.approx(
        n["understanding"] * 686 + n["text"] * 1000 + n["generation"] * 616
    )
    assert (
        w.image == pytest.approx(n["generation"] * 576) and w.generation_images == n["generation"]
    )
    assert flops.expected(stage, FULL, precomputed=True) == dataclasses.replace(
        w, generation_images=0.0
    )
    answers = flops.expected(dataclasses.replace(stage, supervise="answers"), FULL)
    assert answers.text == w.text * flops.ANSWER_SHARE and answers.image == w.image
