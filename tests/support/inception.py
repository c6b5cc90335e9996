"""FID's Inception-v3 with a sixteenth of its channels, in torch, and the two kinds of file that its
weights come in.

Written from the graph's description, with torch-fidelity's names: a block is a function that calls
convolutions by name, so that one list of shapes makes both files.
"""

import torch
import torch.nn.functional as F


class Network:
    """The network over a dict of tensors. Where `weights` is None, it makes them as they are asked
    for, so that shapes stand in one place."""

    def __init__(self, weights=None, seed: int = 0):
        self.weights = {} if weights is None else weights
        self.fresh = weights is None
        self.generator = torch.Generator().manual_seed(seed)

    def conv(self, name, x, out, size, stride=1, padding=0):
        if self.fresh:
            self._make(name, out // 16, x.shape[1], size)
        w = lambda leaf: self.weights[f"{name}.{leaf}"]
        x = F.conv2d(x, w("conv.weight"), stride=stride, padding=padding)
        norm = [w(f"bn.{leaf}") for leaf in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *norm, training=False, eps=1e-3))

    def _make(self, name, out, into, size):
        rand = lambda *shape: torch.rand(*shape, generator=self.generator)
        kernel = rand(out, into, *size) - 0.5
        fan = into * size[0] * size[1]
        made = {"conv.weight": kernel * (24 / fan) ** 0.5, "bn.weight": 0.5 + rand(out)}
        made |= {"bn.bias": rand(out) - 0.5, "bn.running_mean": rand(out) - 0.5}
        made |= {"bn.running_var": 0.5 + rand(out)}
        self.weights |= {f"{name}.{leaf}": x for leaf, x in made.items()}

    @torch.no_grad()
    def __call__(self, x):
        """Scaled pictures [B, 3, H, W] -> features [B, 128]."""
        x = self.conv("Conv2d_1a_3x3", x, 32, (3, 3), 2)
        x = self.conv("Conv2d_2a_3x3", x, 32, (3, 3))
        x = self.conv("Conv2d_2b_3x3", x, 64, (3, 3), 1, 1)
        x = F.max_pool2d(x, 3, 2)
        x = self.conv("Conv2d_3b_1x1", x, 80, (1, 1))
        x = self.conv("Conv2d_4a_3x3", x, 192, (3, 3))
        x = F.max_pool2d(x, 3, 2)
        for block, pooled in (("5b", 32), ("5c", 64), ("5d", 64)):
            x = self.a(f"Mixed_{block}", x, pooled)
        x = self.b("Mixed_6a", x)
        for block, middle in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            x = self.c(f"Mixed_{block}", x, middle)
        x = self.d("Mixed_7a", x)
        x = self.e("Mixed_7b", x, lambda y: F.avg_pool2d(y, 3, 1, 1, count_include_pad=False))
        x = self.e("Mixed_7c", x, lambda y: F.max_pool2d(y, 3, 1, 1))
        return x.mean((2, 3))

    def a(self, at, x, pooled):
        five = self.conv(f"{at}.branch5x5_1", x, 48, (1, 1))
        three = self.conv(f"{at}.branch3x3dbl_1", x, 64, (1, 1))
        three = self.conv(f"{at}.branch3x3dbl_2", three, 96, (3, 3), 1, 1)
        mean = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([
            self.conv(f"{at}.branch1x1", x, 64, (1, 1)),
            self.conv(f"{at}.branch5x5_2", five, 64, (5, 5), 1, 2),
            self.conv(f"{at}.branch3x3dbl_3", three, 96, (3, 3), 1, 1),
            self.conv(f"{at}.branch_pool", mean, pooled, (1, 1)),
        ], 1)  # fmt: skip

    def b(self, at, x):
        three = self.conv(f"{at}.branch3x3dbl_1", x, 64, (1, 1))
        three = self.conv(f"{at}.branch3x3dbl_2", three, 96, (3, 3), 1, 1)
        three = self.conv(f"{at}.branch3x3dbl_3", three, 96, (3, 3), 2)
        first = self.conv(f"{at}.branch3x3", x, 384, (3, 3), 2)
        return torch.cat([first, three, F.max_pool2d(x, 3, 2)], 1)

    def c(self, at, x, n):
        row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
        seven = self.conv(f"{at}.branch7x7_1", x, n, (1, 1))
        seven = self.conv(f"{at}.branch7x7_2", seven, n, *row)
        seven = self.conv(f"{at}.branch7x7_3", seven, 192, *column)
        twice = self.conv(f"{at}.branch7x7dbl_1", x, n, (1, 1))
        for i, (out, way) in enumerate(((n, column), (n, row), (n, column), (192, row)), 2):
            twice = self.conv(f"{at}.branch7x7dbl_{i}", twice, out, *way)
        mean = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        first = self.conv(f"{at}.branch1x1", x, 192, (1, 1))
        return torch.cat(
            [first, seven, twice, self.conv(f"{at}.branch_pool", mean, 192, (1, 1))], 1
        )

    def d(self, at, x):
        three = self.conv(f"{at}.branch3x3_1", x, 192, (1, 1))
        three = self.conv(f"{at}.branch3x3_2", three, 320, (3, 3), 2)
        seven = self.conv(f"{at}.branch7x7x3_1", x, 192, (1, 1))
        seven = self.conv(f"{at}.branch7x7x3_2", seven, 192, (1, 7), 1, (0, 3))
        seven = self.conv(f"{at}.branch7x7x3_3", seven, 192, (7, 1), 1, (3, 0))
        seven = self.conv(f"{at}.branch7x7x3_4", seven, 192, (3, 3), 2)
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

    def e(self, at, x, pool):
        row, column = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
        three = self.conv(f"{at}.branch3x3_1", x, 384, (1, 1))
        twice = self.conv(f"{at}.branch3x3dbl_1", x, 448, (1, 1))
        twice = self.conv(f"{at}.branch3x3dbl_2", twice, 384, (3, 3), 1, 1)
        return torch.cat([
            self.conv(f"{at}.branch1x1", x, 320, (1, 1)),
            self.conv(f"{at}.branch3x3_2a", three, 384, *row),
            self.conv(f"{at}.branch3x3_2b", three, 384, *column),
            self.conv(f"{at}.branch3x3dbl_3a", twice, 384, *row),
            self.conv(f"{at}.branch3x3dbl_3b", twice, 384, *column),
            self.conv(f"{at}.branch_pool", pool(x), 192, (1, 1)),
        ], 1)  # fmt: skip


def make() -> Network:
    """Random weights, the last layer's of the 1008 classes among them."""
    network = Network()
    network(torch.zeros(1, 3, 75, 75))
    network.weights |= {"fc.weight": torch.zeros(1008, 128), "fc.bias": torch.zeros(1008)}
    return Network(network.weights)


class Leaf(torch.nn.Module):
    """A convolution as the archive holds it, and what modules hold beside tensors."""

    def __init__(self):
        super().__init__()
        self.padding = [0, 3]
        self.stride = 2

    def forward(self, x):
        return x


def archive(network: Network, path, theirs: dict[str, str]):
    """Writes a TorchScript archive. theirs: torch-fidelity's name of each convolution -> the
    archive's. The archive has no weight of batch norms: they must be one."""
    root = torch.nn.Module()
    for ours, name in theirs.items():
        leaf = _place(root, name, Leaf())
        kept = {
            "weight": "conv.weight",
            "beta": "bn.bias",
            "mean": "bn.running_mean",
            "var": "bn.running_var",
        }
        for ending, source in kept.items():
            leaf.register_parameter(ending, torch.nn.Parameter(network.weights[f"{ours}.{source}"]))
    _place(root, "output", torch.nn.Linear(128, 1008))
    root.forward = lambda x: x
    torch.jit.trace(root, torch.zeros(1)).save(str(path))


def _place(root, name: str, leaf):
    *parents, last = name.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, torch.nn.Module())
        root = getattr(root, parent)
    root.add_module(last, leaf)
    return leaf
