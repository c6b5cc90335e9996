"""`python -m janus_jax.plan --config=configs/stage2.py --topology=v5p:4x4x8`: what a stage would
take, unbought.

Compiles the true step of each stage for that many chips, with nothing allocated: with the TPU
compiler where the `libtpu` package is installed, the GPU compiler where JAX's CUDA plugin is, else
for as many fake CPU devices, whose temporaries are too high. Prints parameters, bytes a chip,
FLOPs, what goes over the links, what the compiled program does, and how fast a step could be.
Exits with 2 when a stage does not fit, with the flags that would save most. `--sample` plans a
token of drawing and of answering instead.
"""

import json
import pathlib
import sys

from janus_jax.common import cli, exit_codes, outputs
from janus_jax.config import fields
from janus_jax.plan import tpu_dump


def define_flags(into):
    """The command's flags, in absl's `into`."""
    define = cli.Definer(into)
    define.path("config", None, "A file with get_config(); see configs/.", required=True)
    define.text("topology", "cpu:8", "Chips: v5p:4x4x8, v5e:16x16, a100-40gb:128, cpu:8, ...")
    define.switch(
        "sample",
        False,
        "Plan a token of drawing and of answering with the config's model on one such chip, instead "
        "of its stages.",
    )
    define.choice("dtype", None, ["float32", "bfloat16", "int8"], "Of the weights, with --sample.")
    define.output(
        "json", None, "Also write the plan here; - for stdout (tables then go to stderr)."
    )


def plan(f, overrides: dict[str, str]) -> int:
    """The command."""
    from janus_jax.config.epochs import uncounted
    from janus_jax.config.read import read
    from janus_jax.distributed import chips
    from janus_jax.plan import aot
    from janus_jax.plan.report import run
    from janus_jax.training.check_config import check

    cli.log_to_stderr("error")
    if f.dtype and not f.sample:
        raise exit_codes.UsageError("--dtype is for --sample: a stage says its own, model.dtype")
    if f.json and f.json != "-":
        outputs.require_writable(pathlib.Path(f.json).parent, "--json")
    chip, count = chips.parse_topology(f.topology)
    experiment, wrong = read(f.config, overrides, target=f.topology)
    wrong += [
        f"stages.{name}.steps is {experiment.stages[name].steps!r}: a plan opens no data to count; "
        f"give a number, such as --config.stages.{name}.steps=1000"
        for name in uncounted(experiment)
    ]
    check(experiment, count, known=wrong)
    found, compiler = aot.devices(chip, count, f.topology)
    if found[0].platform == "gpu" and experiment.model.attention == "cudnn":
        raise exit_codes.UsageError(
            f"model.attention is 'cudnn': {aot.CUDNN_UNSEEN}: plan with auto"
        )
    out = sys.stderr if f.json == "-" else sys.stdout
    say = lambda text: print(text, file=out, flush=True)
    if f.sample:
        from janus_jax.plan import sampling

        if found[0].platform == "cpu" and chip.name != "cpu":
            raise exit_codes.UsageError(
                f"--sample counts the program of the chip's own compiler: {compiler}"
            )

        say(f"compiled by {compiler}")
        planned = sampling.tokens(experiment.model, chip, found[0], f.dtype, say)
    else:
        planned = run(experiment, chip, count, found, compiler, say)
    if f.json == "-":
        print(json.dumps(planned))
    elif f.json and (kept := outputs.replace(f.json, json.dumps(planned, indent=1))):
        say(kept)
    fits = all(stage["fits"] for stage in planned.get("stages", {}).values())
    return exit_codes.DONE if fits else exit_codes.USAGE


COMMAND = cli.Command(
    "python -m janus_jax.plan",
    "What each stage of a config would take on chips that are not here: memory, FLOPs, traffic, "
    "time.",
    "python -m janus_jax.plan --config=configs/stage2.py --topology=v5p:4x4x8",
    define_flags,
    fields.field_lines,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.plan`."""
    return tpu_dump.leave(cli.run(COMMAND, plan, argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
