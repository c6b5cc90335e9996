"""Understanding encoders other than SigLIP: what their fields add, and that SigLIP stays as it is.
Parity with other programs is tested by layout (tests/weights/layouts)."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx
from support import vision
from support.mesh import on_mesh

from janus_jax.config import sizes
from janus_jax.model import vit
from janus_jax.model.keys import Keys
from janus_jax.model.understanding_encoder import UnderstandingEncoder, encoder
from janus_jax.weights import encoders
from janus_jax.weights.reader import flatten

ALL = (
    "class_token", "pre_norm", "no_patch_bias", "no_key_bias", "qk_norm", "layer_scale", "rms_norm",
    "sub_norm",
)  # fmt: skip
RICH = {"activation": "swiglu", "rotary_grid": 2, "variant": ALL, "feature_layer": -2}


def moved(module, seed: int = 1):
    """Every parameter another than it begins with, so that none goes unseen."""
    leaves, tree = jax.tree.flatten(module)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noise = lambda x, key: x + 0.1 * jax.random.normal(key, x.shape, x.dtype)
    return jax.tree.unflatten(
        tree, [jax.device_put(noise(x, k), x.sharding) for x, k in zip(leaves, keys)]
    )


def test_siglips_encoder_is_its_own_class_and_the_vit_with_its_fields_has_its_bits(one_device):
    config = vision.config()
    how = config.understanding_encoder, "float32", "none", "plain"
    siglip = moved(encoder(*how, Keys(jax.random.key(0))))
    assert type(siglip) is UnderstandingEncoder
    other = vit.ViT(*how, Keys(jax.random.key(0)))
    state = nnx.to_pure_dict(nnx.state(siglip))
    assert jax.tree.map(np.shape, nnx.to_pure_dict(nnx.state(other))) == jax.tree.map(
        np.shape, state
    )
    other = nnx.merge(nnx.graphdef(other), state)
    images = vision.images()
    want = vision.features(siglip, images)
    assert want.tobytes() == vision.features(other, images).tobytes()


@pytest.mark.parametrize(
    "differences",
    [
        {"activation": "gelu_tanh"},
        {"activation": "quick_gelu"},
        {"norm_eps": 1e-3},
        {"pixels": "clip"},
        {"pixels": "imagenet"},
        {"rotary_grid": 2},
        {"feature_layer": -2},
        {"variant": ("rms_norm",)},
    ],
    ids=lambda given: next(iter(given)),
)
def test_a_field_that_adds_no_leaf_changes_what_is_computed(differences, one_device):
    images = vision.images()
    siglip = moved(vision.built(vision.config()))
    state = flatten(nnx.to_pure_dict(nnx.state(siglip)))
    other = vision.built(vision.config(**differences))
    put = lambda path, x: state[".".join(str(k.key) for k in path)][tuple(map(slice, x.shape))]
    own = jax.tree.map_with_path(put, nnx.to_pure_dict(nnx.state(other)))
    other = nnx.merge(nnx.graphdef(other), own)
    got, want = (vision.features(m, images) for m in (other, siglip))
    assert got.shape == want.shape
    assert np.abs(got - want).max() > 1e-4


@pytest.mark.parametrize("differences", [RICH, {"variant": sizes.VARIANTS}])
def test_every_leaf_counts_in_the_features(differences, one_device):
    """But a key's bias, which moves all of a query's scores alike where nothing turns it."""
    module = moved(vision.built(vision.config(**differences)))
    graphdef, state = nnx.split(module)
    images = vision.images()

    def loss(state):
        x = nnx.merge(graphdef, state)(jax.device_put(images, jax.P(("data", "fsdp"))))
        return (x**3).sum()

    grads = flatten(nnx.to_pure_dict(jax.jit(jax.grad(loss))(state)))
    silent = [name for name, g in grads.items() if not np.abs(np.asarray(g)).max() > 1e-6]
    assert not [name for name in silent if not name.endswith("k.bias")]


def noise(shape):
    return 0.5 * np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@functools.cache
def features_on(mesh: tuple):
    """Those of a rich encoder of numpy's numbers, which compile nothing."""
    with on_mesh(*mesh):
        abstract = jax.eval_shape(lambda: vision.built(vision.config(**RICH)))
        put = lambda x: jax.device_put(noise(x.shape), x.sharding)
        own = jax.tree.map(put, vision.shapes(abstract))
        return vision.features(nnx.merge(nnx.graphdef(abstract), own), vision.images(4))


@pytest.mark.parametrize("mesh", [(1, 1, 2), (1, 2, 1), (2, 1, 2)])
def test_features_are_the_same_on_many_devices(mesh):
    one, other = features_on((1, 1, 1)), features_on(mesh)
    assert np.abs(one).max() > 0.1
    assert np.abs(one - other).max() < 1e-4 * np.abs(one).max()


@pytest.mark.parametrize(
    "differences",
    [{}, RICH, {"variant": sizes.VARIANTS}, {"variant": ("no_key_bias",), "layers": 2}],
)
def test_our_table_has_the_leaves_of_the_module(differences, one_device):
    config = vision.config(**differences)
    module = jax.eval_shape(lambda: vision.built(config))
    leaves = flatten({encoders.ENCODER: nnx.to_pure_dict(nnx.state(module))})
    assert encoders.own_shapes(config.understanding_encoder) == {
        k: x.shape for k, x in leaves.items()
    }


def test_the_words_of_the_config_are_those_that_the_encoder_knows():
    assert set(sizes.ACTIVATIONS) == set(vit.ACTIVATIONS)
    assert set(sizes.PIXELS) == set(vit.PIXELS)
    described = vit.__doc__
    assert not [word for word in sizes.VARIANTS if f"\n    {word} " not in described]


def test_pictures_of_another_size_are_refused(one_device):
    module = vision.built(vision.config(**RICH))
    with pytest.raises(ValueError, match=r"\[B, 24, 24, 3\]"):
        module(vision.images()[:, :18])


def test_the_encoders_layers_end_where_its_features_are_taken():
    config = vision.config(feature_layer=-2).understanding_encoder
    assert config.depth == 2
    assert dataclasses.replace(config, feature_layer=-3).depth == 1
