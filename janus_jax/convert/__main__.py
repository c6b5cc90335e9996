"""Weights from any layout to any other: python -m janus_jax.convert --source=... --target=... --format=..."""

import pathlib
import resource
import sys
import time

from absl import app, flags

from janus_jax.convert import target
from janus_jax.convert.source import open_source
from janus_jax.sample.terminal import plainly


def define_flags():
    flags.DEFINE_string(
        "source", None, "A weights directory or file of any layout, or a hub id.", required=True
    )
    flags.DEFINE_string("target", None, "The directory to write; it must not exist.", required=True)
    flags.DEFINE_enum("format", None, target.FORMATS, "The layout to write.", required=True)
    flags.DEFINE_enum(
        "dtype",
        None,
        ("float32", "bfloat16"),
        "Of the weights (the VQ tokenizer keeps its own); by default as stored.",
    )
    flags.DEFINE_string("revision", None, "Of a hub id: a branch, tag or commit.")
    flags.DEFINE_bool("allow_pickle", False, "PyTorch's .bin and .pt may be read, tensors only.")
    flags.DEFINE_bool("allow_extra", False, "Tensors that no table knows are skipped.")
    flags.DEFINE_bool("verify", False, "Load both in turn and compare what they compute.")


def main(_):
    f = flags.FLAGS
    if pathlib.Path(f.target).exists():
        raise ValueError(f"--target={f.target} exists; remove it or choose another")
    begin = time.perf_counter()
    source = open_source(
        f.source, allow_pickle=f.allow_pickle, allow_extra=f.allow_extra, revision=f.revision
    )
    describe(source, f.format)
    target.convert(source, f.target, f.format, f.dtype, Progress())
    seconds = time.perf_counter() - begin
    size = sum(p.stat().st_size for p in pathlib.Path(f.target).iterdir())
    print(f"{f.target}: {size / 1e9:.3f} GB in {seconds:.1f} s, {peak():.2f} GB of memory at most")
    if f.verify:
        from janus_jax.convert.verify import verify

        if source.config is None:
            raise ValueError(f"--verify compares whole models; {f.source} is a part ({source.kind})")
        allow = {"allow_pickle": f.allow_pickle, "allow_extra": f.allow_extra}
        given = f.source if pathlib.Path(f.source).exists() else source.path
        for name, difference in verify(given, f.target, **allow).items():
            print(f"  {name}: differs by {difference:.3g}")


def describe(source, layout: str):
    count = len({name for row in source.plan.rows for name in row.names})
    print(f"{source.path}: {source.kind}, {len(source.leaves)} leaves from {count} tensors")
    sizes = target.tb.fields({name: shape for name, (shape, _) in source.leaves.items()}) | source.facts
    print("  " + ", ".join(f"{name}={value}" for name, value in sizes.items()))
    for note in source.notes:
        print(f"  note: {note}")
    reasons = {}
    for name, reason in source.ignored.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        print(f"  ignored: {len(names)} tensors ({names[0]}{', ...' if names[1:] else ''}): {reason}")
    if source.kept and layout == target.TRANSFORMERS:
        print(f"  left behind: {len(source.kept)} tensors that this layout has no place for")


class Progress:
    """A line on stderr for every gigabyte."""

    def __init__(self):
        self.bytes = 0

    def __call__(self, count: int):
        before, self.bytes = self.bytes, self.bytes + count
        if self.bytes // 10**9 > before // 10**9:
            print(f"  {self.bytes / 1e9:.0f} GB written", file=sys.stderr, flush=True)


def peak() -> float:
    """Gigabytes of memory this process had at most (Linux counts kilobytes, macOS bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    define_flags()
    app.run(lambda argv: plainly(main, argv))
