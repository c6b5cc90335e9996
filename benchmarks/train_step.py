"""The training step: ours beside transformers' LLaMA on packed rows of text, and ours alone on the
paper's stages.

    python benchmarks/train_step.py --out=benchmarks/results/train-step-cpu

Part one. The same language model with the same weights on both sides, the same packed rows of text,
AdamW and clipping. Every variant of the peer (train_theirs.py) is tried alone first; the quickest
that computes the same loss is the peer that the ratio is made with. Ours, this one and its leaking
counterpart then take turns of two steps, of which the second counts: in training steps follow one
another. No ratio is given where losses differ: by 1e-3 before the first step or by 1e-2 after the
third, relatively.

Part two. Whole Janus on each stage's mixture of random examples: stage 1 beside the same rows with
stage 2's weights trained, stage 2 beside the same rows without knowledge of examples (plain
attention over the row, both heads at every position), and stage 3.

Every side is a process with all cores. On CPU those of a group are there at once and take turns;
before each turn it is waited, a minute at most, for other processes to be quiet, and what they used
during its second step is recorded. On an accelerator they run one after the other. Times are the
least and the median of the undisturbed turns after the first two steps, of all where all were
disturbed (more than a fifth of a core used by others); the report counts these. Ours begins with
glibc's large pages, as `janus-jax train` does.

"Model FLOPs" follow janus_jax/model/flops.py. The matrix products of a step are measured alone as
well, and compared with it.
"""

import contextlib
import importlib.metadata
import json
import pathlib
import shlex
import statistics
import sys

import jax
import machine
import train_report
import train_rows
from absl import app, flags
from train_rows import HONEST, LEAKS

from janus_jax.model import config as sizes
from janus_jax.model import presets

HERE = pathlib.Path(__file__).parent
OURS, THEIRS = HERE / "train_ours.py", HERE / "train_theirs.py"
WARM = 2  # steps before those that count


def run(group: dict[str, tuple], repeats: int, together: bool) -> dict[str, dict]:
    """name -> what was found, of a group of name -> (script, spec): losses, times, others' CPU use,
    peak memory."""
    found = {}
    for names in [list(group)] if together else [[name] for name in group]:
        with contextlib.ExitStack() as stack:
            children = {}
            for name in names:
                print(f"  {name}", file=sys.stderr, flush=True)
                children[name] = machine.Child(*group[name])
                stack.callback(children[name].stop)
                begun = [children[name].ask("first")] + [
                    children[name].ask("go") for _ in range(WARM - 1)
                ]
                found[name] = {
                    "first": begun[0]["seconds"],
                    "losses": [x["loss"] for x in begun],
                    "times": [],
                    "others": [],
                }
            for _ in range(repeats):
                for name, child in children.items():
                    machine.wait_until_quiet([], FLAGS.patience)
                    # The first of a turn is as after a rest: a host takes a guest's free memory.
                    found[name]["losses"].append(child.ask("go")["loss"])
                    others = machine.Others([child.process.pid])
                    answer = child.ask("go")
                    found[name]["times"].append(answer["seconds"])
                    found[name]["losses"].append(answer["loss"])
                    found[name]["others"].append(others.cores())
            for name, child in children.items():
                found[name] |= {"about": child.about, "peak": child.ask("peak")["bytes"]}
                if group[name][1].get("products"):
                    found[name]["products"] = child.ask("products")["seconds"]
    for name, x in found.items():
        quiet = [t for t, others in zip(x["times"], x["others"]) if not machine.disturbs(others)]
        x |= {"least": min(quiet or x["times"]), "median": statistics.median(quiet or x["times"])}
        print(
            f"  {name}: {x['least']:.3f} s, {len(quiet)} undisturbed", file=sys.stderr, flush=True
        )
    return found


def specs(config: sizes.JanusConfig, rows: int, length: int, optim: dict) -> tuple[dict, dict]:
    """(what is common to all of part one, of part two)."""
    shape = {"rows": rows, "length": length, "optim": optim}
    llm = {"task": "llm", "config": sizes.to_dict(train_rows.llm_only(config))} | shape
    return llm, {"config": sizes.to_dict(config)} | shape


def beside_the_peer(llm: dict, variants: list[str], repeats: int, together: bool) -> dict:
    """Part one: the survey of the peer's variants, and the duel."""
    survey = {}
    for variant in variants:
        try:
            survey |= run({variant: (THEIRS, llm | {"variant": variant})}, 2, together)
        except RuntimeError as error:  # no compiler, no kernel: the others are there
            survey[variant] = {"failed": str(error)}
    done = {
        name: x for name, x in survey.items() if "failed" not in x and not name.startswith("causal")
    }
    if not done:
        raise RuntimeError(
            f"none of the peer's variants ran: {', '.join(variants)}; what they said stands above"
        )
    best = min(done, key=lambda name: done[name]["least"])
    group = {"ours": (OURS, llm | {"products": True}), best: (THEIRS, llm | {"variant": best})}
    leaks = {
        name: x for name, x in survey.items() if name.startswith("causal") and "failed" not in x
    }
    if leaks:
        leak = min(leaks, key=lambda name: leaks[name]["least"])
        group[leak] = (THEIRS, llm | {"variant": leak})
    duel = run(group, repeats, together)
    apart = train_report.losses_apart(duel["ours"]["losses"], duel[best]["losses"])
    result = {"survey": survey, "duel": duel, "peer": best, "losses apart": apart}
    if train_report.same_loss(apart):
        result["ratio"] = {k: duel[best][k] / duel["ours"][k] for k in ("least", "median", "peak")}
    return result


def stages(full: dict, repeats: int, together: bool) -> dict:
    """Part two."""
    spec = lambda task, trainable=None, **more: (
        OURS,
        full | {"task": task, "trainable": trainable or task} | more,
    )
    plain = full["config"] | {"attention": "plain"}
    found = run(
        {"stage 1": spec(1), "stage 1's rows, stage 2's weights": spec(1, 2)}, repeats, together
    )
    naive = spec(2, config=plain, naive=True)
    found |= run({"stage 2": spec(2), "stage 2's rows, dense": naive}, repeats, together)
    return found | run({"stage 3": spec(3)}, repeats, together)


FLAGS = flags.FLAGS


def chosen(platform: str) -> tuple[sizes.JanusConfig, int, int]:
    """(the model's sizes, rows, length) that the flags ask for."""
    small = platform == "cpu"
    config = train_rows.cpu_config() if small else presets.janus_1_3b()
    asked = {
        "layers": FLAGS.layers,
        "width": FLAGS.width,
        "mlp_width": FLAGS.mlp,
        "vocabulary": FLAGS.vocabulary,
    }
    return (
        train_rows.changed(config, {k: v for k, v in asked.items() if v}, FLAGS.dtype),
        (FLAGS.rows or (2 if small else 8)),
        FLAGS.length or (1024 if small else 4096),
    )


def main(_):
    platform = jax.default_backend()
    config, rows, length = chosen(platform)
    repeats, together = FLAGS.repeats, platform == "cpu"
    optim = {"learning_rate": 3e-4, "weight_decay": 0.1}
    llm, full = specs(config, rows, length, optim)
    kind = config.transformer
    results = {
        "machine": machine.name(jax.devices()[0]),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("jax", "flax", "torch", "transformers")
        },
        "command": shlex.join(["python", "benchmarks/train_step.py", *sys.argv[1:]]),
        "shape": f"{kind.layers} layers of width {kind.width}, MLP {kind.mlp_width}, vocabulary {kind.vocabulary}; "
        f"{rows} rows of {length}, {config.dtype}",
        "repeats": repeats,
    }
    if "llm" in FLAGS.parts:
        variants = FLAGS.variants.split(";") if FLAGS.variants else [*HONEST, *LEAKS]
        results["llm"] = beside_the_peer(llm, variants, repeats, together)
        write(results)
    if "stages" in FLAGS.parts:
        results["stages"] = stages(full, repeats, together)
        write(results)
    print(train_report.report(results))


def write(results: dict) -> None:
    """What there is so far, where --out says."""
    if FLAGS.out:
        out = pathlib.Path(FLAGS.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        out.with_suffix(".md").write_text(train_report.report(results))


if __name__ == "__main__":
    flags.DEFINE_list("parts", ["llm", "stages"], "What to measure.")
    flags.DEFINE_integer("layers", None, "Of the language model; by default 24, on CPU 4.")
    flags.DEFINE_integer(
        "width", None, "By default 2048, on CPU 1024; a multiple of 128, the heads' size."
    )
    flags.DEFINE_integer("mlp", None, "By default 5632, on CPU 2816.")
    flags.DEFINE_integer("vocabulary", None, "By default 102400, on CPU 16384.")
    flags.DEFINE_integer("rows", None, "By default 8, on CPU 2.")
    flags.DEFINE_integer("length", None, "Tokens of a row; by default 4096, on CPU 1024.")
    flags.DEFINE_enum(
        "dtype",
        None,
        ["float32", "bfloat16"],
        "Compute dtype; by default bfloat16, on CPU float32.",
    )
    flags.DEFINE_string(
        "variants", None, "Of the peer, separated by `;`; by default all of train_rows.py's."
    )
    flags.DEFINE_integer("repeats", 5, "Steps that count of each side.", lower_bound=2)
    flags.DEFINE_float(
        "patience", 60, "Seconds that a step waits for other processes to be quiet, on CPU."
    )
    flags.DEFINE_string("out", None, "Where the .json and .md go, without suffix.")
    app.run(main)
