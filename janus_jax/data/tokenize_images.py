"""`python -m janus_jax.data.tokenize_images --config=configs/stage1.py --dataset=NAME --weights=WEIGHTS --out=data/ids`

The VQ ids of a data set's pictures, computed once on whatever devices are there; a line `image_ids` of the data set
then takes them in training, and no step runs the VQ encoder. The same command goes on where it stopped, shard by
shard, to the same bytes. Without a config, the flags of a data set's line say what to read (--path, --images, ...).
Several processes (see hosts.py) share the shards; each encodes on its own devices.

The one module of data that needs JAX: it computes. Training and its workers never import it. It encodes as the
training step does, in float32 by the same function; another batch may round otherwise, and so may other devices.
"""

import collections
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import logging
import os
import pathlib
import sys
import time

import jax
import numpy as np
from flax import nnx

from janus_jax import hosts, meet
from janus_jax import sharding as sh
from janus_jax.batch import pixels
from janus_jax.convert import table
from janus_jax.convert.source import open_source
from janus_jax.data import command, image_ids
from janus_jax.data.catalog import open_dataset
from janus_jax.data.command import UNUSABLE, CommandError
from janus_jax.data.image_ids_writer import FAILED, Shards, begin, gather_rotten, opened, write
from janus_jax.data.ledger import JUDGED
from janus_jax.data.workers import Progress
from janus_jax.experiment import Data
from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.weights import VQ, flatten, placed

SHARD = 4096  # records; a kill loses what was done of one


class Encoder:
    """The encoding half of a VQ tokenizer, whole on every device of `mesh`, by default all of this process.

    config: its sizes, None for what the weights say (LlamaGen's: 384 pixels). Raises ValueError for weights that
    hold no such tokenizer.
    """

    def __init__(
        self, weights, config: GenerationEncoderConfig | None = None, allow_pickle: bool = False, mesh=None
    ):
        source = open_source(weights, allow_pickle=allow_pickle).require()
        whole = source.config.generation_encoder if source.config else GenerationEncoderConfig()
        self.config, self.mesh = config or whole, mesh or sh.make_mesh(1, -1, 1, jax.local_devices())
        # Only around what this process does alone: what crosses processes wants no mesh of one.
        with sh.mesh_context(self.mesh):
            module = jax.eval_shape(lambda: GenerationEncoder(self.config, nnx.Rngs(0)))
            del module.decoder, module.post_quant_conv
            graphdef, state = nnx.split(module)
            shapes = sh.concrete(nnx.to_pure_dict(state))
            require_fit(source, {VQ + name: x.shape for name, x in flatten(shapes).items()}, self.config)
            self.params = placed(source, shapes, VQ)
        source.settle()
        self._encode = jax.jit(lambda params, x: nnx.merge(graphdef, params).encode(pixels(x)))

    @functools.cached_property
    def fingerprint(self) -> str:
        return image_ids.tokenizer_fingerprint(flatten(self.params))

    def __call__(self, pictures: np.ndarray) -> jax.Array:
        """uint8 [B, S, S, 3] -> int32 [B, N], perhaps still being computed. The devices must divide B."""
        with sh.mesh_context(self.mesh):
            return self._encode(self.params, sh.put(pictures, jax.NamedSharding(self.mesh, sh.BATCH)))


def require_fit(source, wanted: dict[str, tuple], config: GenerationEncoderConfig):
    """Raises ValueError unless the source has these leaves and computes with them as `config` says."""
    found = {name: shape for name, (shape, _) in source.leaves.items() if name.startswith(VQ)}
    if not found:
        raise ValueError(f"{source.path}: holds no VQ tokenizer (generation_encoder), it is {source.kind}")
    problems = table.differing(found, wanted)
    problems += [f"missing: {name} {shape}" for name, shape in wanted.items() if name not in found]
    problems += [
        f"shape: {name} is {found[name]} in the file, {shape} in the model"
        for name, shape in wanted.items()
        if found.get(name, shape) != shape
    ]
    groups = source.facts.get(f"{VQ}norm_groups", config.norm_groups)
    problems += [f"norm_groups is {groups} there, {config.norm_groups} here"] * (groups != config.norm_groups)
    if problems:
        raise ValueError(
            f"{source.path}: its VQ tokenizer has other sizes than the model; name the --config whose model it "
            f"is:{table.listed(problems)}"
        )


def tokenize(
    source, encoder: Encoder, directory, *, batch: int, shard: int = SHARD, threads: int = 8,
    arguments: list[str] = (), progress=None,
) -> int:  # fmt: skip
    """Writes the ids of every record of a generation source that are not there yet; returns how many records have
    none.

    batch: pictures that the devices encode at once, in this process; shard: records in a file; threads: that open
    pictures; arguments: the command's, kept for messages. Raises CommandError where the directory holds ids of
    something else, SourceError after 100 pictures in a row that cannot be used.
    """
    directory, side = pathlib.Path(directory), encoder.config.image_size
    origin = image_ids.Origin(
        encoder.fingerprint, dataclasses.asdict(encoder.config), image_ids.preprocessing(side),
        image_ids.pictures_of(source), len(source), shard,
    )  # fmt: skip
    hosts.same({"what the ids are made of": json.dumps(dataclasses.asdict(origin))})
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "numpy", "pillow")}
    device = encoder.mesh.devices.flat[0].device_kind
    made = {"arguments": list(arguments), "versions": versions, "device": device, "batch": batch}
    hosts.together(lambda: hosts.first() and begin(directory, origin, made))
    try:
        _encode(source, encoder, directory, origin, batch, threads, progress)
    except BaseException as error:
        leave_word(directory, error)
        raise
    return finish(directory, origin)


def _encode(source, encoder: Encoder, directory, origin, batch: int, threads: int, progress):
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
        progress(len(part), f", {shards.bad} cannot be used" * (shards.bad > 0))

    side = encoder.config.image_size
    for k, part, pictures, errors in opened(source, shards.parts(batch), side, batch, threads):
        computing.append((k, part, encoder(pictures), errors))
        if len(computing) > 1:  # the devices have the next batch before this one's ids are waited for
            keep()
    while computing:
        keep()
    progress.close()


def leave_word(directory: pathlib.Path, error: BaseException):
    """Tells the other processes, which would wait for this one's shards, that it ends and why."""
    if jax.process_count() > 1:
        name, why = FAILED.format(jax.process_index()), f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):  # `error` is what the caller raises
            write(directory / name, f"process {jax.process_index()}: {why}".encode())


def finish(directory: pathlib.Path, origin: image_ids.Origin) -> int:
    """Waits for the shards of all processes and lists the rotten records in one file; returns how many. Raises
    hosts.HostsError when another process has left word that it ends."""
    # Not a barrier of JAX's: those give up long before a slow process has done its part.
    while not all((directory / name).is_file() for name in origin.files):
        if told := [path.read_text("utf-8") for path in sorted(directory.glob(FAILED.format("*")))]:
            raise hosts.HostsError("this process is well, but not all are:\n" + "\n".join(told))
        time.sleep(1)
    if hosts.first():
        gather_rotten(directory, origin)
    hosts.wait("rotten records listed")
    return len(image_ids.Ids(directory).causes)


def define(into):
    """The command's own flags; those of the data set are command.define_flags's."""
    from absl import flags

    text, number = (
        functools.partial(f, flag_values=into) for f in (flags.DEFINE_string, flags.DEFINE_integer)
    )
    text("weights", None, "Whose tokenizer: any weights that have one, as in a stage's init.", required=True)
    text("out", None, "The directory that becomes the data set's image_ids.", required=True)
    number("shard", SHARD, "Records in a file; a kill loses what was done of one.", lower_bound=1)
    number("batch", 0, "Pictures that a device encodes at once; 0: 32, or 4 on CPU.", lower_bound=0)
    number("threads", 0, "Threads that open pictures; 0: one a core.", lower_bound=0)
    flags.DEFINE_bool(
        "allow_pickle", False, "--weights may be PyTorch's .pt; tensors only.", flag_values=into
    )


def chosen(f, overrides: dict[str, str]):
    """(name, line, experiment or None) of the generation data set that the flags name. Raises CommandError."""
    if not (f.config or f.kind):
        f["kind"].parse("generation")
    lines, experiment = command.chosen(f, overrides)
    drawn = [name for name, line in lines.items() if line.kind == "generation"]
    if len(drawn) != 1:
        given = ", ".join(f"{name} ({line.kind})" for name, line in lines.items())
        raise CommandError(f"give --dataset=NAME of one data set of kind generation; there is {given}")
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


def run(f, overrides: dict[str, str]) -> int:
    """The command; returns its exit code."""
    logging.getLogger("jax").setLevel(logging.WARNING)  # it tells of every backend that is not there
    try:
        meet.connect()
        name, line, experiment = chosen(f, overrides)
        encoder = Encoder(
            f.weights, experiment.model.generation_encoder if experiment else None, f.allow_pickle
        )
        side = encoder.config.image_size
        source = open_dataset(line, side, experiment.seed if experiment else 0, resized=side)
        devices = encoder.mesh.devices.flat
        kind, each = devices[0].device_kind, f.batch or (4 if devices[0].platform == "cpu" else 32)
        print(f"{len(source):,} pictures of {name} into {f.out}, on {len(devices)} x {kind}", flush=True)
        rotten = tokenize(
            source, encoder, f.out, batch=each * len(devices), shard=f.shard, threads=f.threads or os.cpu_count(),
            arguments=joined(sys.argv[1:]), progress=Progress(name, 0, "pictures"),
        )  # fmt: skip
    except hosts.HostsError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return meet.ABSENT if isinstance(error, meet.Absent) else 2
    print(f"{f.out}: ids of {len(source) - rotten:,} pictures, {rotten:,} could not be used", flush=True)
    most = experiment.data.max_bad_fraction if experiment else Data.max_bad_fraction
    if len(source) >= JUDGED and rotten > most * len(source):
        print(
            f"more than {most:.2%}, which training refuses: see {f.out}/{image_ids.ROTTEN}",
            file=sys.stderr,
        )
        return UNUSABLE
    return 0


if __name__ == "__main__":
    command.start(run, define)
