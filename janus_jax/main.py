"""`python -m janus_jax.main --config=configs/quickstart.py --workdir=runs/quickstart`

Any field of the config can be set from the command line: `--config.stages.stage3.steps=500`. The
same command goes on where it was stopped.
"""

import dataclasses
import functools
import os
import pathlib
import sys
import time
from contextlib import nullcontext

from janus_jax.common import exit_codes, streams
from janus_jax.common.cli import (
    HELP,
    Command,
    Definer,
    Entry,
    dispatch,
    log_to_stderr,
    parse,
    report,
)
from janus_jax.distributed import large_pages

START = time.perf_counter()


def run(config: str, overrides: dict, workdir: str, command=False, accept_changes=False):
    """Trains what the config says.

    config: the file.
    overrides: dotted path -> text.
    workdir: where all of the run goes.
    command: the process belongs to the run, and may be ended from a thread (see
        signals.StopRequest, watchdog.py).
    accept_changes: goes on with what has changed since the run was last started.

    Raises signals.Preempted where it was told to stop, all else as it comes.
    """
    from janus_jax.checkpoint.inspect import NotSaved
    from janus_jax.distributed import heartbeat, processes, signals
    from janus_jax.distributed.watchdog import WATCH

    if not command:
        signals.STOP.listen()
    try:
        heartbeat.start(signals.STOP.on_remote)
        if command:
            WATCH.start(workdir)
        processes.barrier("begun")
        train_and_show(config, overrides, workdir, accept_changes)
    except Exception as error:
        # Where all agreed to stop, all end so; another error is this process's own even then.
        if heartbeat.HEARTBEAT is not None and not (
            signals.STOP.agreed and isinstance(error, signals.Preempted | NotSaved)
        ):
            heartbeat.HEARTBEAT.attribute(error)
            code = report(error)
            heartbeat.end(code, f"{type(error).__name__}: {error}", say=False)
        raise
    finally:
        WATCH.close()
        heartbeat.stop()
        signals.STOP.close()
        from janus_jax.training import run_dir  # slow to import: not before the peers are watched

        run_dir.release()


def train_and_show(config: str, overrides: dict, workdir: str, accept_changes: bool):
    import jax

    from janus_jax.config.schema import ConfigError
    from janus_jax.distributed import processes
    from janus_jax.distributed.watchdog import WATCH
    from janus_jax.eval.during import Sheet
    from janus_jax.eval.during_scores import Scores, require_scorable
    from janus_jax.eval.run import evaluate
    from janus_jax.model import sharding as sh
    from janus_jax.plan import report as plan
    from janus_jax.sample import rollouts
    from janus_jax.training import preflight
    from janus_jax.training.log import Log
    from janus_jax.training.stages import OutOfMemory, train

    directory = pathlib.Path(workdir)
    found = preflight.prepare(config, overrides, directory, accept_changes)
    experiment = found.experiment
    sources = found.sources
    processor = found.processor
    processes.all_or_none(lambda: processes.is_lead() and require_scorable(experiment, processor))
    values = dataclasses.asdict(experiment)
    log = processes.all_or_none(
        lambda: Log(directory, processes.is_lead(), experiment.wandb, values)
    )
    device = jax.devices()[0]
    count = jax.process_count()
    where = f"{jax.device_count()} x {device.device_kind}"
    if count > 1:
        where += f" in {count} processes"
    log.say(f"{config} on {where}, {len(processor.tokenizer)} text ids")
    for line in found.told():
        log.say(line)
    try:
        show = functools.partial(Sheet, Scores)
        weights = train(experiment, sources, processor, directory, log, show, rollouts)
    except OutOfMemory as error:
        raise ConfigError(
            plan.explain_out_of_memory(experiment, error.stage, error.__cause__)
        ) from error
    WATCH.at("evaluating")
    if experiment.evaluation.count and processes.is_lead():
        # The others take no part: what they hold of the mesh cannot.
        here = nullcontext()
        if count > 1:
            here = sh.mesh_context(sh.make_mesh(1, -1, 1, jax.local_devices()))
        with here:
            evaluate(experiment, sources, weights, directory, log.say, experiment.evaluation)
    log.curves()
    log.close()
    left = "pictures.png, curves.png" if experiment.evaluation.count else "curves.png"
    seconds = time.perf_counter() - START
    log.say(f"{seconds:.0f} s; weights in {weights}, {left} in {directory}")
    processes.barrier("done")


def first_try(config: str, overrides: dict, workdir: str) -> tuple[dict, str]:
    """The overrides and the work directory of `--smoke`, the same on all processes."""
    from janus_jax.distributed import processes
    from janus_jax.training import smoke

    shrunk = processes.all_or_none(lambda: smoke.shrunk(config, overrides))
    own = processes.all_gather(smoke.own_workdir(workdir) if processes.is_lead() else None)[0]
    if processes.is_lead():
        told = " ".join(f"--config.{field}={value}" for field, value in shrunk.items())
        print(f"smoke: --workdir={own} {told}", flush=True)
    return shrunk, own


def define_flags(into):
    """main's own flags, in absl's `into`; those of the config are taken out before."""
    define = Definer(into)
    define.path("config", None, "A file with get_config(); see configs/.", required=True)
    about = "Where checkpoints, weights, curves and pictures go."
    define.output("workdir", None, about, required=True)
    define.text("coordinator", "", "HOST:PORT of process 0; else JAX_COORDINATOR_ADDRESS.")
    about = "Only check all that can be found wrong before a step is compiled, and write nothing."
    define.switch("dry_run", False, about)
    about = "A first try: the config in 10 steps a stage, in a work directory beside --workdir."
    define.switch("smoke", False, about)
    about = "Go on with what has changed since the last start; else that is asked or refused."
    define.switch("accept_changes", False, about)
    about = "With --dry_run: check for so many devices, here or not; 0: those here."
    define.whole("devices", 0, about, lower_bound=0)
    define.whole("processes", 0, "How many processes; else JAX_NUM_PROCESSES.", lower_bound=0)
    define.whole("process", -1, "Which one this is, from 0; else JAX_PROCESS_ID.", lower_bound=-1)
    about = "Exit code after SIGTERM, once saved; launchers that start again give 75."
    define.whole("preempted", 0, about, 0, 255)


def config_fields() -> list[str]:
    """What --help tells of the config's fields."""
    from janus_jax.config import fields

    return fields.field_lines()


COMMAND = Command(
    "python -m janus_jax.main",
    "Trains the stages of a config; the same command goes on where it was stopped.",
    "python -m janus_jax.main --config=configs/quickstart.py --workdir=runs/quickstart "
    "--config.seed=1",
    define_flags,
    config_fields,
)


def main(argv: list[str] | None = None):
    """argv: the words of the command line after `python -m janus_jax.main`."""
    argv = sys.argv[1:] if argv is None else argv
    streams.secure()
    if not any(word in HELP for word in argv):
        # What comes next takes a while to import.
        print("janus_jax: reading the config", flush=True)
    f, overrides = parse(COMMAND, argv)
    if f.devices and not f.dry_run:
        text = "--devices is of --dry_run: a run takes the devices that are here"
        sys.exit(report(exit_codes.UsageError(f"{text}; --help lists the flags")))
    log_to_stderr("warning")  # the libraries' own notes would bury the progress

    from janus_jax.distributed import compile_cache, initialize, processes, signals, xla_flags
    from janus_jax.distributed.platform import require_devices
    from janus_jax.training import preflight

    if f.dry_run:
        os.environ["HF_HUB_OFFLINE"] = "1"  # what it would download takes long, and is written
    else:
        signals.STOP.listen(command=True, code=f.preempted)
    xla_flags.apply()
    try:
        initialize.initialize(f.coordinator, f.processes, f.process)
        require_devices()
        workdir = f.workdir
        if f.smoke:
            overrides, workdir = first_try(f.config, overrides, f.workdir)
        if f.dry_run:
            processes.barrier("begun")
            from janus_jax.eval.during_scores import require_scorable

            where = pathlib.Path(workdir)
            also = require_scorable
            preflight.rehearse(f.config, overrides, where, f.devices, also, f.accept_changes)
            sys.exit(exit_codes.DONE)
        compile_cache.keep()
        run(f.config, overrides, workdir, True, f.accept_changes)
    except Exception as error:
        sys.exit(report(error))


SAMPLE = "janus_jax.sample.__main__:main"
MODEL = "--model=runs/quickstart/stage3"
EDIT = 'janus-jax edit --model=runs/edit_shapes/edit --image=a.png --prompt="make it red"'
RESPOND = "janus-jax respond --model=runs/interleaved_shapes/interleaved --prompt='a circle'"
COMMANDS = {
    "train": Entry(
        "janus_jax.main:main",
        "Trains the stages of a config, or checks that it can (--dry_run).",
        "janus-jax train --config=configs/quickstart.py --workdir=runs/quickstart",
    ),
    "probes": Entry(
        "janus_jax.training.probe_plot:main",
        "Plots how the tasks' gradients pulled in some runs.",
        "janus-jax probes --run=runs/table5/A --run=runs/table5/D --out=probes.png",
    ),
    "plan": Entry(
        "janus_jax.plan.__main__:main",
        "What each stage would take on chips that are not here.",
        "janus-jax plan --config=configs/stage2.py --topology=v5p:4x4x8",
    ),
    "generate": Entry(
        SAMPLE,
        "Draws pictures for prompts.",
        f'janus-jax generate {MODEL} --prompt="a red circle"',
        ("generate",),
    ),
    "edit": Entry(SAMPLE, "Draws what an instruction makes of pictures.", EDIT, ("edit",)),
    "understand": Entry(
        SAMPLE,
        "Answers a question about pictures.",
        f'janus-jax understand {MODEL} --image=a.png --prompt="what is it?"',
        ("understand",),
    ),
    "respond": Entry(SAMPLE, "Answers with words and pictures.", RESPOND, ("respond",)),
    "chat": Entry(
        SAMPLE,
        "A conversation in the terminal: words, pictures, drawings.",
        "janus-jax chat --model=deepseek-ai/Janus-1.3B",
        ("chat",),
    ),
    "serve": Entry(
        "janus_jax.serve.__main__:main",
        "Serves a model in OpenAI's forms, with a page to play.",
        "janus-jax serve --model=quickstart",
    ),
    "convert": Entry(
        "janus_jax.weights.__main__:main",
        "Weights from any layout to any other.",
        "janus-jax convert --source=runs/mine/stage3 --target=out --format=transformers",
    ),
    "data": Entry(
        "janus_jax.data.__main__:main",
        "Checks, converts, tokenizes, captions, scores and shows data sets.",
        "janus-jax data check --config=configs/stage1.py",
    ),
    "eval": Entry(
        "janus_jax.eval.__main__:main",
        "Draws or answers for benchmarks, scores and compares; or scores a run again.",
        "janus-jax eval --benchmark=shapes --half=generation --data=shapes:8 --model=quickstart "
        "--out=scores/shapes",
    ),
}


def cli() -> int:
    """The command `janus-jax`."""
    if sys.argv[1:2] == ["train"]:
        large_pages.begin_again()
    about = "janus_jax: train, study and run Janus, one transformer that reads and draws pictures."
    return dispatch("janus-jax", about, COMMANDS, sys.argv[1:])


if __name__ == "__main__":
    large_pages.begin_again()
    main()
