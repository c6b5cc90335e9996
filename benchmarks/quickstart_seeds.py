"""Seeds of the quick start, and of what one would change in it:
`python benchmarks/quickstart_seeds.py --name=as_it_is`.

Trains configs/quickstart.py once a seed, each a command of its own that goes on where it was
stopped, then writes the table of all variants that lie in --out: means, each seed's scores, seconds.
A score of one seed says little: seeds differ by more than most changes do.

    --name=WORD         what to call the variant
    --seeds=0,1,2       the seeds (default: 0,1,2)
    --out=DIR           where all of it goes (default: runs/quickstart_seeds)
    --at_once=N         runs that train at a time, each on its share of the cores (default: 1, which
                        alone gives the seconds that a user waits)
    --report            only write the table of what is done
    --config.a.b=VALUE  what the variant changes, as `janus-jax train` takes it
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import machine

from janus_jax.common import files
from janus_jax.common.text import table
from janus_jax.data.toy.shapes import QUESTIONS, TASKS

ROOT = pathlib.Path(__file__).resolve().parents[1]
ABOUT = "about.json"  # in a run's folder, when it is done: seconds, changes, machine


def train(folder: pathlib.Path, seed: int, flags: list[str], cores: list[int]):
    """One run; nothing where it is done. Seconds of a run that was stopped are not known (None)."""
    if (folder / ABOUT).is_file():
        return
    fresh = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        *("taskset", "-c", ",".join(map(str, cores))), sys.executable, "-m", "janus_jax.main",
        "--config=configs/quickstart.py", f"--config.seed={seed}", f"--workdir={folder}", *flags,
    ]  # fmt: skip
    print(f"{folder.name}: {folder / 'said.log'}", flush=True)
    begun = time.perf_counter()
    with open(folder / "said.log", "ab") as said:
        subprocess.run(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, check=True)
    seconds = time.perf_counter() - begun if fresh else None
    about = {"flags": flags, "seed": seed, "seconds": seconds, "cores": len(cores)}
    files.write(folder / ABOUT, json.dumps(about | {"machine": machine.name()}))


def report(out: pathlib.Path) -> str:
    """Markdown of all finished runs in `out`, by variant."""
    runs = {}
    for path in sorted(out.glob(f"*/*/{ABOUT}")):
        about = json.loads(path.read_text("utf-8"))
        results = json.loads((path.parent / "results.json").read_text("utf-8"))
        runs.setdefault(path.parts[-3], []).append((about, results))
    head = ["variant", "seeds", "drawing", "answering", "seconds", *TASKS, *QUESTIONS]
    rows = []
    for name, found in runs.items():
        of = lambda half, key: [results[half][key][0] for _, results in found]  # noqa: B023
        each = lambda scores: (
            f"{statistics.mean(scores):.2f} ({', '.join(f'{s:.2f}' for s in scores)})"
        )
        seconds = [f"{a['seconds']:.0f}" for a, _ in found if a["seconds"] and a["cores"] > 1]
        rows.append([
            name, ", ".join(str(about["seed"]) for about, _ in found), each(of("drawing", "overall")),
            each(of("answering", "overall")), ", ".join(seconds) or "not alone",
            *(f"{statistics.mean(of('drawing', task)):.2f}" for task in TASKS),
            *(f"{statistics.mean(of('answering', kind)):.2f}" for kind in QUESTIONS),
        ])  # fmt: skip
    changes = [
        f"* {name}: {' '.join(found[0][0]['flags']) or 'nothing'}" for name, found in runs.items()
    ]
    return "\n".join([table(head, rows), "", "What each changes:", *changes, ""])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/quickstart_seeds"))
    parser.add_argument("--name")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--at_once", type=int, default=1)
    parser.add_argument("--report", action="store_true")
    given, flags = parser.parse_known_args()
    if unknown := [flag for flag in flags if not flag.startswith("--config.")]:
        parser.error(
            f"{unknown[0]}: a variant is given by flags such as --config.stages.stage2.steps=900"
        )
    out = given.out.resolve()
    if not given.report:
        if not given.name:
            parser.error("--name: give the variant a word")
        share = max(machine.cores() // given.at_once, 1)
        with ThreadPoolExecutor(given.at_once) as pool:
            jobs = [
                pool.submit(
                    train, out / given.name / f"seed{seed}", seed, flags,
                    [(n % given.at_once) * share + k for k in range(share)],
                )
                for n, seed in enumerate(map(int, given.seeds.split(",")))
            ]  # fmt: skip
        for job in jobs:
            job.result()
    print(report(out))


if __name__ == "__main__":
    main()
