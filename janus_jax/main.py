"""`python -m janus_jax.main --config=configs/quickstart.py --workdir=runs/quickstart`

Any field of the config can be set from the command line: `--config.stages.stage3.steps=500`. The same command
goes on where it was stopped.
"""

import dataclasses
import errno
import functools
import io
import json
import os
import pathlib
import sys
import time
import traceback
from contextlib import nullcontext, suppress

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # a disk that is full or gone
START = time.perf_counter()


def finish(experiment, sources: dict, weights: pathlib.Path, workdir: pathlib.Path, log):
    """Draws, asks, scores and writes what the last stage's model can do."""
    from janus_jax.data import durable
    from janus_jax.eval import samples
    from janus_jax.eval import shapes as shapes_eval
    from janus_jax.weights import load

    e = experiment.evaluation
    model, processor = load(weights)
    log.say("drawing and answering")
    paths = {d.path.partition(":")[0] for d in experiment.data.datasets.values()}
    if paths == {"shapes"}:
        text, results, pictures = shapes_eval.report(model, processor, e, experiment.seed)
    else:
        kinds = {experiment.data.datasets[name].kind: source for name, source in reversed(sources.items())}
        text, results, pictures = samples.report(model, processor, e, experiment.seed, kinds)
    if "emoji" in paths:
        from janus_jax.data.emoji import ATTRIBUTION

        text += "\n" + ATTRIBUTION
    durable.write(workdir / "results.json", json.dumps(results, indent=2))
    drawn = io.BytesIO()
    pictures.save(drawn, "PNG")
    durable.write(workdir / "pictures.png", drawn.getvalue())
    log.say(f"\n{text}\n")


def run(config: str, overrides: dict, workdir: str, command: bool = False):
    """Trains what the config says. command: the process belongs to the run, and may be ended from a thread (see
    hosts.Notice, watchdog.py). Raises hosts.Preempted where it was told to stop, all else as it comes."""
    from janus_jax import hosts, peers
    from janus_jax.checkpoint import NotSaved
    from janus_jax.watchdog import WATCH

    if not command:
        hosts.NOTICE.listen()
    try:
        peers.start(hosts.NOTICE.told)
        if command:
            WATCH.start(workdir)
        hosts.wait("begun")
        train_and_show(config, overrides, workdir)
    except Exception as error:
        # Where all agreed to stop, all end so; another error is this process's own even then.
        if peers.PEERS is not None and not (
            hosts.NOTICE.agreed and isinstance(error, hosts.Preempted | NotSaved)
        ):
            peers.PEERS.blame(error)
            code = report(error)
            peers.end(code, f"{type(error).__name__}: {error}", say=False)
        raise
    finally:
        WATCH.close()
        peers.stop()
        hosts.NOTICE.close()
        from janus_jax import identity  # slow to import: not before the peers are watched

        identity.release()


def train_and_show(config: str, overrides: dict, workdir: str):
    import jax

    from janus_jax import hosts, plan, preflight
    from janus_jax import sharding as sh
    from janus_jax.experiment import ConfigError
    from janus_jax.log import Log
    from janus_jax.train import OutOfMemory, train
    from janus_jax.watchdog import WATCH

    directory = pathlib.Path(workdir)
    found = preflight.prepare(config, overrides, directory)
    experiment, sources, processor = found.experiment, found.sources, found.processor
    values = dataclasses.asdict(experiment)
    log = hosts.together(lambda: Log(directory, hosts.first(), experiment.wandb, values))
    device, processes = jax.devices()[0], jax.process_count()
    where = f"{jax.device_count()} x {device.device_kind}" + f" in {processes} processes" * (processes > 1)
    log.say(f"{config} on {where}, {len(processor.tokenizer)} text ids")
    for line in found.warnings:
        log.say(f"WARNING: {line}")
    try:
        weights = train(experiment, sources, processor, directory, log)
    except OutOfMemory as error:
        raise ConfigError(plan.explain_out_of_memory(experiment, error.stage, error.__cause__)) from error
    WATCH.at("evaluating")
    if experiment.evaluation.count and hosts.first():
        # The others take no part: what they hold of the mesh cannot.
        with sh.mesh_context(sh.make_mesh(1, -1, 1, jax.local_devices())) if processes > 1 else nullcontext():
            finish(experiment, sources, weights, directory, log)
    log.curves()
    log.close()
    drawn = "pictures.png, " * bool(experiment.evaluation.count)
    log.say(f"{time.perf_counter() - START:.0f} s; weights in {weights}, {drawn}curves.png in {directory}")
    hosts.wait("done")


def exit_code(error: BaseException) -> int:
    """0, or --preempted: told to stop, and saved; 2: the command, config, hosts that differ, or more than the devices'
    memory; 3: the data; 4: training diverged; 69: not all processes came; 74: the last state not saved, no checkpoint
    can be read, or the disk is full or gone; 1: anything else. See docs/faults.md."""
    from janus_jax import hosts, meet
    from janus_jax.checkpoint import CheckpointError, NotSaved
    from janus_jax.convert.table import WeightsError
    from janus_jax.data.images import ImageError
    from janus_jax.data.sources import RecordError, SourceError
    from janus_jax.experiment import ConfigError
    from janus_jax.steps import CheckpointsUnreadable

    codes = {
        hosts.Preempted: hosts.NOTICE.leaving(), meet.Absent: meet.ABSENT,
        ConfigError: 2, hosts.HostsError: 2, CheckpointError: 2, WeightsError: 2,
        SourceError: 3, ImageError: 3, RecordError: 3,
        FloatingPointError: 4, NotSaved: 74, CheckpointsUnreadable: 74,
    }  # fmt: skip
    if isinstance(error, hosts.Others):  # a dry run; in a run the other's own word comes first
        return next((code for kind, code in codes.items() if kind.__name__ in error.kinds), 1)
    gone = isinstance(error, OSError) and error.errno in DISK
    return next((code for kind, code in codes.items() if isinstance(error, kind)), 74 if gone else 1)


def report(error: BaseException) -> int:
    """Prints what ends the run; its exit code."""
    code = exit_code(error)
    with suppress(OSError, ValueError):  # where stderr is gone, the code and the other processes still tell
        if code == 1 and not isinstance(error, FileNotFoundError | ImportError):
            traceback.print_exception(error)
        else:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return code


def define_flags(into=None):
    """main's own flags, in absl's FLAGS or `into`; those of the config are taken out before."""
    from absl import flags

    into = flags.FLAGS if into is None else into
    text = functools.partial(flags.DEFINE_string, flag_values=into)
    number = functools.partial(flags.DEFINE_integer, flag_values=into)
    text("config", None, "A file with get_config(); see configs/.", required=True)
    text("workdir", None, "Where checkpoints, weights, curves and pictures go.", required=True)
    text("coordinator", "", "HOST:PORT of process 0; else JAX_COORDINATOR_ADDRESS.")
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Only check all that can be checked in seconds, and write nothing.",
        flag_values=into,
    )
    number(
        "devices", 0, "With --dry_run: check for so many devices, here or not; 0: those here.", lower_bound=0
    )
    number("processes", 0, "How many processes; else JAX_NUM_PROCESSES.", lower_bound=0)
    number("process", -1, "Which one this is, from 0; else JAX_PROCESS_ID.", lower_bound=-1)
    number("preempted", 0, "Exit code after SIGTERM, once saved; launchers that start again give 75.", 0, 255)


def parse(argv: list[str]) -> list[str]:
    """absl's own parser, but what it refuses ends with code 2."""
    from absl import flags

    try:
        rest = flags.FLAGS(argv)
        if flags.FLAGS.devices and not flags.FLAGS.dry_run:
            raise flags.Error("--devices is of --dry_run: a run takes the devices that are here")
        return rest
    except flags.Error as error:
        print(f"{error}; --help lists the flags", file=sys.stderr)
        sys.exit(2)


def main(argv: list[str] | None = None):
    print("janus_jax: reading the config", flush=True)
    from janus_jax.experiment import split_flags

    rest, overrides = split_flags(list(sys.argv if argv is None else argv))

    from absl import app, flags, logging

    logging.set_verbosity(logging.WARNING)  # the libraries' own notes would bury the progress
    define_flags()

    def start(_):
        from janus_jax import hosts, meet, preflight, xla_flags

        f = flags.FLAGS
        end = preflight.leave if f.dry_run else sys.exit
        if f.dry_run:
            os.environ["HF_HUB_OFFLINE"] = "1"  # what it would download takes longer, and is written
        else:
            hosts.NOTICE.listen(command=True, code=f.preempted)
        xla_flags.apply()
        try:
            meet.connect(f.coordinator, f.processes, f.process)
            if f.dry_run:
                hosts.wait("begun")
                preflight.rehearse(f.config, overrides, pathlib.Path(f.workdir), f.devices)
                end(0)
            run(f.config, overrides, f.workdir, command=True)
        except Exception as error:
            end(report(error))

    app.run(start, argv=rest, flags_parser=parse)


if __name__ == "__main__":
    main()
