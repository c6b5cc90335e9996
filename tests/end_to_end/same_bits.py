"""Whether two versions of the code compute the same bits, on CPUs.

python same_bits.py --out=before.json [--work=DIR] [--only=rows,plan]
python same_bits.py --compare before.json after.json

The first trains, draws, answers, packs rows, converts and plans with the janus_jax and the configs
of the current directory, and writes checksums of all that comes out. `--only` adds to what the file
holds; `--work` keeps the runs, which the same code uses again. The second says item by item whether
two files are equal, and exits with 1 where they are not. Both must be of one machine: other
processors and libraries round otherwise. What has moved is looked up in MODULES and `shortened`;
what else is not public is in `stage2_batches` and, as generate_ids, in `sampling`.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter

import numpy as np

MODULES = {  # inside janus_jax, the newest name first
    "main": ("main",),
    "plan": ("plan.__main__", "planning.plan", "plan"),
    "convert": ("weights.__main__", "weights.convert", "convert.__main__"),
    "tokenize_images": ("training.tokenize_images", "data.tokenize_images"),
    "preflight": ("training.preflight", "preflight"),
    "stage_data": ("training.stage_data", "feed"),
}
NAMES_MAY_CHANGE = ("rows", "plan")  # items of which the values count, not what they are called
TIMED = re.compile(
    "time|seconds|per_second|wait|mfu|tflops|memory"
)  # metrics that no two runs share
PACKAGES = ("jax", "jaxlib", "libtpu", "numpy", "flax", "optax", "grain", "pillow", "tokenizers")
QUICKSTART, EMOJI, ROWS_STEPS = "configs/quickstart.py", "configs/emoji.py", 50
MIXTURE = f"""
import runpy

def get_config():
    config = runpy.run_path("{QUICKSTART}")["get_config"]()
    stage, line = config.stages.stage2, lambda **more: {{"kind": "generation", "path": "shapes:", **more}}
    stage.steps, stage.condition_dropout, stage.first_sentence = {ROWS_STEPS}, 0.1, 0.25
    datasets, stage.supervise, config.seed = config.data.datasets, "answers", 5
    datasets.questions.weight, datasets.often = 0.5, line(weight=3.0)
    datasets.early, datasets.late = line(steps=(0, 20)), line(steps=(20, {ROWS_STEPS}), weight=2.0)
    return config
"""


def root() -> pathlib.Path:
    return pathlib.Path(importlib.import_module("janus_jax").__file__).parent


def module(name: str) -> str:
    # By file: another janus_jax, installed to be edited, would lend modules that this one does not
    # have.
    here = [path for path in MODULES[name] if (root() / f"{path.replace('.', '/')}.py").is_file()]
    return (
        f"janus_jax.{here[0]}"
        if here
        else sys.exit(f"{root()} has no {name}: say in MODULES where it is")
    )


def command(name: str, *flags: str, devices: int = 1) -> str:
    """What a command of the package prints."""
    own = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.getcwd(),
    }
    words = [sys.executable, "-m", module(name), *flags]
    done = subprocess.run(words, env=os.environ | own, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def array(x) -> str:
    x = np.ascontiguousarray(x)
    return f"{x.dtype.name} {x.shape} {sha(x.tobytes())}"


def tensors(path: pathlib.Path) -> dict[str, str]:
    """Of each tensor of a safetensors file, by name."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = {k: x for k, x in sorted(json.loads(data[8:begin]).items()) if k != "__metadata__"}
    part = lambda at, end: sha(data[begin + at : begin + end])
    return {
        name: f"{x['dtype']} {x['shape']} {part(*x['data_offsets'])}" for name, x in header.items()
    }


def shortened(config: str, steps) -> list[str]:
    """Flags that shorten the stages of a config, warmups alike. steps: a stage's own -> those
    wanted."""
    values = runpy.run_path(config)["get_config"]()
    stages = {f"stages.{name}": stage for name, stage in values.stages.items()}
    stages |= (
        {"stage0": values.stage0} if "stage0" in values else {}
    )  # before it was a stage like others
    flags = {"evaluation.count": 0} | {
        f"{name}.steps": steps(stage.steps) for name, stage in stages.items()
    }
    for name, stage in stages.items():
        if warmup := stage.optim.get("warmup_steps"):
            flags[f"{name}.optim.warmup_steps"] = warmup * steps(stage.steps) // stage.steps
    return [f"--config.{name}={value}" for name, value in flags.items()]


def train(work: pathlib.Path, name: str, config: str, steps, *flags: str, devices: int = 1):
    """(facts, values) of a run: all weights after each stage, and its metrics but for times and
    memory."""
    directory, flags = work / name, [*shortened(config, steps), *flags]
    command("main", f"--config={config}", f"--workdir={directory}", *flags, devices=devices)
    weights = sorted(directory.glob("stage*/model.safetensors"))
    values, losses = {path.parent.name: tensors(path) for path in weights} | {"metrics": {}}, {}
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        at = f"{metrics.pop('stage')} {metrics['step']}"
        losses[at] = metrics["loss"]
        same = sorted(x for key, x in metrics.items() if not TIMED.search(key))
        values["metrics"][at] = f"{len(same)} numbers {sha(repr(same).encode())}"
    return {"flags": flags, "losses": losses}, values


def quickstart(work):
    """All four stages at a twentieth of their steps, on two devices."""
    return train(work, "quickstart", QUICKSTART, lambda steps: steps // 20, devices=2)


def emoji(work):
    """Six steps a stage with pictures, and again with ids that the first run's tokenizer has
    stored."""
    few, ids = lambda steps: 6, work / "ids"
    runs = {"pictures": train(work, "emoji", EMOJI, few)}
    own = [f"--weights={work / 'emoji' / 'stage0'}", f"--out={ids}", "--shard=64"]
    command("tokenize_images", f"--config={EMOJI}", "--dataset=names", *own)
    runs["ids"] = train(
        work, "emoji_ids", EMOJI, few, f"--config.data.datasets.names.image_ids={ids}"
    )
    shards = {path.name: np.load(path) for path in sorted(ids.glob("*.npy"))}
    facts = {name: run[0] for name, run in runs.items()}
    facts["different stored ids"] = len(np.unique(np.concatenate(list(shards.values()))))
    values = {
        f"{name}, {stage}": part for name, run in runs.items() for stage, part in run[1].items()
    }
    return facts, values | {"stored ids": {name: array(x) for name, x in shards.items()}}


def sampling(work):
    """In each dtype, greedily and by chance: ids drawn with guidance 5, their pictures, and
    answers."""
    from PIL import Image

    import janus_jax

    quickstart(work)
    generate_ids = importlib.import_module(janus_jax.generate.__module__).generate_ids
    y, x = np.mgrid[:40, :56]
    picture = Image.fromarray(np.stack([4 * x, 6 * y, 2 * (x + y)], -1).astype(np.uint8))
    question = [
        {"type": "image", "image": picture},
        {"type": "text", "text": "what color is the circle?"},
    ]
    prompts, facts, values = ["a red circle left of a blue square", "three green crosses"], {}, {}
    for dtype in ("float32", "bfloat16", "int8"):
        loaded = janus_jax.load(work / "quickstart" / "stage3", dtype=dtype)
        for heat in (0.0, 1.0):
            group, how = f"{dtype}, temperature {heat:g}", {"temperature": heat, "seed": 7}
            drawing = how | {"cfg_scale": 5.0, "images_per_prompt": 2}
            ids = generate_ids(*loaded, prompts, **drawing)
            pictures = [
                np.asarray(drawn) for drawn in janus_jax.generate(*loaded, prompts, **drawing)
            ]
            values[group] = {"ids": array(ids), "pixels": array(pictures)}
            facts[group] = {"different ids": len(np.unique(ids)), "first ids": ids[:, :8].tolist()}
            for what, content in (
                ("of a picture", question),
                ("of words", "a red circle is left of"),
            ):
                asked = [{"role": "user", "content": content}]
                answer = janus_jax.understand(*loaded, asked, max_new_tokens=64, **how)
                facts[group][what], values[group][what] = answer, sha(answer.encode())
    return facts, values


def stage2_batches(found, directory):
    """The only place that knows how data is opened: batches of stage 2, of what preflight has
    found."""
    data = importlib.import_module(module("stage_data"))
    if hasattr(data, "open_data"):
        log = importlib.import_module("janus_jax.log").Log(directory, active=False)
        return data.open_data(
            found.experiment, "stage2", found.sources, found.processor, directory, log
        )
    plan = importlib.import_module("janus_jax.training.stage_plan").StagePlan.of(
        found.experiment, "stage2"
    )
    batches = data.open_batches(plan, found.sources, found.processor, directory, print)
    return (batch | {"examples": examples} for batch, examples in batches)


def rows(work):
    """Every array of the first batches of stage 2, of three mixtures."""
    preflight, facts, values = importlib.import_module(module("preflight")), {}, {}
    (work / "mixture.py").write_text(MIXTURE)
    for name, config in (
        ("quickstart", QUICKSTART),
        ("mixture", str(work / "mixture.py")),
        ("emoji", EMOJI),
    ):
        found = preflight.prepare(config, {}, work / f"rows_{name}")
        for step, batch in zip(range(ROWS_STEPS), stage2_batches(found, work / f"rows_{name}")):
            values[f"{name} {step:02}"] = {key: array(x) for key, x in batch.items()}
        facts[name] = {"data sets": list(found.sources), "arrays": values[f"{name} 00"]}
    return facts, values


def exports(work):
    """Every file of the three layouts, there and back, and of a checkpoint."""
    quickstart(work)
    sizes = [f"--config.model.generation_encoder.{name}=32" for name in ("norm_groups", "channels")]
    train(
        work, "small", QUICKSTART, lambda steps: 2, *sizes
    )  # transformers has no other norm groups
    jobs = {
        "own": ("quickstart/stage3", "janus_jax"),
        "deepseek": ("quickstart/stage3", "deepseek"),
        "deepseek, back": ("exports/deepseek", "janus_jax"),
        "transformers": ("small/stage3", "transformers"),
        "transformers, back": ("exports/transformers", "janus_jax"),
        "checkpoint": ("quickstart/checkpoints/stage2", "janus_jax", "--dtype=bfloat16"),
    }
    values = {}
    shutil.rmtree(work / "exports", ignore_errors=True)
    for name, (source, layout, *flags) in jobs.items():
        target = work / "exports" / name
        command(
            "convert",
            f"--source={work / source}",
            f"--target={target}",
            f"--format={layout}",
            *flags,
        )
        values[name] = {path.name: sha(path.read_bytes()) for path in sorted(target.iterdir())}
    return jobs, values


def numbers(x, path: str = "") -> dict[str, str]:
    """All numbers of nested plain data, by path."""
    if isinstance(x, int | float):
        return {path: repr(x)}
    inner = x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ()
    return {k: n for key, value in inner for k, n in numbers(value, f"{path}/{key}").items()}


def plan(work):
    """Every number of the plans of stage 2 but the time that compiling took."""
    facts, values = {}, {}
    for topology in ("v5p:4x4x8", "a100-40gb:128"):
        out = work / f"plan-{topology.replace(':', '-')}.json"
        text = command(
            "plan", "--config=configs/stage2.py", f"--topology={topology}", f"--json={out}"
        )
        facts[topology], found = text.splitlines(), numbers(json.loads(out.read_text()))
        values[topology] = {k: n for k, n in found.items() if not k.endswith("/compile_seconds")}
    return facts, values


ITEMS = {f.__name__: f for f in (quickstart, emoji, sampling, rows, exports, plan)}


def record(out: pathlib.Path, work: pathlib.Path, only: list[str]):
    """Writes items into the file `out`, whose other items must be of the same code and machine."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    sys.path.insert(0, os.getcwd())
    sources = [*sorted(root().rglob("*.py")), *sorted(pathlib.Path("configs").glob("*.py"))]
    of = {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": sys.version}
    of["cpu"] = re.findall("model name.*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[:1]
    of |= {"janus_jax": str(root()), "code": sha(b"".join(p.read_bytes() for p in sources))}
    result = json.loads(out.read_text()) if out.exists() else {"of": of, "items": {}}
    if result["of"] != of:
        sys.exit(f"{out} is of other code or of another machine: {result['of']}, not {of}")
    work = work / of["code"][:8]  # no code goes on with what another has left
    work.mkdir(parents=True, exist_ok=True)
    for name in only:
        begin = time.perf_counter()
        facts, values = ITEMS[name](work)
        item = {
            "seconds": round(time.perf_counter() - begin),
            "total": sha(json.dumps(values).encode()),
        }
        result["items"][name] = item | {"facts": facts, "values": values}
        print(f"{name}: {item['seconds']} s, {item['total']}", flush=True)
        out.write_text(json.dumps(result, indent=1))


def differing(x: dict, y: dict, loose: bool) -> dict[str, None]:
    """The names of what is not the same in both. loose: of values that are not in the other, under
    any name."""
    if not loose:
        return {k: None for k in x | y if x.get(k) != y.get(k)}
    a, b = Counter(x.values()), Counter(y.values())
    return {k: None for part in (x, y) for k, value in part.items() if value in (a - b) + (b - a)}


def compare(old: dict, new: dict) -> bool:
    """Tells what is equal, and whether all is."""
    print(
        "\n".join(f"{k}: {x} -> {new['of'][k]}" for k, x in old["of"].items() if x != new["of"][k])
    )
    all_equal = True
    for name in old["items"] | new["items"]:
        a, b = (x["items"].get(name, {"values": {}})["values"] for x in (old, new))
        found = {g: differing(a.get(g, {}), b.get(g, {}), name in NAMES_MAY_CHANGE) for g in a | b}
        wrong = {group: list(keys) for group, keys in found.items() if keys}
        said = "equal" if not wrong else "DIFFERENT" if a and b else "DIFFERENT: in one file only"
        print(f"{name}: {said}, {sum(map(len, a.values()))} values")
        for group, keys in wrong.items() if a and b else ():
            print(
                f"  {group}: {len(keys)} differ: {', '.join(keys[:8])}{', ...' * (len(keys) > 8)}"
            )
        for other in {(*sorted(a[g].keys() ^ b[g].keys()),) for g in a.keys() - wrong.keys()} - {
            ()
        }:
            print(f"  names in one of the two: {', '.join(other)}")
        all_equal = all_equal and not wrong
    return all_equal


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="the file to write, or to add to")
    parser.add_argument(
        "--work", type=pathlib.Path, help="where runs go; by default nowhere that stays"
    )
    parser.add_argument(
        "--only", default=",".join(ITEMS), help="items, joined by commas; by default all"
    )
    parser.add_argument("--compare", nargs=2, type=pathlib.Path, metavar=("BEFORE", "AFTER"))
    args = parser.parse_args()
    if args.compare:
        sys.exit(not compare(*(json.loads(path.read_text()) for path in args.compare)))
    only = args.only.split(",")
    if not args.out or set(only) - set(ITEMS):
        parser.error(f"give --out=FILE, and in --only some of {', '.join(ITEMS)}")
    with tempfile.TemporaryDirectory() as passing:
        record(args.out.resolve(), (args.work or pathlib.Path(passing)).resolve(), only)


if __name__ == "__main__":
    main()
