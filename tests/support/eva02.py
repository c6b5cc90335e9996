"""EVA-02's CLIP image tower in PyTorch, from the papers (arXiv 2303.11331, section 2; 2303.15389) and the
names that timm's files have: an oracle for ours. Where timm is installed, it is itself held to timm's."""

import torch
from torch import nn
from torch.nn import functional as F


def turned(x, side: int, grid: int):
    """2-D rotary embeddings of patches x [B, H, N, K], theta 10000: neighbouring numbers of a head are
    a complex number; the first half of them turn with the row, the second with the column."""
    k = x.shape[-1]
    speeds = 10000.0 ** (-torch.arange(k // 4) / (k // 4))
    places = torch.arange(side) * grid / side
    row, column = torch.meshgrid(places, places, indexing="ij")
    angles = torch.cat([at.reshape(-1, 1) * speeds for at in (row, column)], 1)
    spun = torch.view_as_complex(x.reshape(*x.shape[:-1], k // 2, 2).contiguous())
    return torch.view_as_real(spun * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


class Attention(nn.Module):
    def __init__(self, c: int, heads: int):
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(c, c), nn.Linear(c, c)
        self.k_proj = nn.Linear(c, c, bias=False)
        self.norm = nn.LayerNorm(c, eps=1e-6)
        self.proj = nn.Linear(c, c)
        self.heads = heads

    def forward(self, x, side, grid):
        b, s, c = x.shape
        q, k, v = (
            p(x).reshape(b, s, self.heads, -1).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (torch.cat([y[:, :, :1], turned(y[:, :, 1:], side, grid)], 2) for y in (q, k))
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, s, c)
        return self.proj(self.norm(x))


class SwiGLU(nn.Module):
    def __init__(self, c: int, f: int):
        super().__init__()
        self.fc1_g, self.fc1_x, self.fc2 = nn.Linear(c, f), nn.Linear(c, f), nn.Linear(f, c)
        self.norm = nn.LayerNorm(f, eps=1e-6)

    def forward(self, x):
        return self.fc2(self.norm(F.silu(self.fc1_g(x)) * self.fc1_x(x)))


class Block(nn.Module):
    def __init__(self, c: int, f: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c, eps=1e-6), nn.LayerNorm(c, eps=1e-6)
        self.attn = Attention(c, heads)
        self.mlp = SwiGLU(c, f)

    def forward(self, x, side, grid):
        x = x + self.attn(self.norm1(x), side, grid)
        return x + self.mlp(self.norm2(x))


class Eva02(nn.Module):
    """grid: the side of the grid of patches whose places it learned."""

    def __init__(self, size: int, patch: int, c: int, f: int, layers: int, heads: int, grid: int):
        super().__init__()
        self.side = size // patch
        self.grid = grid
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, c, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.side**2 + 1, c))
        self.blocks = nn.ModuleList(Block(c, f, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(c, eps=1e-6)

    def forward(
        self, pixels
    ):  # [B, 3, H, W] -> (all layers' results, the normed last), [B, 1 + N, C]
        x = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        states = []
        for block in self.blocks:
            x = block(x, self.side, self.grid)
            states.append(x)
        return states, self.norm(x)
