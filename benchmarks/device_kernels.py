"""Parts of device.py: what there is, every kind of attention, and the fused cross-entropy."""

import functools
import importlib.metadata
import time
import types

import device_report
import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.distributed import chips
from janus_jax.model import attention
from janus_jax.model import batch as bt
from janus_jax.model import sharding as sh
from janus_jax.model.config import TransformerConfig
from janus_jax.training import loss

REPEATS = 5
# How far results and gradients may lie from float32's, as a norm over the norm: three to ten times
# what rounding to bfloat16 costs plain attention, and what ten bits of a factor (TF32) cost
# float32. A mask that is wrong for one row in ten is further away than either.
ALLOWED = {"bfloat16": 0.02, "float32": 0.01}
ALLOWED_ON_CPU = 1e-4  # of float32


def about(here: device_report.Here) -> None:
    """What JAX and PyTorch see. Raises SystemExit where there is no accelerator and --toy was not
    asked for."""
    device = jax.devices()[0]
    chip = chips.of_device(device)
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)
    versions = {
        name: importlib.metadata.version(name)
        for name in ("jax", "flax", "torch", "transformers", "grain")
    }
    here.say(
        "jax", platform=device.platform, device=device.device_kind, count=len(jax.devices()),
        chip=chip.name if chip else "unknown",
        usable_GB=limit / 1e9, **versions,
    )  # fmt: skip
    import torch  # last: that it is missing says nothing about JAX

    cuda = torch.cuda.is_available()
    here.say("torch", device=torch.cuda.get_device_name() if cuda else "cpu")
    if device.platform == "cpu" and not here.toy:
        raise SystemExit("JAX sees no accelerator here; --toy has sizes for a CPU")


def timed(f, *args) -> tuple[float, float]:
    """(milliseconds of the quickest of REPEATS, seconds of the first call) of f(*args)."""
    took = [_seconds(f, *args) for _ in range(REPEATS + 1)]
    return 1e3 * min(took[1:]), took[0]


def _seconds(f, *args) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(f(*args))
    return time.perf_counter() - begin


def put(x, spec) -> jax.Array:
    return jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), spec))


def examples(rows: int, length: int, count: int) -> np.ndarray:
    """int32 [rows, length]: ids of `count` examples a row, the first of one token, and of the padding
    behind them, 0; hardly a border lies on a tile's."""
    rng = np.random.default_rng(count)
    out = np.zeros((rows, length), np.int32)
    for row in out:
        borders = rng.choice(np.arange(2, length - 40), count - 1, replace=False)
        row[: length - 37] = 1 + np.searchsorted(
            np.sort([1, *borders]), np.arange(length - 37), side="right"
        )
    return out


def distances(got, want) -> dict[str, float]:
    """Norms of differences over norms, by name."""
    out = {}
    for name, x in want.items():
        x, y = np.asarray(x, np.float64), np.asarray(got[name], np.float64)
        out[name] = float(np.linalg.norm(y - x) / np.linalg.norm(x))
    return out


def verdict(found: dict[str, float], dtype: str) -> bool:
    """Whether all lie as near as they must; what is no number does not."""
    strict = jax.default_backend() == "cpu" and dtype == "float32"
    return all(x < (ALLOWED_ON_CPU if strict else ALLOWED[dtype]) for x in found.values())


def both_ways(kind: str):
    """run(draws [4, B, T, H, K], ids) -> the result, and the gradients by q, k and v."""

    def run(draws, ids):
        out, back = jax.vjp(lambda *qkv: attention.packed(*qkv, ids, kind), *draws[:3])
        return dict(zip(("out", "dq", "dk", "dv"), (out, *back(draws[3]))))

    return jax.jit(run)


@jax.default_matmul_precision("highest")
def exactly(draws, ids):
    """`both_ways` of plain attention in true float32."""
    return both_ways("plain")(draws.astype(jnp.float32), ids)


def attention_kind(here: device_report.Here) -> None:
    """A kind in both dtypes over rows of a few and of many examples, of lengths that tiles divide
    and that they do not."""
    jax.set_mesh(sh.make_mesh(1, 1, 1, jax.devices()[:1]))
    if jax.default_backend() == "cpu":  # the accelerators' kernels run there step by step
        for name in ("triton", "splash"):
            module = attention.local(name)
            module.of_rows = functools.partial(module.of_rows, interpret=True)
    kind, c = here.argument, TransformerConfig()
    heads, size = (2, 32) if here.toy else (c.heads, c.width // c.heads)
    if here.toy:
        shapes = [("bfloat16", 256, 5), ("float32", 200, 5)]
    else:
        shapes = [("bfloat16", 4096, 6), ("bfloat16", 3840, 80), ("float32", 4096, 6)]
        shapes.append(("float32" if kind in ("plain", "blockwise") else "bfloat16", 1000, 4))
    if kind == "cudnn":
        shapes = [x for x in shapes if x[0] == "bfloat16"]
    rows = 2
    for dtype, length, count in shapes:
        ids = put(examples(rows, length, count), sh.BATCH)
        draws = jax.random.normal(jax.random.key(length), (4, rows, length, heads, size))
        draws = put(draws.astype(dtype), sh.STACK_BTHK)
        want = jax.device_get(exactly(draws, ids))
        run = both_ways(kind)
        ms, first = timed(run, draws, ids)
        found = distances(jax.device_get(run(draws, ids)), want)
        here.say(
            f"{dtype}, {rows} rows of {length}, {count} examples", verdict(found, dtype),
            **found, ms=ms, first_s=first,
        )  # fmt: skip
    if kind == "plain":
        for dtype in ("bfloat16", "float32"):
            here.say(f"auto, {dtype}", means=attention.choose("auto", 4096, dtype))


def cross_entropy(here: device_report.Here) -> None:
    """The text head's shape without a bias and the image head's with one, half of the targets to be
    ignored."""
    jax.set_mesh(sh.make_mesh(1, 1, 1, jax.devices()[:1]))
    n, d = (96, 32) if here.toy else (4096, 2048)
    vocabularies = {"text head": (448 if here.toy else 102400, False)}
    vocabularies["image head"] = (128 if here.toy else 16384, True)
    for dtype in ("bfloat16", "float32"):
        for name, (v, biased) in vocabularies.items():
            rng = np.random.default_rng(v)
            kernel = rng.standard_normal((d, v), np.float32) * d**-0.5
            bias = rng.standard_normal(v, np.float32) * biased
            hidden = rng.standard_normal((2, n, d), np.float32).astype(dtype)
            targets = rng.integers(0, v, (2, n)).astype(np.int32)
            targets[rng.random((2, n)) < 0.5] = bt.IGNORE
            run, plain = fused(dtype, biased), in_full(dtype)
            whole = [jax.device_put(x) for x in (kernel, bias, hidden, targets)]
            with jax.default_matmul_precision("highest"):
                want = jax.device_get(plain(*whole))
            args = [put(x, spec) for x, spec in zip(whole, (sh.W_DF, sh.B_F, sh.ACT_BTD, sh.BATCH))]
            ms, first = timed(run, *args)
            found = distances(
                jax.device_get(run(*args)),
                {k: x for k, x in want.items() if biased or k != "d_bias"},
            )
            here.say(
                f"{dtype}, {name}: {2 * n} tokens, vocabulary {v}", verdict(found, dtype), **found,
                ms=ms, plain_ms=timed(plain, *whole)[0], first_s=first,
            )  # fmt: skip


def fused(dtype: str, biased: bool):
    """`loss.token_losses` and its gradients."""

    def total(kernel, bias, hidden, targets):
        head = types.SimpleNamespace(
            kernel=kernel, bias=bias if biased else None, dtype=jnp.dtype(dtype)
        )
        return loss.token_losses(head, hidden, targets)[0]

    return _with_gradients(total)


def in_full(dtype: str):
    """The same from all logits in float32, of weights rounded to the dtype."""

    def total(kernel, bias, hidden, targets):
        kernel = kernel.astype(dtype).astype(jnp.float32)
        logits = hidden.astype(jnp.float32) @ kernel + bias
        there = targets != bt.IGNORE
        at = jnp.where(there, targets, 0)[..., None]
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), at, -1)[..., 0]
        return -jnp.where(there, picked, 0).sum()

    return _with_gradients(total)


def _with_gradients(total):
    def run(*args):
        value, found = jax.value_and_grad(total, (0, 1, 2))(*args)
        return {"loss": value, **dict(zip(("d_kernel", "d_bias", "d_hidden"), found))}

    return jax.jit(run)


if __name__ == "__main__":
    device_report.child(
        {"about": about, "attention": attention_kind, "cross_entropy": cross_entropy}
    )
