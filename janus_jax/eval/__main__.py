"""Scores: `python -m janus_jax.eval --benchmark=pope --data=POPE.tsv --model=quickstart --out=scores/pope`

`compare A B` puts two results side by side, `list` names the benchmarks, `tokenizer` measures
reconstructions, and `--workdir` scores a run again.
"""

import dataclasses
import functools
import importlib
import pathlib
import sys
import time

from janus_jax.common import cli, exit_codes, provenance
from janus_jax.common.outputs import require_writable
from janus_jax.common.text import near, table
from janus_jax.eval.benchmark import HALVES, NAMES, load

# The flags that a benchmark of each half reads.
BOTH = {
    "benchmark", "half", "data", "model", "base", "out", "protocol", "limit", "dtype", "allow_pickle", "verify",
    "results", "scorer", "coordinator", "processes", "process",
}  # fmt: skip
READ = {
    "understanding": BOTH
    | {"images", "max_new_tokens", "answers", "judge_url", "judge_model", "judge_key"},
    "generation": BOTH | {"pictures", "cfg_scale", "temperature", "seed", "size", "answers"},
}


def define_flags(into):
    """The command's flags, in absl's `into`."""
    define = cli.Definer(into)
    number = functools.partial(define.number, lower_bound=0.0)
    whole = functools.partial(define.whole, lower_bound=0)
    define.text("benchmark", None, "Its name; `list` shows all.")
    define.choice("half", None, HALVES, "Where both halves have a benchmark of this name.")
    define.path("data", None, "Its file of questions or prompts; docs/evaluation.md says which.")
    define.path("images", None, "The folder of its pictures, where the file only names them.")
    define.path(
        "model", None, "A weights directory or hub id; `quickstart` comes with the package."
    )
    define.output("out", None, "The folder of the result; the same command goes on there.")
    define.text("protocol", "", "How it is asked and read, or which form of it; else its first.")
    whole("limit", 0, "So many records or prompts, from the first on; 0: all.")
    whole("pictures", 0, "Pictures a prompt; 0: as the benchmark's protocol says.")
    number("cfg_scale", None, "Guidance of the drawings; by default what the weights suggest.")
    about = "Of the drawings, 0 takes the likeliest; by default what the weights suggest."
    number("temperature", None, about)
    define.whole("seed", 0, "Same seed, same pictures, on any number of processes.")
    about = "Of the drawings, such as 512x384, of a model that draws several; else its square."
    define.text("size", "", about)
    whole("max_new_tokens", 0, "Longest answer; 0: as the benchmark says.")
    define.choice("dtype", None, ("float32", "bfloat16", "int8"), "By default as stored.")
    define.base()
    define.switch("allow_pickle", False, "Read PyTorch's .bin files, tensors only.")
    define.path("answers", None, "Score these answers, JSON lines or TSV, and load no model.")
    define.switch("verify", False, "Only check that a tree of pictures is what its scorer needs.")
    define.path("results", None, "What the scorer wrote: its scores go into the report.")
    define.text("scorer", "", 'With --results: "its repository, commit, judge and date".')
    define.text("judge_url", None, "Of a judge in OpenAI's chat form: http://127.0.0.1:8000/v1.")
    define.text("judge_model", None, "Its name there.")
    define.text("judge_key", "OPENAI_API_KEY", "The environment variable that holds its key.")
    define.text("coordinator", "", "HOST:PORT of process 0; else JAX_COORDINATOR_ADDRESS.")
    whole("processes", 0, "How many processes share the work; else JAX_NUM_PROCESSES.")
    define.whole("process", -1, "Which one this is, from 0; else JAX_PROCESS_ID.", lower_bound=-1)
    define.output("workdir", None, "A run to score again as its config says, not a benchmark.")
    about = "With --workdir: drawings a task and questions an answer; 0: as the config says."
    whole("count", 0, about)


def evaluate_command(f, _):
    """The command."""
    cli.log_to_stderr("warning")
    if f.workdir:
        if f.benchmark:
            raise exit_codes.UsageError("--benchmark and --workdir: give one of them")
        return score_run(f)
    missing = [f"--{name}" for name in ("benchmark", "data", "out") if not f[name].value]
    if missing:
        raise exit_codes.UsageError(
            f"{', '.join(missing)}: missing; give them, or --workdir of a run to score again"
        )
    from janus_jax.eval import given

    task = task_of(f)
    out = pathlib.Path(f.out)
    refuse_unread(f, READ[task.half])
    if f.verify or f.results:
        return given.of_what_is_there(f, task, out)
    if f.answers:
        return given.score_answers(f, task, out)
    if not f.model:
        raise exit_codes.UsageError("--model: missing; name the weights that draw or answer")
    return benchmark_command(f, task, out)


def task_of(f):
    """What the flags ask. Raises UsageError."""
    from janus_jax.eval.result import Task

    halves = [half for half in HALVES if f.benchmark in NAMES[half]]
    if f.half:
        halves = [half for half in halves if half == f.half]
    if len(halves) != 1:
        known = sorted({*NAMES["understanding"], *NAMES["generation"]})
        why = f"there is none{near(f.benchmark, known)}"
        if halves:
            why = f"both halves have it; give --half={' or --half='.join(halves)}"
        raise exit_codes.UsageError(f"--benchmark={f.benchmark}: {why}")
    kept = {field.name for field in dataclasses.fields(Task)} - {"half", "name"}
    given = {name: f[name].value for name in kept}
    return Task(half=halves[0], name=f.benchmark, **given | {"images": f.images or ""})


def benchmark_command(f, task, out: pathlib.Path) -> int:
    """Draws or answers, and scores."""
    from janus_jax.distributed import compile_cache, initialize, platform, processes
    from janus_jax.eval import given, record, result
    from janus_jax.sample.stopwatch import measured

    require_writable(out, "--out")
    judge = given.judge_of(f, task)
    initialize.initialize(f.coordinator, f.processes, f.process)
    platform.require_devices()
    processes.barrier("begun")
    asked = processes.all_or_none(task.read)  # which may use the devices
    compile_cache.keep()
    import jax

    settings = processes.all_or_none(lambda: settings_of(f, task, asked))
    processes.require_equal({"the settings of this result": provenance.settings_mark(settings)})
    processes.all_or_none(lambda: processes.is_lead() and provenance.begin(out, settings))
    initialize.require_shared(out, "--out")
    begun = time.time()
    with measured() as watch:
        loaded = functools.partial(load_here, f, watch)
        share = jax.process_index(), jax.process_count()
        fill = lambda: result.fill(task, asked, out, settings, loaded, share)
        made = any(processes.all_gather(processes.all_or_none(fill)))

    def report():
        if not made and not judge and (out / record.REPORT).is_file():
            return given.said(record.read_report(out), out)
        return given.said(result.finish(task, asked, out, settings, begun, print, judge), out)

    # The others stay until the first process is done: JAX would end it after theirs.
    codes = processes.all_gather(
        processes.all_or_none(lambda: report() if processes.is_lead() else exit_codes.DONE)
    )
    return codes[0]


def settings_of(f, task, asked: list) -> dict:
    """The settings of the result that the flags ask for."""
    from janus_jax.eval.drawn_size import require_size
    from janus_jax.weights.source import open_source

    source = open_source(f.model, allow_pickle=f.allow_pickle, base=f.base)
    if source.config is None:
        raise exit_codes.UsageError(f"--model={f.model}: no whole model but parts of one")
    if task.size:
        require_size(task, source.config.generation_encoder)
    processor = source.processor()
    return task.settings(asked, provenance.of_model(f.model, source, processor, f.dtype), processor)


def refuse_unread(f, read: set[str]):
    """Raises UsageError for flags that were given and are not among those that are `read`."""
    given = [f"--{name}" for name in f if f[name].present and name not in read]
    if given:
        raise exit_codes.UsageError(f"{', '.join(given)}: nothing reads it here; leave it out")


def load_here(f, watch):
    """What draws and what answers with --model, and its processor, on this process's devices."""
    import jax

    from janus_jax.model import sharding as sh
    from janus_jax.sample.generate import generate
    from janus_jax.sample.understand import understand_batch
    from janus_jax.weights.load import load as load_weights

    with sh.mesh_context(sh.make_mesh(1, -1, 1, jax.local_devices())):
        model, processor = load_weights(
            f.model, dtype=f.dtype, allow_pickle=f.allow_pickle, base=f.base
        )
    watch.tell("loaded")
    bound = (functools.partial(do, model, processor) for do in (generate, understand_batch))
    return *bound, processor


def score_run(f):
    """--workdir: a run's weights, scored as at its end."""
    refuse_unread(f, {"workdir", "model", "out", "count", "cfg_scale", "temperature"})
    from janus_jax.eval.run import evaluate, last_stage, run_of

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
    from janus_jax.training.preflight_data import open_sources

    require_devices()
    compile_cache.keep()
    sources, report = open_sources(experiment, [])
    report.require()
    evaluate(experiment, sources, weights, out, print, settings)


def list_benchmarks() -> int:
    """The command `list`."""
    rows = []
    for half in HALVES:
        for name in NAMES[half]:
            module = load(half, name)
            rows.append([name, half, ", ".join(module.PROTOCOLS), module.ABOUT])
    print(table(("benchmark", "half", "protocols, the first by default", "about"), rows))
    return exit_codes.DONE


PROGRAM = "python -m janus_jax.eval"
COMMAND = cli.Command(
    PROGRAM,
    "Draws or answers for a benchmark, scores it or writes what its scorer reads, and records every "
    "setting.\n`list` names the benchmarks; `compare A B` puts two results side by side; `distance A B` "
    "is the Fréchet distance of two folders of pictures; `tokenizer` reconstructs pictures by a VQ "
    "tokenizer.",
    f"{PROGRAM} --benchmark=pope --data=POPE.tsv --model=deepseek-ai/Janus-1.3B --out=scores/pope",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.eval`."""
    if argv == ["list"]:
        return list_benchmarks()
    if argv[:1] in (["compare"], ["distance"], ["tokenizer"]):
        module = importlib.import_module(f"janus_jax.eval.{argv[0]}")
        return module.main(argv[1:])
    return cli.run(COMMAND, evaluate_command, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
