"""LlamaGen's tokenizer loss and its two discriminators in torch, written anew from its formulas, over
transformers' VQ network; and one iteration of its training, both optimisers."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from support import oracle, perceptual
from torch import nn


def leaky():
    return nn.LeakyReLU(0.2)


class PatchGan(nn.Module):
    def __init__(self, width: int, layers: int):
        super().__init__()
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        parts = [nn.Conv2d(3, width, 4, 2, 1), leaky()]
        for i in range(1, layers + 1):
            stride = 2 if i < layers else 1
            parts.append(nn.Conv2d(widths[i - 1], widths[i], 4, stride, 1, bias=False))
            parts += [nn.BatchNorm2d(widths[i]), leaky()]
        self.main = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(self, x):
        return self.main(x)


class Blur(nn.Module):
    def forward(self, x):
        line = torch.tensor([1.0, 2.0, 1.0])
        kernel = (line[:, None] * line / 16).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=x.shape[1])


class Block(nn.Module):
    def __init__(self, a: int, b: int):
        super().__init__()
        self.conv_res = nn.Conv2d(a, b, 1, 2)
        convs = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1)
        self.net = nn.Sequential(convs[0], leaky(), convs[1], leaky())
        self.downsample = nn.Sequential(Blur(), nn.Conv2d(b, b, 3, 2, 1))

    def forward(self, x):
        return (self.downsample(self.net(x)) + self.conv_res(x)) / math.sqrt(2)


class StyleGan(nn.Module):
    def __init__(self, side: int, width: int):
        super().__init__()
        widths = []
        while side >= 4:
            widths.append(width * min(8, 256 // side))
            side //= 2
        blocks = [Block(a, b) for a, b in zip(widths, widths[1:])]
        self.blocks = nn.ModuleList([nn.Conv2d(3, widths[0], 3, padding=1), leaky(), *blocks])
        wide = 8 * width
        self.final_conv = nn.Sequential(nn.Conv2d(widths[-1], wide, 3, padding=1), leaky())
        self.final_linear = nn.Sequential(nn.Linear(16 * wide, wide), leaky(), nn.Linear(wide, 1))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.final_linear(self.final_conv(x).flatten(1))


OURS = {"weight": "kernel", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def as_ours(name: str, x: torch.Tensor) -> tuple[str, np.ndarray]:
    """(our path, our array) of a tensor of a discriminator's state dict."""
    *path, last = name.split(".")
    path = ["body" if part == "blocks" else part for part in path]
    last = "scale" if last == "weight" and x.ndim == 1 else OURS[last]
    order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(x.ndim, (0,))
    return ".".join([*path, last]), x.detach().permute(order).numpy().copy()


def leaves_of(module: nn.Module) -> dict[str, np.ndarray]:
    """A discriminator's numbers by our paths."""
    named = module.state_dict().items()
    return dict(as_ours(name, x) for name, x in named if not name.endswith("tracked"))


def discriminator_loss(kind: str, real, fake):
    if kind == "hinge":
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    if kind == "vanilla":
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
    bce = F.binary_cross_entropy_with_logits
    return (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))) / 2


def generator_loss(kind: str, fake):
    if kind == "hinge":
        return -fake.mean()
    return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


class Tokenizer:
    """transformers' VQ network with LlamaGen's quantiser."""

    def __init__(self, config, seed: int = 0):
        self.config = config
        whole = oracle.their_model(config, seed)
        self.net = whole.model.vqmodel.requires_grad_(True)
        vision = {"model." + name: x for name, x in whole.model.state_dict().items()}
        self.names = {
            ours: (theirs, transform)
            for ours, theirs, transform in oracle.mapping(config)
            if ours.startswith("generation_encoder.") and theirs in vision
        }

    def parameters(self) -> list:
        named = dict(self.net.named_parameters())
        return [named[theirs.removeprefix("model.vqmodel.")] for theirs, _ in self.names.values()]

    def leaves(self) -> dict[str, np.ndarray]:
        """By our paths, without `generation_encoder`."""
        held = self.net.state_dict()
        return {
            ours.removeprefix("generation_encoder."): np.ascontiguousarray(
                transform(held[theirs.removeprefix("model.vqmodel.")].detach().numpy())
            )
            for ours, (theirs, transform) in self.names.items()
        }

    def paint(self, x, options: dict):
        """(the terms but those of the discriminator and LPIPS, the picture)."""
        z = F.normalize(self.net.quant_conv(self.net.encoder(x)).permute(0, 2, 3, 1), dim=-1)
        table = F.normalize(self.net.quantize.embedding.weight, dim=-1)
        affinity = 2 * z.detach() @ table.detach().T - 2
        codes = table[affinity.argmax(-1)]
        terms = {
            "codebook": ((codes - z.detach()) ** 2).mean(),
            "commitment": options["commitment"] * ((codes.detach() - z) ** 2).mean(),
        }
        if options["entropy"]:
            log = F.log_softmax((2 * z @ table.T).flatten(0, 2) / 0.01, -1)
            p = log.exp()
            mean = p.mean(0)
            entropy = -(p * log).sum(-1).mean() + (mean * (mean + 1e-5).log()).sum()
            terms["entropy"] = options["entropy"] * entropy
        straight = (z + (codes - z).detach()).permute(0, 3, 1, 2)
        image = self.net.decoder(self.net.post_quant_conv(straight))
        off = image - x
        near = off.abs() if options["reconstruction_loss"] == "l1" else off**2
        terms["reconstruction"] = near.mean()
        return terms, image


def generator_terms(tokenizer, discriminator, x, step: int, options: dict, lpips=None):
    """(the terms by our names, the picture). lpips: weights of `perceptual`, or None."""
    terms, image = tokenizer.paint(x, options)
    pictured = terms["reconstruction"]
    if lpips is not None:
        distance = perceptual.distance(lpips, x, image).mean()
        terms["perceptual"] = options["perceptual_weight"] * distance
        pictured = pictured + terms["perceptual"]
    judged = generator_loss(options["generator_loss"], discriminator(image))
    weight = options["discriminator_weight"] if step >= options["discriminator_start"] else 0.0
    if options["weighting"] == "adaptive":
        last = tokenizer.net.decoder.conv_out.weight
        force = [torch.autograd.grad(y, last, retain_graph=True)[0].norm() for y in (pictured, judged)]
        weight = weight * (force[0] / (force[1] + 1e-4)).clamp(0, 1e4).detach()
    terms["adversarial"] = weight * judged
    return terms, image


class Trained:
    """A run of LlamaGen's: two Adams of the same numbers, each clipped by itself."""

    def __init__(self, tokenizer, discriminator, options: dict, optim, lpips=None):
        self.tokenizer = tokenizer
        self.discriminator = discriminator.train()
        self.options = options
        self.lpips = lpips
        self.clip = optim.clip_norm
        how = dict(lr=optim.learning_rate, betas=(optim.b1, optim.b2), eps=optim.eps)
        self.players = [tokenizer.parameters(), list(discriminator.parameters())]
        self.optimisers = [torch.optim.Adam(player, **how) for player in self.players]
        self.ema = [p.detach().clone() for p in self.players[0]]

    def update(self, player: int, loss):
        self.optimisers[player].zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.players[player], self.clip)
        self.optimisers[player].step()

    def iterate(self, x, step: int) -> dict[str, float]:
        o = self.options
        terms, image = generator_terms(self.tokenizer, self.discriminator, x, step, o, self.lpips)
        self.update(0, sum(terms.values()))
        for old, p in zip(self.ema, self.players[0]):
            old.mul_(o["ema"]).add_(p.detach(), alpha=1 - o["ema"])
        real = self.discriminator(x)
        fake = self.discriminator(image.detach())
        loss = discriminator_loss(o["discriminator_loss"], real, fake)
        began = step >= o["discriminator_start"]
        self.update(1, loss * (o["discriminator_weight"] if began else 0.0))
        return {name: x.item() for name, x in terms.items()} | {"discriminator_loss": loss.item()}
