"""Weights from any layout to any other: `python -m janus_jax.weights --source=... --target=...
--format=...`"""

import pathlib
import resource
import sys
import time

from janus_jax.common import cli, exit_codes
from janus_jax.common.outputs import require_writable
from janus_jax.common.progress import Progress
from janus_jax.common.text import size
from janus_jax.weights import convert as converting
from janus_jax.weights import table as tb
from janus_jax.weights.source import open_source


def define_flags(into):
    """The command's flags, in absl's `into`."""
    define = cli.Definer(into)
    define.path(
        "source", None, "A weights directory or file of any layout, or a hub id.", required=True
    )
    define.output("target", None, "The directory to write; it must not exist.", required=True)
    define.choice("format", None, converting.FORMATS, "The layout to write.", required=True)
    dtypes = ("float32", "bfloat16")
    define.choice(
        "dtype", None, dtypes, "Of all but the VQ tokenizer's weights; by default as stored."
    )
    define.text("revision", None, "Of a hub id: a branch, tag or commit.")
    define.base()
    define.switch("allow_pickle", False, "PyTorch's .bin and .pt may be read, tensors only.")
    define.switch("allow_extra", False, "Tensors that no table knows are skipped.")
    define.switch("verify", False, "Load both in turn and compare what they compute.")


def convert_command(f, _):
    """The command."""
    cli.log_to_stderr("warning")
    if pathlib.Path(f.target).exists():
        raise exit_codes.UsageError(f"--target={f.target} exists; remove it or choose another")
    require_writable(pathlib.Path(f.target).parent, "--target")
    if f.verify:
        from janus_jax.distributed.platform import require_devices

        require_devices()
    begin = time.perf_counter()
    source = open_source(
        f.source, allow_pickle=f.allow_pickle, allow_extra=f.allow_extra, revision=f.revision,
        base=f.base,
    )  # fmt: skip
    of_part = f.format in (converting.LLAMAGEN, converting.SIGLIP, converting.DIFFUSERS_KL)
    if f.verify and (source.config is None or of_part):
        part = f.format if source.config else source.kind
        raise exit_codes.UsageError(
            f"--verify compares whole models, and {part} is a part; leave it out"
        )
    own = source.config
    if f.verify and (own.image_head != "softmax" or own.drawing == "scales" or own.senses):
        raise exit_codes.UsageError(
            "--verify compares what is made of pictures, text and ids, and this model has latents, several "
            "codes a token, several scales, or further senses; leave it out"
        )
    describe(source)
    speed = lambda count, seconds: f"{size(count / seconds)}/s"
    with Progress("written", 0, "", amount=size, speed=speed) as progress:
        converting.to_layout(source, f.target, f.format, f.dtype, progress)
    if left := converting.left_behind(source, f.format):
        print(f"  left behind: {', '.join(left)}")
    seconds = time.perf_counter() - begin
    written = sum(p.stat().st_size for p in pathlib.Path(f.target).iterdir())
    print(
        f"{f.target}: {written / 1e9:.3f} GB in {seconds:.1f} s, {peak():.2f} GB of memory at most"
    )
    if f.verify:
        from janus_jax.weights.verify import verify

        allow = {"allow_pickle": f.allow_pickle, "allow_extra": f.allow_extra}
        given = f.source if pathlib.Path(f.source).exists() else source.path
        for name, difference in verify(given, f.target, f.base, **allow).items():
            print(f"  {name}: differs by {difference:.3g}")


def describe(source):
    count = len({name for row in source.layout.rows for name in row.names})
    print(f"{source.path}: {source.kind}, {len(source.leaves)} leaves from {count} tensors")
    sizes = tb.fields({name: shape for name, (shape, _) in source.leaves.items()}) | source.unshaped
    if sizes:
        print("  " + ", ".join(f"{name}={value}" for name, value in sizes.items()))
    for note in source.notes:
        print(f"  note: {note}")
    reasons = {}
    for name, reason in source.ignored.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        print(
            f"  ignored: {len(names)} tensors ({names[0]}{', ...' if names[1:] else ''}): {reason}"
        )


def peak() -> float:
    """Gigabytes of memory this process had at most (Linux counts kilobytes, macOS bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


COMMAND = cli.Command(
    "python -m janus_jax.weights",
    "Weights from any layout to any other: a released model's, a training checkpoint's, ours.",
    "python -m janus_jax.weights --source=deepseek-ai/Janus-1.3B --target=weights/janus "
    "--format=janus_jax",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.weights`."""
    return cli.run(COMMAND, convert_command, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
