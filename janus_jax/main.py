"""`python -m janus_jax.main --config=configs/quickstart.py --workdir=runs/quickstart`

Any field of the config can be set from the command line: `--config.stages.stage3.steps=500`. The same command
goes on where it was stopped.
"""

import dataclasses
import json
import os
import pathlib
import sys
import time

START = time.perf_counter()


def prepare(config: str, overrides: dict, workdir: pathlib.Path):
    """Config, mesh, sources and processor of a run. Raises before anything is written or compiled."""
    import jax

    from janus_jax import sharding as sh
    from janus_jax.checks import check
    from janus_jax.data import catalog
    from janus_jax.data.processor import Processor
    from janus_jax.data.tokenizer import Tokenizer
    from janus_jax.experiment import ConfigError, read

    experiment, wrong = read(config, overrides)
    check(experiment, jax.device_count(), known=wrong)
    model, mesh = experiment.model, experiment.mesh
    jax.set_mesh(sh.make_mesh(mesh.data, mesh.fsdp, mesh.tensor))
    needed = {task for s in experiment.stages.values() for task, share in vars(s.ratio).items() if share > 0}
    needed |= {"generation"} if experiment.stage0 else set()
    sources = catalog.open_sources(
        experiment.data, model.generation_encoder.image_size, experiment.seed, needed
    )
    same_run(experiment, workdir)
    if experiment.tokenizer or (workdir / "tokenizer.json").is_file():
        tokenizer = Tokenizer.load(experiment.tokenizer or workdir)
    else:
        tokenizer = catalog.learn_tokenizer(sources, experiment.template, model.transformer.vocabulary)
        tokenizer.save(workdir)  # a resumed run keeps its words, whatever became of its files
    if len(tokenizer) > model.transformer.vocabulary:
        raise ConfigError(
            f"model.transformer.vocabulary is {model.transformer.vocabulary}: the tokenizer has {len(tokenizer)} ids"
        )
    counts = model.understanding_encoder.tokens, model.generation_encoder.tokens
    e = experiment.evaluation
    return experiment, sources, Processor(tokenizer, experiment.template, *counts, e.cfg_scale, e.temperature)


def same_run(experiment, workdir: pathlib.Path):
    """Refuses a work directory in which another config has trained; remembers this one. The mesh, the
    evaluation and what is watched may change."""
    from janus_jax.experiment import ConfigError, differences

    path, values = workdir / "config.json", json.loads(json.dumps(dataclasses.asdict(experiment)))
    if path.is_file() and (workdir / "checkpoints").is_dir():
        free = {field: values[field] for field in ("mesh", "evaluation", "wandb", "profile")}
        changed = differences(json.loads(path.read_text()) | free, values)
        if changed:
            raise ConfigError(
                f"{workdir} holds a run of another config; use another --workdir, or undo:\n  "
                + "\n  ".join(changed)
            )
    workdir.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=2))
    os.replace(partial, path)


def finish(experiment, sources: dict, weights: pathlib.Path, workdir: pathlib.Path, log):
    """Draws, asks, scores and writes what the last stage's model can do."""
    from janus_jax.checkpoint import load
    from janus_jax.eval import samples
    from janus_jax.eval import shapes as shapes_eval

    e = experiment.evaluation
    model, processor = load(weights)
    log.say("drawing and answering")
    if experiment.data.source == "shapes":
        text, results, pictures = shapes_eval.report(model, processor, e, experiment.seed)
    else:
        text, results, pictures = samples.report(model, processor, e, experiment.seed, sources)
    if experiment.data.source == "emoji":
        from janus_jax.data.emoji import ATTRIBUTION

        text += "\n" + ATTRIBUTION
    (workdir / "results.json").write_text(json.dumps(results, indent=2))
    pictures.save(workdir / "pictures.png")
    log.say(f"\n{text}\n")


def run(config: str, overrides: dict, workdir: str):
    import jax

    from janus_jax.log import Log
    from janus_jax.train import train

    directory = pathlib.Path(workdir)
    experiment, sources, processor = prepare(config, overrides, directory)
    log = Log(directory, jax.process_index() == 0, experiment.wandb, dataclasses.asdict(experiment))
    device = jax.devices()[0]
    log.say(f"{config} on {jax.device_count()} x {device.device_kind}, {len(processor.tokenizer)} text ids")
    weights = train(experiment, sources, processor, directory, log)
    if experiment.evaluation.count and jax.process_index() == 0:
        finish(experiment, sources, weights, directory, log)
    log.curves()
    log.close()
    log.say(
        f"{time.perf_counter() - START:.0f} s; weights in {weights}, pictures.png, curves.png in {directory}"
    )


def main(argv: list[str] | None = None):
    print("janus_jax: reading the config", flush=True)
    from janus_jax.experiment import split_flags

    rest, overrides = split_flags(list(sys.argv if argv is None else argv))

    from absl import app, flags, logging

    logging.set_verbosity(logging.WARNING)  # the libraries' own notes would bury the progress
    flags.DEFINE_string("config", None, "A file with get_config(); see configs/.", required=True)
    flags.DEFINE_string("workdir", None, "Where checkpoints, weights, curves and pictures go.", required=True)
    flags.DEFINE_bool("distributed", False, "Several processes: call jax.distributed.initialize().")

    def start(_):
        import jax

        from janus_jax.data.images import ImageError
        from janus_jax.data.sources import SourceError
        from janus_jax.experiment import ConfigError

        if flags.FLAGS.distributed:
            jax.distributed.initialize()
        try:
            run(flags.FLAGS.config, overrides, flags.FLAGS.workdir)
        except (
            ConfigError,
            SourceError,
            ImageError,
            FileNotFoundError,
            FloatingPointError,
            ImportError,
            ConnectionError,
        ) as error:
            sys.exit(f"{type(error).__name__}: {error}")

    app.run(start, argv=rest)


if __name__ == "__main__":
    main()
