"""`python -m janus_jax.data tokenize --config=configs/stage1.py --dataset=NAME --weights=WEIGHTS
--out=data/ids`

The VQ ids of a data set's pictures, computed once on whatever devices are there; a line `image_ids`
of the data set then takes them in training, and no step runs the VQ encoder. The same command goes
on where it stopped, shard by shard, to the same bytes. Without a config, the flags of a data set's
line say what to read (--path, --images, ...). Several processes (see distributed/processes.py)
share the shards; each encodes on its own devices.

It encodes as the training step does, in float32 by the same functions. Another batch or another
device sums in another order, which changes an id only where two codes are equally near. On an
accelerator a few pictures are encoded on the CPU as well, where JAX has one, and the command ends
where the two do not compute alike.
"""

import collections
import dataclasses
import functools
import importlib.metadata
import json
import logging
import os
import pathlib
import sys

import jax
import numpy as np

from janus_jax.common import cli
from janus_jax.common.progress import Progress
from janus_jax.config.schema import Data
from janus_jax.data import image_ids
from janus_jax.data.catalog import open_dataset
from janus_jax.data.editing import are_captions
from janus_jax.data.read_stats import JUDGED
from janus_jax.data.tools import command
from janus_jax.data.tools.command import UNUSABLE, CommandError
from janus_jax.data.tools.image_ids_writer import (
    Shards,
    begin,
    gather_bad_records,
    opened_batches,
)
from janus_jax.distributed import compile_cache, initialize, processes, shares
from janus_jax.distributed.platform import require_devices
from janus_jax.model.config import to_dict
from janus_jax.training.vq_encoder import TokenizerEncoder, cpu_beside, not_float32

SHARD = 4096  # records; a kill loses what was done of one


def tokenize(
    source, encoder: TokenizerEncoder, directory, *, batch: int, shard: int = SHARD, threads: int = 8,
    arguments: list[str] = (), progress=None,
) -> int:  # fmt: skip
    """Writes the ids of every record of a generation source that are not there yet; returns how
    many records have none.

    batch: pictures that the devices encode at once, in this process; shard: records in a file;
        threads: that open pictures; arguments: the command's, kept for messages. Raises
        CommandError where the directory holds ids of something else, SourceError after 100 pictures
        in a row that cannot be used.
    """
    directory = pathlib.Path(directory)
    side = encoder.config.image_size
    origin = image_ids.Origin(
        encoder.fingerprint, to_dict(encoder.config), image_ids.preprocessing(side),
        image_ids.pictures_of(source), len(source), shard,
    )  # fmt: skip
    processes.require_equal({"what the ids are made of": json.dumps(dataclasses.asdict(origin))})
    libraries = ("jax", "jaxlib", "numpy", "pillow")
    device = encoder.mesh.devices.flat[0]
    by = {"platform": device.platform, "device": device.device_kind} | {
        name: importlib.metadata.version(name) for name in libraries
    }
    made = {"arguments": list(arguments), "batch": batch, "computed": [by]}

    def prepare():
        begin(directory, origin, made)
        shares.forget(directory)

    processes.all_or_none(lambda: processes.is_lead() and prepare())
    with shares.word_left(directory):
        _encode(source, encoder, directory, origin, batch, threads, progress)
    return finish(directory, origin)


def _encode(
    source, encoder: TokenizerEncoder, directory, origin, batch: int, threads: int, progress
):
    """Writes this process's shards that are not there yet."""
    progress = progress or Progress("image ids", 0, "pictures")
    own = range(jax.process_index(), len(origin.files), jax.process_count())
    shards = Shards(directory, origin, source, own)
    progress.total = sum(len(shards.records(k)) for k in shards.own)
    progress.skip(progress.total - sum(len(shards.records(k)) for k in shards.todo))
    computing = collections.deque()

    def keep():
        k, part, ids, errors = computing.popleft()
        shards.add(k, part, np.asarray(ids), errors)
        progress(len(part), f", {shards.bad} cannot be used" if shards.bad else "")

    side = encoder.config.image_size
    cpu = cpu_beside(encoder.mesh.devices.flat[0])
    for k, part, pictures, errors in opened_batches(
        source, shards.parts(batch), side, batch, threads
    ):
        if cpu:
            require_float32(encoder, cpu, pictures)
            cpu = None
        computing.append((k, part, encoder(pictures), errors))
        if (
            len(computing) > 1
        ):  # the devices have the next batch before this one's ids are waited for
            keep()
    while computing:
        keep()
    progress.close()


def require_float32(encoder: TokenizerEncoder, cpu, pictures: np.ndarray):
    """Says how many ids of a few pictures are the CPU's. Raises CommandError where the accelerator
    does not compute in float32."""
    device = encoder.mesh.devices.flat[0]
    found = encoder.beside(cpu, pictures)
    if found.rounded:
        raise CommandError(not_float32(device, found))
    print(f"{device.device_kind}: {found}", flush=True)


def finish(directory: pathlib.Path, origin: image_ids.Origin) -> int:
    """Waits for the shards of all processes and lists the bad records in one file; returns how
    many. Raises HostsError when another process has left word that it ends."""
    shares.wait(directory, origin.files)
    if processes.is_lead():
        gather_bad_records(directory, origin)
    processes.barrier("bad records listed")
    return len(image_ids.Ids(directory).causes)


def define(into):
    """The command's own flags; those of the data set are command.define_flags's."""
    define = cli.Definer(into)
    number = define.whole
    about = "Whose tokenizer: any weights that have one, as in a stage's init."
    define.path("weights", None, about, required=True)
    define.output(
        "out", None, "The directory that becomes the data set's image_ids.", required=True
    )
    number("shard", SHARD, "Records in a file; a kill loses what was done of one.", lower_bound=1)
    number("batch", 0, "Pictures that a device encodes at once; 0: 32, or 4 on CPU.", lower_bound=0)
    number("threads", 0, "Threads that open pictures; 0: one a core.", lower_bound=0)
    define.switch("allow_pickle", False, "--weights may be PyTorch's .pt; tensors only.")


def chosen(f, overrides: dict[str, str]):
    """(name, line, experiment or None) of the generation data set that the flags name. Raises
    CommandError."""
    if not f.config:
        if not (f.path or f.dataset or overrides):
            raise CommandError(
                "no pictures are named: give --path=..., or --config=FILE and --dataset=NAME"
            )
        if f.kind not in ("", "generation"):
            raise CommandError(
                f"--kind={f.kind}: a VQ tokenizer takes pictures of kind generation alone; leave it out"
            )
        f["kind"].parse("generation")
    lines, experiment = command.chosen(f, overrides)
    drawn = [name for name, line in lines.items() if line.kind == "generation"]
    if len(drawn) != 1:
        given = ", ".join(f"{name} ({line.kind})" for name, line in lines.items())
        raise CommandError(
            f"give --dataset=NAME of one data set of kind generation; there is {given}"
        )
    return drawn[0], dataclasses.replace(lines[drawn[0]], image_ids=""), experiment


def joined(words: list[str]) -> list[str]:
    """A command line's words with every flag's value at its flag: --out=ids."""
    out = []
    for word in words:
        if out and out[-1].startswith("-") and "=" not in out[-1] and not word.startswith("-"):
            out[-1] += f"={word}"
        else:
            out.append(word)
    return out


def run(f, overrides: dict[str, str], words: list[str]) -> int:
    """The command; returns its exit code. words: of its command line, noted beside the ids."""
    logging.getLogger("jax").setLevel(
        logging.WARNING
    )  # it tells of every backend that is not there
    initialize.initialize()
    require_devices()
    compile_cache.keep()
    name, line, experiment = chosen(f, overrides)
    command.writable(f.out)
    encoder = TokenizerEncoder(
        f.weights, experiment.model.generation_encoder if experiment else None, f.allow_pickle
    )
    side = encoder.config.image_size
    source = open_dataset(line, side, experiment.seed if experiment else 0, resized=side)
    devices = encoder.mesh.devices.flat
    if line.kind == "generation" and not are_captions(source):
        raise CommandError(
            f"{name} holds edits or conversations that draw, whose records have several pictures, and "
            "image_ids one a record; train on its pictures: they are encoded as they come"
        )
    kind = devices[0].device_kind
    each = f.batch or (4 if devices[0].platform == "cpu" else 32)
    print(
        f"{len(source):,} pictures of {name} into {f.out}, on {len(devices)} x {kind}",
        flush=True,
    )
    bad = tokenize(
        source, encoder, f.out, batch=each * len(devices), shard=f.shard, threads=f.threads or os.cpu_count(),
        arguments=joined(words), progress=Progress(name, 0, "pictures"),
    )  # fmt: skip
    print(
        f"{f.out}: ids of {len(source) - bad:,} pictures, {bad:,} could not be used",
        flush=True,
    )
    most = experiment.data.max_bad_fraction if experiment else Data.max_bad_fraction
    if len(source) >= JUDGED and bad > most * len(source):
        print(
            f"more than {most:.2%}, which training refuses: see {f.out}/{image_ids.BAD_RECORDS}",
            file=sys.stderr,
        )
        return UNUSABLE
    return 0


COMMAND = command.command(
    "python -m janus_jax.data tokenize",
    "The VQ ids of a data set's pictures, computed once; the same command goes on where it "
    "stopped.",
    "python -m janus_jax.data tokenize --config=configs/stage1.py --dataset=NAME --weights=WEIGHTS "
    "--out=data/ids",
    define,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.data tokenize`."""
    return command.start(COMMAND, functools.partial(run, words=argv), argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
