"""LPIPS against torch, and the files that its weights come in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from support import perceptual as theirs

from janus_jax.model import sharding as sh
from janus_jax.training import perceptual
from janus_jax.weights.table import WeightsError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """torchvision's file and the heads, as one word."""
    folder = tmp_path_factory.mktemp("lpips")
    classifier = {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}
    torch.save(theirs.vgg() | classifier, folder / "vgg16.pth")
    torch.save(theirs.heads(), folder / "heads.pth")
    return f"{folder}/vgg16.pth,{folder}/heads.pth"


@pytest.fixture(scope="module")
def params(files):
    return perceptual.read_lpips(files)


@pytest.fixture(scope="module")
def pictures():
    """Eight pairs whose sides no pool but the last divides without a rest."""
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, (8, 24, 24, 3)).astype(np.float32) for _ in range(2)]


@jax.jit
def both(params, x, y):
    """The measures, and the slope of their weighted sum by y."""
    weighted = lambda y: (lambda d: ((d * jnp.arange(1.0, 9.0)).sum(), d))(
        perceptual.lpips(params, x, y)
    )
    slope, apart = jax.grad(weighted, has_aux=True)(y)
    return apart, slope


def test_values_and_gradients_are_torchs(params, pictures):
    x, y = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in pictures)
    y.requires_grad_()
    want = theirs.distance(theirs.vgg() | theirs.heads(), x, y)
    (want * torch.arange(1.0, 9.0)).sum().backward()
    slope = y.grad.permute(0, 2, 3, 1).numpy()
    assert want.min() > 0.1 and np.abs(slope).max() > 1e-4
    got = both(params, *pictures)
    assert np.abs(got[0] - want.detach().numpy()).max() < 1e-5
    assert np.abs(got[1] - slope).max() < 1e-5 * np.abs(slope).max()


def test_equal_pictures_are_0_apart_and_a_position_without_features_has_a_slope(params, pictures):
    x, y = pictures
    assert np.array_equal(both(params, x, x)[0], np.zeros(8))
    dark = {k: v * 0 - 1 if k.endswith("bias") else v * 0 for k, v in params.items()}
    assert np.array_equal(both(dark, x, y)[1], np.zeros_like(x))


def test_pictures_that_vgg_halves_to_nothing_are_refused(params):
    x = np.zeros((2, 16, 15, 3))
    with pytest.raises(ValueError, match=r"16 x 15 pixels.*at least 16 x 16"):
        perceptual.lpips(params, x, x)


def test_a_batch_over_a_mesh_gives_the_same(params, pictures):
    want = both(params, *pictures)
    with sh.mesh_context(sh.make_mesh(2, 4, 1, jax.devices()[:8])):
        mesh = jax.sharding.get_mesh()
        whole = jax.device_put(params, jax.NamedSharding(mesh, sh.REPLICATED))
        split = jax.device_put(pictures, jax.NamedSharding(mesh, sh.BATCH))
        got = both(whole, *split)
        assert got[1].sharding.spec[0] == sh.BATCH[0]
    assert np.abs(np.asarray(got[0]) - want[0]).max() < 1e-6
    assert np.abs(np.asarray(got[1]) - want[1]).max() < 1e-6 * np.abs(want[1]).max()


def test_each_layout_gives_the_same_weights(tmp_path, files, params):
    torch.save(theirs.whole(theirs.vgg(), theirs.heads()), tmp_path / "package.pth")
    lins = {name.replace(".1.", ".0."): x for name, x in theirs.heads().items()}
    torch.save(theirs.vgg() | lins, tmp_path / "one.bin")
    first, second = files.split(",")
    for word in (tmp_path / "package.pth", tmp_path / "one.bin", f"{second}, {first}"):
        read = perceptual.read_lpips(word)
        assert read.keys() == params.keys() and len(read) == 31
        assert all(np.array_equal(read[name], params[name]) for name in params)


def without(weights: dict, *names: str) -> dict:
    return {name: x for name, x in weights.items() if name not in names}


V, H = theirs.vgg(), theirs.heads()
BAD = {
    "heads alone": (H, r"26.*not VGG16|lacks features.0.weight"),
    "no heads": (V, r"lacks lin0\n  lacks lin1[^$]*bring torchvision's vgg16-397923af.pth"),
    "another network": (V | H | {"features.1.weight": torch.zeros(4)}, r"too much: features.1.weight \(4,\)"),
    "squeezenet's heads": (V | theirs.heads((4, 6, 8, 10, 12, 12)), r"too much: lin5"),
    "alexnet's heads": (V | theirs.heads((4, 7, 8, 10, 12)), r"lin1 is \(1, 7, 1, 1\), and \(1, 6, 1, 1\) is due"),
    "one layer gone": (without(V, "features.28.bias") | H, r"lacks features.28.bias"),
    "nan": (V | H | {"features.5.bias": torch.full((6,), torch.nan)}, r"5.bias is float32, or holds NaN"),
    "of SSD": (V | H | {"classifier.0.bias": torch.full((6,), torch.nan)}, r"vgg16_features-amdegroot"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_other_weights_are_refused_by_name(tmp_path, name):
    weights, says = BAD[name]
    torch.save(weights, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match=f"bad.pth[^$]*{says}"):
        perceptual.read_lpips(tmp_path / "bad.pth")


def test_files_that_are_not_there_are_none_or_overlap_are_named(tmp_path, files):
    (tmp_path / "page.pth").write_text("<!doctype html>")
    for word, says in (
        (f"{files},{tmp_path}/no.pth", "no.pth: no such file; bring"),
        (f"{tmp_path}/page.pth", "page.pth: this is a web page"),
        (f"{files},{files.split(',')[1]}", "twice: lin0, the second time in .*heads.pth"),
        (f"{files},$NOT_SET/a", "the variable NOT_SET is not set"),
    ):
        with pytest.raises(WeightsError, match=says):
            perceptual.read_lpips(word)
