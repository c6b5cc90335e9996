"""How fast data comes: records/s of a core by format and stage, where the time goes, and what a
step consumes.

    python benchmarks/data.py --out=benchmarks/results/data-cpu        # about ten minutes on two
    cores python benchmarks/data.py --parts=formats --workers=0 --repeats=3

Part pictures: milliseconds of CPU a picture, read and resized exactly and as training does, by
size. Part formats: ours beside PyTorch's DataLoader over a JPEG folder, WebDataset shards and
Hugging Face datasets (Parquet), on the same pictures and captions (data_corpus.py), both with the
same worker processes, pinned to one core; half of the records to understand, half to draw. Ours
mixes, masks, packs rows of 4096 and keeps its position besides; the others only batch
(data_peers.py), which is to their advantage. Part stages: ours on each stage's mixture, and what
the full-size model takes of it on 128 A100s and on v5e-256.

The sides of a group are there at once and take turns; who waits is stopped (SIGSTOP), so that
nobody works ahead in another's turn. CPU seconds are user and system of a side's whole family of
processes. Figures are medians of the undisturbed turns, of all where all were disturbed (more than
a fifth of a core used by others); the report counts these. Needs Linux and the extras `benchmark`,
`emoji` and, for the quick resizing, `fast`.
"""

import argparse
import contextlib
import importlib.metadata
import io
import os
import pathlib
import shlex
import signal
import statistics
import sys
import time

import data_corpus
import data_report
import machine

HERE = pathlib.Path(__file__).parent
OURS, PEERS = HERE / "data_ours.py", HERE / "data_peers.py"
ROWS = {"count": 4, "length": 4096, "understanding_images": 4, "generation_images": 4}
FORMATS = ("folder", "tar", "parquet", "array_record")
STAGES = {"stage1": (1, 0, 1), "stage2": (2, 3, 5), "stage3": (7, 3, 10)}
TARGETS = {
    "a100-40gb:128": 8,
    "v5e:16x16": 4,
}  # chips of a host: DGX A100; Google's ct5lp-hightpu-4t
PICTURES = ((640, 480), (1024, 768), (2000, 1500), (4000, 3000))


def turn(child: machine.Child) -> dict:
    """One "go" of a side that is stopped before and after, and what others used meanwhile."""
    family = machine.family(child.process.pid)
    for pid in family:
        os.kill(pid, signal.SIGCONT)
    others = machine.Others(family)
    answer = child.ask("go") | {"others": others.cores()}
    stop(child)
    return answer


def stop(child: machine.Child) -> None:
    for pid in machine.family(child.process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)


def side(child: machine.Child) -> None:
    """Ends a side, stopped or not."""
    for pid in machine.family(child.process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    child.stop()


def duel(group: dict[str, tuple], repeats: int) -> dict[str, dict]:
    """name -> medians and turns, of name -> (script, spec). A side that cannot start says why, and
    is left out."""
    found, children = {}, {}
    with contextlib.ExitStack() as stack:
        for name, (script, spec) in group.items():
            try:
                children[name] = machine.Child(script, spec)
            except RuntimeError as error:
                found[name] = {"failed": str(error)}
                continue
            stack.callback(side, children[name])
            stop(children[name])
            found[name] = {"turns": []}
        for _ in range(repeats):
            for name, child in children.items():
                found[name]["turns"].append(turn(child))
    for name in children:
        turns = found[name]["turns"]
        quiet = [t for t in turns if not machine.disturbs(t["others"])] or turns
        middle = lambda of, quiet=quiet: statistics.median(map(of, quiet))
        found[name] |= {
            "records/s": middle(lambda t: t["records"] / t["seconds"]),
            "cpu ms": middle(lambda t: 1e3 * t["cpu"] / t["records"]),
            "disturbed": sum(machine.disturbs(t["others"]) for t in turns),
            "held": [turns[k]["held"] for k in (0, len(turns) // 2, -1)],
        }
        if "rows" in turns[0]:
            found[name] |= {
                "rows/s": middle(lambda t: t["rows"] / t["seconds"]),
                "cpu ms a row": middle(lambda t: 1e3 * t["cpu"] / t["rows"]),
                "full": sum(t["tokens"] for t in turns)
                / sum(t["rows"] for t in turns)
                / ROWS["length"],
            }
        print(
            f"  {name}: {found[name]['records/s']:.0f}/s, {found[name]['cpu ms']:.2f} ms of CPU",
            flush=True,
        )
    return found


def sections(spec: dict, repeats: int = 3) -> dict[str, float]:
    """CPU milliseconds a record of our parts, the median of each."""
    child = machine.Child(OURS, spec | {"part": "sections"})
    turns = [child.ask("go") for _ in range(repeats)]
    child.stop()
    return {name: 1e3 * statistics.median(t[name] for t in turns) for name in turns[0]}


def formats(args, spec: dict) -> dict:
    out = {}
    for name in args.formats:
        print(name, flush=True)
        ours = spec | {
            "part": "batches",
            "format": name,
            "ratio": {"understanding": 1, "generation": 1},
        }
        group = {"ours": (OURS, ours)}
        if name == "folder":
            group["ours, exact"] = (OURS, ours | {"exact": True})
        if name != "array_record":
            group["theirs"] = (PEERS, spec | {"format": name})
        out[name] = {"sides": duel(group, args.repeats), "sections": sections(ours)}
    return out


def stages(args, spec: dict) -> dict:
    out = {}
    for name, shares in STAGES.items():
        print(name, flush=True)
        ratio = dict(zip(("understanding", "text", "generation"), shares))
        more = {"part": "batches", "format": "stages", "ratio": ratio}
        more["supervise"] = "answers" if name == "stage3" else "all"
        out[name] = {"sides": duel({"ours": (OURS, spec | more)}, args.repeats)}
        out[name]["demand"] = {
            target: demand(name, target, chips) for target, chips in TARGETS.items()
        }
    return out


def demand(name: str, target: str, host: int) -> dict:
    """What a second of a stage's steps takes on a target at most, where nothing but the peak of its
    chips limits it (janus_jax/distributed/chips.py): rows, pictures of both eyes, examples."""
    from janus_jax.config.read import read
    from janus_jax.distributed import chips
    from janus_jax.model import flops
    from janus_jax.plan import roofline

    experiment, problems = read(f"configs/{name}.py", {}, target=target)
    if problems:
        raise SystemExit("\n".join(problems))
    stage, model = experiment.stages[name], experiment.model
    chip, count = chips.parse_topology(target)
    work = flops.expected(stage, model)
    seconds = roofline.executed(stage, model, work, chip) / (count * chip.flops)
    return {
        "hosts": count // host,
        "rows/s": stage.rows.count / seconds,
        "pictures/s": (work.understanding_images + work.generation_images) / seconds,
        "examples/s": sum(flops.examples(stage, model).values()) / seconds,
    }


def pictures(repeats: int = 5) -> list[dict]:
    """Milliseconds of CPU a JPEG of one of scikit-image's photographs, to understand: exactly, as
    in training."""
    import numpy as np
    import skimage.data
    from PIL import Image

    from janus_jax.data.image_files import read_image
    from janus_jax.data.images import understanding_image

    photograph, out = Image.fromarray(skimage.data.coffee()), []
    for size in PICTURES:
        file = io.BytesIO()
        photograph.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
        ways = {
            "exact": lambda: understanding_image(read_image(file), 384),  # noqa: B023
            "quick resizing": lambda: understanding_image(read_image(file), 384, fast=True),  # noqa: B023
            "scaled too": lambda: understanding_image(
                read_image(file, longest=384),  # noqa: B023
                384,
                fast=True,
            ),
        }
        line, exact = {"size": size}, ways["exact"]().astype(np.float64)
        for way, make in ways.items():
            times = []
            for _ in range(repeats):
                begin = time.process_time()
                for _ in range(5):
                    file.seek(0)
                    picture = make()
                times.append((time.process_time() - begin) / 5)
            apart = np.abs(picture - exact)
            noise = np.mean(apart**2)
            line[way] = {
                "ms": 1e3 * statistics.median(times), "max": apart.max(), "mean": apart.mean(),
                "psnr": 10 * np.log10(255**2 / noise) if noise else None,
            }  # fmt: skip
        out.append(line)
    return out


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="pictures,formats,stages", type=lambda s: s.split(","))
    parser.add_argument("--formats", default=",".join(FORMATS), type=lambda s: s.split(","))
    parser.add_argument(
        "--corpus", default="runs/data-corpus", type=pathlib.Path, help="Made where it is not."
    )
    parser.add_argument("--pictures", default=2000, type=int, help="Of the corpus.")
    parser.add_argument("--records", default=300, type=int, help="Of a turn.")
    parser.add_argument("--repeats", default=7, type=int, help="Turns of each side.")
    parser.add_argument(
        "--workers", default=1, type=int, help="Worker processes of each side; 0: none."
    )
    parser.add_argument(
        "--core", default=machine.cores() - 1, type=int, help="That sides are pinned to."
    )
    parser.add_argument(
        "--out", type=pathlib.Path, help="Where .json, .md and .png go, without suffix."
    )
    args = parser.parse_args()
    packages = (
        "pillow",
        "grain",
        "tokenizers",
        "torch",
        "webdataset",
        "datasets",
        "pyarrow",
        "cykooz.resizer",
    )
    corpus = data_corpus.make(args.corpus, args.pictures)
    results = {
        "machine": machine.name(),
        "command": shlex.join(["python", "benchmarks/data.py", *sys.argv[1:]]),
        "versions": {n: d.version for n in packages for d in importlib.metadata.distributions(name=n)},
        "corpus": corpus, "records": args.records, "repeats": args.repeats, "workers": args.workers,
    }  # fmt: skip
    spec = {
        "corpus": str(args.corpus.resolve()), "records": args.records, "workers": args.workers, "core": args.core,
        "rows": ROWS, "supervise": "all", "exact": False,
    }  # fmt: skip
    parts = {
        "pictures": pictures,
        "formats": lambda: formats(args, spec),
        "stages": lambda: stages(args, spec),
    }
    for name in args.parts:
        results[name] = parts[name]()
        if args.out:
            data_report.write(results, args.out)
    print(data_report.report(results))


if __name__ == "__main__":
    main()
