"""Further senses (paper section 3.5): what points become, and what the model reads of each sense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import modules, paths, sensing, tiny
from support.mesh import on_mesh
from support.sensing import signals  # noqa: F401

from janus_jax.model import batch as bt
from janus_jax.model import config as sizes
from janus_jax.model.senses import known, wiring
from janus_jax.model.senses.points.encoder import Encoder, furthest, grouped
from janus_jax.training.init import random_children


def clouds(count: int, points: int = 64) -> np.ndarray:
    return np.stack([sensing.cloud(i, points) for i in range(count)])


def groups_by_hand(cloud, groups: int, neighbours: int):
    """numpy's, one point after the other: (indices of the centres, groups [G, K, X])."""
    places = cloud[:, :3].astype(np.float64)
    chosen = [int(np.linalg.norm(places - places.mean(0), axis=1).argmax())]
    while len(chosen) < groups:
        gaps = [np.linalg.norm(places - places[at], axis=1) for at in chosen]
        chosen.append(int(np.min(gaps, axis=0).argmax()))
    found = []
    for at in chosen:
        order = np.argsort(np.linalg.norm(places - places[at], axis=1), kind="stable")
        group = cloud[order[:neighbours]].copy()
        group[:, :3] -= cloud[at, :3]
        found.append(group)
    return chosen, np.stack(found)


@pytest.mark.parametrize("channels", [3, 6])
def test_centres_and_groups_are_those_of_a_loop_in_numpy(channels):
    given = np.stack([sensing.cloud(seed, 100, channels) for seed in (1, 2)])
    groups, centres = grouped(jnp.asarray(given), 12, 9)
    chosen = np.asarray(furthest(jnp.asarray(given[..., :3]), 12))
    for k, cloud in enumerate(given):
        indices, wanted = groups_by_hand(cloud, 12, 9)
        assert chosen[k].tolist() == indices
        np.testing.assert_array_equal(centres[k], cloud[indices, :3])
        np.testing.assert_array_equal(groups[k], wanted)


def test_the_order_of_the_points_does_not_matter_and_their_places_do(one_device):
    model = tiny.make_model(sensing.CONFIG)
    given = clouds(2)
    order = np.random.default_rng(7).permutation(given.shape[1])
    encode = jax.jit(lambda encoder, x: encoder(x))
    plain, mixed, moved = (
        np.asarray(encode(model.points_encoder, jnp.asarray(x)))
        for x in (given, given[:, order], given[:, :, ::-1].copy())
    )
    assert plain.shape == (2, 8, 32)
    np.testing.assert_allclose(mixed, plain, atol=1e-5)
    assert np.abs(moved - plain).max() > 0.1


def test_a_model_has_two_children_a_sense_and_the_others_are_as_without(signals, one_device):  # noqa: F811
    own = ("points_encoder", "points_adaptor", "signal_encoder", "signal_adaptor")
    assert sensing.BOTH.children == (*tiny.CONFIG.children, *own)
    model = tiny.make_model(sensing.BOTH)
    assert isinstance(model.points_encoder, Encoder)
    shapes = {name: x.shape for name, x in tiny.numbers(model_leaves(model)).items()}
    assert wiring.leaf_shapes(sensing.BOTH) == shapes
    some = ("text_head", "understanding_adaptor")
    with_senses, without = (
        random_children(jax.random.key(3), config, some) for config in (sensing.BOTH, tiny.CONFIG)
    )
    tiny.same_bits(with_senses, without)


def model_leaves(model) -> dict:
    from flax import nnx

    params = nnx.to_pure_dict(nnx.state(model))
    return {child: params[child] for child in params if child.startswith(("points", "signal"))}


@pytest.mark.slow
def test_slots_read_their_own_sense_alike_on_a_mesh_of_all_axes(signals):  # noqa: F811
    both = [("points", sensing.cloud(1)), ("signal", np.arange(64)), ("points", sensing.cloud(2))]
    batch = sensing.batch(sensing.BOTH, sensing.record(*both), sensing.record(*both[1:]))
    found = {}
    for mesh in ((1, 1, 1), (2, 2, 2)):
        with on_mesh(*mesh):
            model = tiny.make_model(sensing.BOTH)
            value = jax.jit(jax.value_and_grad(read))(model, tiny.put(batch))
            found[mesh] = tiny.numbers(value)
    one, other = found.values()
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=2e-4, atol=2e-5, err_msg=name)
    moved = [name for name, x in one.items() if np.abs(x).max() > 0 and "_adaptor" in name]
    assert any("points" in name for name in moved) and any("signal" in name for name in moved)


def read(model, batch):
    """A number that hangs on all that slots read."""
    ids = jnp.zeros((len(batch["tokens"]), 0), jnp.int32)
    return jnp.square(model.embed(batch, ids)).mean()


def test_what_stands_in_a_slot_is_the_adapted_feature_of_its_place(signals, one_device):  # noqa: F811
    batch = sensing.batch(sensing.BOTH, sensing.record(("signal", np.arange(64) / 64)))
    model = tiny.make_model(sensing.BOTH)
    embed = jax.jit(lambda model, batch: model.embed(batch, jnp.zeros((8, 0), jnp.int32)))
    x = np.asarray(embed(model, tiny.put(batch)))
    wanted = model.signal_adaptor(model.signal_encoder(jnp.asarray(batch["signal"][0, :1])))[0]
    places = np.flatnonzero(batch["signal_slots"][0])[:8]
    np.testing.assert_allclose(x[0, places], wanted, atol=1e-6)
    words = np.asarray(model.text_embedding(jnp.asarray(batch["tokens"])))
    elsewhere = batch["signal_slots"][0] == 0
    np.testing.assert_array_equal(x[0][elsewhere], words[0][elsewhere])


def test_without_senses_nothing_is_written_of_them_and_nothing_of_them_is_reached():
    assert "senses" not in sizes.to_dict(tiny.CONFIG)
    assert sizes.to_dict(sensing.CONFIG)["senses"] == {"points": sensing.POINTS}
    assert not [name for name in bt.shapes(2, 96, 1, 1, tiny.CONFIG) if "points" in name]
    package = modules.Package(paths.ROOT / "janus_jax")
    reached = package.reached("training.step", "training.init", "training.loop", "data.row_stream")
    assert not [name for name in reached if "senses" in name]


def test_roles_go_by_name_whatever_the_order_in_the_config(signals):  # noqa: F811
    turned = tiny.small(senses={"signal": {}, "points": sensing.POINTS})
    assert turned == sensing.BOTH and hash(turned) == hash(sensing.BOTH)
    assert known.roles(turned) == bt.SLOTS | {"points": 3, "signal": 4}
    assert list(known.sizes(turned)) == ["points", "signal"]
