"""RQ-VAE's residual quantisation and RQ-Transformer's depth transformer (arXiv 2203.01941, sections 3.1 and
3.2) written down in torch from the paper: what tokens of several codes are compared with. The layers are
those of the language model (LLaMA's), without rotary embeddings."""

import numpy as np
import torch
from torch.nn.functional import linear, mse_loss, silu


def quantised(z, codebook, depth: int):
    """Vectors [N, C], codes [K, C] -> ids [N, d], and the partial sums [N, d, C]."""
    ids, sums = [], []
    total = torch.zeros_like(z)
    for _ in range(depth):
        found = torch.cdist(
            z - total, codebook, compute_mode="donot_use_mm_for_euclid_dist"
        ).argmin(1)
        total = total + codebook[found]
        ids.append(found)
        sums.append(total)
    return torch.stack(ids, 1), torch.stack(sums, 1)


def losses(z, codebook, depth: int):
    """(the codebook's, the commitment's): each partial sum against z, the mean over depth; in the first
    each code moves alone, those before it are constants."""
    ids, sums = quantised(z.detach(), codebook.detach(), depth)
    before = torch.cat([torch.zeros_like(z)[:, None], sums[:, :-1]], 1)
    own = [mse_loss(before[:, i] + codebook[ids[:, i]], z.detach()) for i in range(depth)]
    committed = [mse_loss(z, sums[:, i]) for i in range(depth)]
    return sum(own) / depth, sum(committed) / depth


class Head:
    """Of the leaves of ours, as numpy by path."""

    def __init__(self, leaves: dict, heads: int):
        self.leaves = {
            k: torch.tensor(np.asarray(x), requires_grad=True) for k, x in leaves.items()
        }
        self.blocks = 1 + max(int(k.split(".")[1]) for k in leaves if k.startswith("blocks."))
        self.heads = heads

    def map(self, name, x):
        return linear(x, self.leaves[f"{name}.kernel"].T, self.leaves.get(f"{name}.bias"))

    def norm(self, name, x):
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.leaves[f"{name}.scale"]

    def attention(self, at, x):  # one token's codes [d, W]
        q, k, v = (self.map(f"{at}.{n}", x).unflatten(-1, (self.heads, -1)) for n in "qkv")
        scores = torch.einsum("ihk,jhk->hij", q, k) / q.shape[-1] ** 0.5
        hidden = torch.ones(len(x), len(x)).triu(1).bool()
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        return self.map(f"{at}.o", torch.einsum("hij,jhk->ihk", weights, v).flatten(1))

    def logits(self, hidden, ids):
        """Of the codes 0 to n of one token, where n are known: [D], [n] -> [n + 1, K]."""
        x = [self.map("hidden_in", hidden)]
        total = 0
        for i in ids:
            total = total + self.leaves["codes.table"][i]
            x.append(self.map("codes_in", total))
        x = torch.stack(x) + self.leaves["positions"][: len(x)]
        for i in range(self.blocks):
            at = f"blocks.{i}"
            x = x + self.attention(f"{at}.attention", self.norm(f"{at}.norm1", x))
            h = self.norm(f"{at}.norm2", x)
            x = x + self.map(
                f"{at}.down", silu(self.map(f"{at}.gate", h)) * self.map(f"{at}.up", h)
            )
        return self.map("fc2", self.norm("norm", x))

    def loss(self, hidden, ids):
        """Nats a code of one token: [D], [d]."""
        logp = self.logits(hidden, ids[:-1]).log_softmax(-1)
        return -logp[torch.arange(len(ids)), ids].mean()

    @torch.no_grad()
    def likeliest(self, hidden, other, scale: float):
        """The codes of one token under guidance, each the likeliest: [D], [D] -> [d]."""
        ids = torch.zeros(0, dtype=torch.long)
        for _ in self.leaves["positions"]:
            a, b = (self.logits(h, ids)[-1] for h in (hidden, other))
            ids = torch.cat([ids, (b + scale * (a - b)).argmax()[None]])
        return ids
