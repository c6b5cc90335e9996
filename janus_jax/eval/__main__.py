"""Scores of a run again: `python -m janus_jax.eval --workdir=runs/quickstart`"""

import dataclasses
import functools
import pathlib
import sys

from janus_jax.checkpoint.inspect import CHECKPOINTS, RUN_CONFIG
from janus_jax.common import cli, exit_codes
from janus_jax.common.files import WEIGHTS_FILE, read_json
from janus_jax.common.outputs import require_writable
from janus_jax.config.read import resolve
from janus_jax.config.schema import Experiment


def define_flags(into):
    """The command's flags, in absl's `into`."""
    define = cli.Definer(into)
    output = define.output
    number = functools.partial(define.number, lower_bound=0.0)
    output("workdir", None, "The work directory of a run: its config and its data.", required=True)
    about = "The weights to score; else those of the run's last stage that is done."
    define.path("model", None, about)
    output("out", None, "Where results.json and pictures.png go; else into the work directory.")
    about = (
        "Drawings a task (or in all) and questions an answer (or in all); 0: as the config says."
    )
    define.whole("count", 0, about, lower_bound=0)
    number("cfg_scale", None, "Guidance of the drawings; else as the config says.")
    number("temperature", None, "Of the drawings; 0 takes the likeliest. Else as the config says.")


def score(f, _):
    """The command."""
    cli.log_to_stderr("warning")
    workdir = pathlib.Path(f.workdir)
    experiment = run_of(workdir)
    asked = {"count": f.count or None, "cfg_scale": f.cfg_scale, "temperature": f.temperature}
    given = {name: value for name, value in asked.items() if value is not None}
    settings = dataclasses.replace(experiment.evaluation, **given)
    if not settings.count:
        raise exit_codes.UsageError(
            "--count: the run's config has evaluation.count 0; say how many"
        )
    weights = f.model or last_stage(experiment, workdir)
    out = pathlib.Path(f.out or workdir)
    require_writable(out, "--out")

    from janus_jax.distributed import compile_cache
    from janus_jax.distributed.platform import require_devices
    from janus_jax.eval.run import evaluate
    from janus_jax.training.preflight_data import open_sources

    require_devices()
    compile_cache.keep()
    sources, report = open_sources(experiment, [])
    report.require()
    evaluate(experiment, sources, weights, out, print, settings)


def run_of(workdir: pathlib.Path) -> Experiment:
    """The config of a run, from its work directory. Raises UsageError where there is none."""
    path = workdir / RUN_CONFIG
    if not path.is_file():
        raise exit_codes.UsageError(
            f"--workdir={workdir}: no {RUN_CONFIG} there, so no run; name the --workdir of one"
        )
    experiment, _ = resolve(read_json(path), {})
    return experiment


def last_stage(experiment: Experiment, workdir: pathlib.Path) -> pathlib.Path:
    """The weights of the last stage that is done. Raises UsageError where none is."""
    done = [name for name in experiment.stages if (workdir / name / WEIGHTS_FILE).is_file()]
    if not done:
        raise exit_codes.UsageError(
            f"--workdir={workdir}: no stage of it is done; give "
            f"--model={workdir}/{CHECKPOINTS}/<stage>, or wait"
        )
    return workdir / done[-1]


COMMAND = cli.Command(
    "python -m janus_jax.eval",
    "Draws and answers with the weights of a run, scores both, and writes results.json and "
    "pictures.png.",
    "python -m janus_jax.eval --workdir=runs/quickstart --count=10",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.eval`."""
    return cli.run(COMMAND, score, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
