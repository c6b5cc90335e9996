"""How near a picture is to its original, by numbers of the pixels: PSNR and SSIM."""

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.model.kernels import einsum

# Windows along one axis. SSIM's own (Wang et al. 2004): a Gaussian of deviation 1.5 over 11 pixels.
GAUSSIAN = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
GAUSSIAN /= GAUSSIAN.sum()
UNIFORM = np.full(7, 1 / 7)  # scikit-image's default


def psnr(x, y) -> jax.Array:
    """Peak signal-to-noise ratio in dB, float32 [B]. Of equal pictures it is as if one value were
    off by one level, since infinity has no mean.

    x, y: uint8 [B, H, W, C].
    """
    apart = (x.astype(jnp.float32) - y.astype(jnp.float32)) ** 2
    least = 1 / np.prod(x.shape[1:])
    return 10 * jnp.log10(255.0**2 / jnp.maximum(apart.mean((1, 2, 3)), least))


def ssim(x, y, window=GAUSSIAN, span: float = 1.0, sample: bool = False) -> jax.Array:
    """Structural similarity, float32 [B]: the mean over all places of the window and all channels.

    Args:
        x, y: uint8 [B, H, W, C]; a side has as many pixels as the window at least.
        window: the weights along each axis.
        span: of the values, which scales the two constants; 1 is what pictures in [0, 1] have.
        sample: divide variances by one less than the pixels of a window.
    """
    # A constant taken off changes no variance, and float32 keeps more of what is left.
    x, y = (a.astype(jnp.float32) / 255 - 0.5 for a in (x, y))
    mean = _slider(x.shape[1:3], window)
    a = mean(x)
    b = mean(y)
    n = len(window) ** 2
    scale = n / (n - 1) if sample else 1.0
    spread = scale * (mean(x * x) - a * a + mean(y * y) - b * b)
    common = scale * (mean(x * y) - a * b)
    a = a + 0.5
    b = b + 0.5
    c1 = (0.01 * span) ** 2
    c2 = (0.03 * span) ** 2
    s = (2 * a * b + c1) * (2 * common + c2) / ((a * a + b * b + c1) * (spread + c2))
    return s.mean((1, 2, 3))


def llamagen_ssim(x, y) -> jax.Array:
    """SSIM as LlamaGen's script computes it (FoundationVision/LlamaGen ce98ec4,
    reconstruction_vq_ddp.py): scikit-image's default window and a span of 2 for pictures in [0, 1],
    which makes it higher."""
    return ssim(x, y, UNIFORM, 2.0, sample=True)


def _slider(sides: tuple[int, int], window):
    """The weighted mean of every whole window: [B, H, W, C] -> [B, H', W', C]."""
    rows, columns = (
        jnp.asarray([np.pad(window, (i, n - len(window) - i)) for i in range(n - len(window) + 1)], jnp.float32)
        for n in sides
    )  # fmt: skip
    return lambda x: einsum("jw,bhwc->bhjc", columns, einsum("ih,bhwc->biwc", rows, x))
