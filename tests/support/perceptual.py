"""LPIPS over VGG16 in torch, with as many channels as one likes, by torchvision's and LPIPS's
names."""

import torch
import torch.nn.functional as F

WIDTHS = (4, 6, 8, 10, 12)  # of the five resolutions
CONVS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
SHIFT = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
SCALE = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)


def vgg(widths=WIDTHS, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator) - 0.5
    out = {}
    into = 3
    for width, places in zip(widths, CONVS):
        for i in places:
            out[f"features.{i}.weight"] = rand(width, into, 3, 3) * (24 / (9 * into)) ** 0.5
            out[f"features.{i}.bias"] = rand(width) * 0.2
            into = width
    return out


def heads(widths=WIDTHS, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rand = lambda n: torch.rand(1, n, 1, 1, generator=generator)
    return {f"lin{k}.model.1.weight": rand(n) for k, n in enumerate(widths)}


def whole(convolutions: dict, lins: dict) -> dict[str, torch.Tensor]:
    """The state dict of the lpips package's module."""
    slices = {i: k + 1 for k, places in enumerate(CONVS) for i in places}
    out = {"scaling_layer.shift": SHIFT[None], "scaling_layer.scale": SCALE[None]}
    for name, x in convolutions.items():
        place = name.removeprefix("features.")
        out[f"net.slice{slices[int(place.split('.')[0])]}.{place}"] = x
    out |= lins
    return out | {f"lins.{name[3]}{name[4:]}": x for name, x in lins.items()}


def distance(weights: dict, x, y):
    """x, y: [B, 3, H, W] in [-1, 1] -> [B]. weights: of `vgg` and `heads` together."""
    total = 0
    a = (x - SHIFT) / SCALE
    b = (y - SHIFT) / SCALE
    for k, places in enumerate(CONVS):
        if k:
            a = F.max_pool2d(a, 2, 2)
            b = F.max_pool2d(b, 2, 2)
        for i in places:
            conv = weights[f"features.{i}.weight"], weights[f"features.{i}.bias"]
            a = F.relu(F.conv2d(a, *conv, padding=1))
            b = F.relu(F.conv2d(b, *conv, padding=1))
        unit = lambda f: f / (f.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
        apart = F.conv2d((unit(a) - unit(b)) ** 2, weights[f"lin{k}.model.1.weight"])
        total = total + apart.mean((1, 2, 3))
    return total
