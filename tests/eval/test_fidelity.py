"""PSNR and SSIM against scikit-image, and as LlamaGen's script calls it."""

import jax
import numpy as np
import pytest
from skimage import metrics

from janus_jax.eval.fidelity import llamagen_ssim, psnr, ssim


@pytest.fixture(scope="module")
def pairs():
    """Smooth pictures, which are not square, and what is made of them: noise of several strengths,
    another contrast, a constant; and a flat picture, whose variances are rounding alone."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:24, 0:32]
    waves = [
        np.sin(rows / (3 + i) + i) * np.cos(columns / (4 + c)) for i in range(6) for c in range(3)
    ]
    x = 128 + 90 * np.stack(waves).reshape(6, 3, 24, 32).transpose(0, 2, 3, 1)
    x[5] = 200
    y = x + rng.normal(0, 1, x.shape) * np.array([1, 5, 20, 60, 0, 0.5])[:, None, None, None]
    y[4] = 0.5 * x[4] + 30
    return [np.clip(a, 0, 255).astype(np.uint8) for a in (x, y)]


@pytest.fixture(scope="module")
def measured():
    """All measures, compiled once."""
    return jax.jit(lambda x, y: {of.__name__: of(x, y) for of in (psnr, ssim, llamagen_ssim)})


def far(a, b) -> float:
    return np.abs(np.asarray(a) - np.asarray(b)).max()


def test_psnr_is_scikit_images(pairs, measured):
    want = [metrics.peak_signal_noise_ratio(x, y) for x, y in zip(*pairs)]
    assert np.ptp(want) > 20 and far(measured(*pairs)["psnr"], want) < 1e-4


def test_equal_pictures_have_the_psnr_of_one_value_off_by_one(pairs, measured):
    x = pairs[0]
    other = x.copy()
    other[:, 3, 4, 1] ^= 1
    same = measured(x, x)
    assert np.isfinite(same["psnr"]).all() and far(same["ssim"], 1) < 1e-6
    assert np.array_equal(same["psnr"], measured(x, other)["psnr"])


def test_ssim_is_scikit_images_with_gaussian_weights(pairs, measured):
    options = {"gaussian_weights": True, "use_sample_covariance": False, "channel_axis": -1}
    want = [metrics.structural_similarity(x, y, **options) for x, y in zip(*pairs)]
    assert np.ptp(want) > 0.3 and far(measured(*pairs)["ssim"], want) < 1e-5


def test_llamagens_figures_are_those_of_its_script(pairs, measured):
    """Its lines: originals come as float32 in [-1, 1], reconstructions as uint8, both are taken to
    [0, 1], and SSIM is told a range of 2."""
    tensor = pairs[0].astype(np.float32) / 255 * 2 - 1
    originals = (tensor + 1.0) / 2.0
    restored = pairs[1].astype(np.float32) / 255.0
    both = list(zip(restored, originals))
    similar = [
        metrics.structural_similarity(y, x, data_range=2.0, channel_axis=-1) for y, x in both
    ]
    found = measured(*pairs)
    assert far(found["llamagen_ssim"], similar) < 1e-5
    assert far(found["llamagen_ssim"], found["ssim"]) > 0.01
    peak = [metrics.peak_signal_noise_ratio(y, x) for y, x in both]
    assert far(found["psnr"], peak) < 1e-3
