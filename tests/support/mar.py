"""MAR's diffusion loss and its sampling (LTH14/mar, models/diffloss.py, and the Gaussian diffusion that it
takes from DiT) written down again in torch: what the diffusion head's numbers are compared with. The
variances, which MAR's network predicts too, are the posterior's."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn.functional import layer_norm, linear, silu


def betas(steps: int = 1000) -> np.ndarray:
    """The cosine schedule, float64."""
    bar = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.array([min(1 - bar((i + 1) / steps) / bar(i / steps), 0.999) for i in range(steps)])


class Head(nn.Module):
    """Of the leaves of ours, as numpy by path."""

    def __init__(self, leaves: dict):
        super().__init__()
        self.leaves = {
            k: torch.tensor(np.asarray(x), requires_grad=True) for k, x in leaves.items()
        }
        self.blocks = 1 + max(int(k.split(".")[1]) for k in leaves if k.startswith("res."))

    def map(self, name, x):
        return linear(x, self.leaves[f"{name}.kernel"].T, self.leaves[f"{name}.bias"])

    def forward(self, x, t, c):  # [N, C], [N], [N, D] -> [N, C]
        half = 128
        freqs = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        args = t[:, None].float() * freqs[None]
        t = self.map("step1", torch.cat([torch.cos(args), torch.sin(args)], -1))
        y = silu(self.map("step2", silu(t)) + self.map("condition_in", c))
        x = self.map("latent_in", x)
        for i in range(self.blocks):
            at = f"res.{i}"
            shift, scale, gate = self.map(f"{at}.modulation", y).chunk(3, -1)
            own = self.leaves[f"{at}.scale"], self.leaves[f"{at}.bias"]
            h = layer_norm(x, x.shape[-1:], *own, eps=1e-6) * (1 + scale) + shift
            x = x + gate * self.map(f"{at}.fc2", silu(self.map(f"{at}.fc1", h)))
        shift, scale = self.map("modulation", y).chunk(2, -1)
        return self.map("latent_out", layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)


def loss(head: Head, latents, c, t, noise):
    """Of each latent, [N]: [N, C], [N, D], [N], [N, C]."""
    kept = torch.tensor(np.cumprod(1 - betas()))[t][:, None].float()
    x = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    return ((head(x, t, c) - noise) ** 2).mean(-1)


def space(count: int, steps: int = 1000) -> list[int]:
    """Which steps are taken, as `space_timesteps(steps, [count])` says."""
    stride = (steps - 1) / (count - 1)
    return [round(i * stride) for i in range(count)]


@torch.no_grad()
def sample(head: Head, hidden, other, scale: float, temperature: float, noises: list):
    """A latent for each row [R, C] under guidance of the noise; hidden, other: [R, D], of the prompt and
    without it. noises: the first, then that of each step in turn."""
    taken = space(len(noises) - 1)
    all_kept = np.cumprod(1 - betas())
    new, last = [], 1.0
    for i in taken:
        new.append(1 - all_kept[i] / last)
        last = all_kept[i]
    new = np.array(new)
    kept = np.cumprod(1 - new)
    before = np.append(1.0, kept[:-1])
    x = noises[0].double()
    for i in reversed(range(len(taken))):
        t = torch.full((len(x),), taken[i])
        eps, plain = (head(x.float(), t, c).double() for c in (hidden, other))
        eps = plain + scale * (eps - plain)
        start = np.sqrt(1 / kept[i]) * x - np.sqrt(1 / kept[i] - 1) * eps
        first = new[i] * np.sqrt(before[i]) / (1 - kept[i])
        second = (1 - before[i]) * np.sqrt(1 - new[i]) / (1 - kept[i])
        variance = new[i] * (1 - before[i]) / (1 - kept[i])
        x = first * start + second * x + np.sqrt(variance) * noises[len(taken) - i] * temperature
    return x.float()
