"""Pictures to draw scale by scale: what a row says of them."""

import numpy as np
from support import tiny
from support.scales import CONFIG, SCALES, N, processor

from janus_jax.config.schema import Rows
from janus_jax.data import scales
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.packing import assemble
from janus_jax.model import batch as bt


def test_every_id_is_predicted_at_its_own_place_which_sees_its_scale_and_no_finer_one():
    encode = ExampleEncoder(processor(), CONFIG, Rows(1, 120, 2, 2), "all")
    source = tiny.sources()["generation"]
    some = [encode("generation", source[i], np.random.default_rng(i)) for i in range(2)]
    some.insert(1, tiny.example("understanding", 5, 60))
    row = scales.drawn_row(assemble(some, 240), CONFIG)
    role = np.concatenate([e["role"] for e in some])
    slots = np.flatnonzero(role == bt.GENERATION_SLOT)
    assert len(slots) == 2 * N
    for name in ("generation_slots", "image_targets"):
        assert row[name][slots].tolist() == [*range(1, 2 * N + 1)]
        assert not np.delete(row[name], slots).any()
    assert (bt.image_slots(row) == row["generation_slots"]).all()
    rest = [left for s in SCALES for left in range(s * s - 1, -1, -1)]
    assert row["ahead"][slots].tolist() == rest * 2 and row["ahead"].dtype == np.int32
    assert not np.delete(row["ahead"], slots).any()
    # As the attention kernels want it: no token sees less far than the one before it.
    assert (np.diff(np.arange(240) + row["ahead"]) >= 0).all()
