"""The semantic branch of the paper's appendix A in PyTorch, written from its words: a causal ViT on
codes, a head, and the cosine to a teacher's features."""

import numpy as np
import torch
from torch.nn import functional as F


def tensors(tree: dict) -> dict:
    """Our arrays, by name, as float64 leaves that want gradients."""
    if isinstance(tree, dict):
        return {name: tensors(part) for name, part in tree.items()}
    return torch.tensor(np.asarray(tree, np.float64), requires_grad=True)


def gradients(tree: dict) -> dict:
    if isinstance(tree, dict):
        return {name: gradients(part) for name, part in tree.items()}
    return tree.grad.numpy()


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def norm(x, p):
    return F.layer_norm(x, x.shape[-1:], p["scale"], p["bias"], eps=1e-6)


def block(x, p, heads: int):
    """Each position attends to those before it and to itself, one head and query at a time."""
    b, n, d = x.shape
    size = d // heads
    h = norm(x, p["norm1"])
    q, k, v = (linear(h, p["attention"][name]).reshape(b, n, heads, size) for name in "qkv")
    rows = []
    for t in range(n):
        scores = (q[:, t, None] * k[:, : t + 1]).sum(-1) * size**-0.5  # [B, t + 1, H]
        rows.append((scores.softmax(1)[..., None] * v[:, : t + 1]).sum(1).reshape(b, d))
    x = x + linear(torch.stack(rows, 1), p["attention"]["o"])
    inner = F.gelu(linear(norm(x, p["norm2"]), p["mlp"]["fc1"]), approximate="none")
    return x + linear(inner, p["mlp"]["fc2"])


def features(codes, p: dict, heads: int):
    """codes [B, N, code_dim] -> [B, N, width]. p: a semantic decoder's arrays, layers stacked."""
    x = codes @ p["code_kernel"] + p["code_bias"] + p["positions"]
    for i in range(len(p["blocks"]["norm1"]["scale"])):
        x = block(x, at(p["blocks"], i), heads)
    return norm(x, p["norm"])


def at(tree: dict, i: int) -> dict:
    return {k: at(v, i) for k, v in tree.items()} if isinstance(tree, dict) else tree[i]


def loss(codes, decoder: dict, head: dict, taught, heads: int):
    """1 less the mean cosine. taught [B, N, C]: the teacher's features."""
    said = linear(features(codes, decoder, heads), head)
    return 1 - F.cosine_similarity(said, taught, dim=-1).mean()
