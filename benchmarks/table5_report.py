"""The table, the pictures and the report of benchmarks/table5.py, from what its runs left."""

import json
import math
import pathlib
import re
import statistics

import table5_picture

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import listed
from janus_jax.training import probe_plot

LETTERS = "ABCDEF"
PROBED = "ABD"  # those in which two tasks meet
ASKED = {"understanding": "ABCDE", "generation": "ABDF"}  # half -> who learns it
CLOCK = "seconds.json"
CEILING = "ceiling-{}.json"
TOKENIZERS = {"vq": "VQ tokenizer", "semantic": "semantic tokenizer"}
# Report's half and score -> what the table calls it. The first two named here decide.
ANSWERS = "answers, held out"
DRAWINGS = "drawings right"
SCORES = {
    ("understanding", "held_out/overall"): ANSWERS,
    ("understanding", "seen/overall"): "answers, seen",
    ("understanding", "held_out/size"): "size, held out",
    ("generation", "overall"): DRAWINGS,
    ("generation", "renders/overall"): "true pictures right",
    ("generation", "renders/found"): "things found in true pictures",
    ("generation", "detector Fréchet distance"): "detector Fréchet distance",
}
DRAWN = [name for name in SCORES.values() if "true pictures" not in name]  # panels of the picture
COSINE = "cosine of the tasks' gradients"
# Settings that change a score: equal in all reports of a half, or its cells cannot be compared.
ALIKE = (
    "protocol", "limit", "asked_sha256", "detector_sha256", "cfg_scale", "temperature", "seed",
    "pictures_a_prompt", "max_new_tokens",
)  # fmt: skip
READINGS = [(pair, ANSWERS) for pair in ("DA", "DB", "CB", "ED", "EC")]
READINGS += [(pair, DRAWINGS) for pair in ("FD", "DA", "DB")]


def read(out: pathlib.Path) -> dict:
    """letter -> seed -> half -> its report, of the folders that the driver names."""
    found = {letter: {} for letter in LETTERS}
    for path in sorted(out.glob("*/*/report.json")):
        named = re.fullmatch(r"([A-F])-(0|[1-9]\d*)", path.parts[-3])
        if named and path.parts[-2] in ASKED:
            seeds = found[named[1]].setdefault(int(named[2]), {})
            seeds[path.parts[-2]] = json.loads(path.read_text("utf-8"))
    return {letter: seeds for letter, seeds in found.items() if seeds}


def read_ceilings(out: pathlib.Path) -> dict:
    """Tokenizer -> what table5_ceiling.py wrote of it, of those that are there."""
    paths = {name: out / CEILING.format(name) for name in TOKENIZERS}
    return {name: json.loads(p.read_text("utf-8")) for name, p in paths.items() if p.is_file()}


def require_alike(out: pathlib.Path, runs: dict, ceilings: dict):
    """Raises UsageError that lists values and bounds that are no numbers, results that are not whole,
    and settings that differ among those that the table compares."""
    faults = []
    for half in ASKED:
        of = {
            f"{letter}-{seed}": reports[half]
            for letter, seeds in runs.items()
            for seed, reports in seeds.items()
            if half in reports
        }
        for run, report in of.items():
            faults += [f"{run} {half}: {fault}" for fault in wrong(half, report)]
        settings = {run: report.get("settings", {}) for run, report in of.items()}
        for key in ALIKE:
            measured = dict(settings)
            if half == "generation" and key.endswith("_sha256"):
                measured |= {f"ceiling {name}": c["settings"] for name, c in ceilings.items()}
            by_value = {}
            for run, values in measured.items():
                by_value.setdefault(repr(values.get(key)), []).append(run)
            if len(by_value) > 1:
                told = " and ".join(f"{v} in {', '.join(of)}" for v, of in by_value.items())
                faults.append(f"{half}: {key} is {told}")
    if faults:
        raise UsageError(
            f"{out}: no table, as its cells cannot be compared; measure these runs again, all alike:"
            f"{listed(faults)}"
        )


def wrong(half: str, report: dict) -> list[str]:
    """Why a report cannot stand in the table."""
    found = []
    if missing := report.get("counts", {}).get("missing"):
        found.append(f"{missing} were asked and are missing")
    for of, name in SCORES:
        if of == half and name in report["scores"]:
            score = report["scores"][name]
            numbers = {"": score["value"]}
            if score["interval"] is not None:
                numbers |= dict(zip((", lower bound,", ", upper bound,"), score["interval"]))
            found += [
                f"{name}{which} is {number}, which is no number"
                for which, number in numbers.items()
                if number is None or not math.isfinite(number)
            ]
    return found


def missing(runs: dict, cells: dict, ceilings: dict) -> list[str]:
    """What the protocol promises and is not there, of all seeds that any run has."""
    seeds = sorted({seed for of in runs.values() for seed in of})
    lacking = {}
    for (half, _), name in SCORES.items():
        for letter in ASKED[half]:
            for seed in seeds:
                c = cells.get(letter, {}).get(name)
                if not c or seed not in c["values"]:
                    lacking.setdefault(f"{letter}-{seed} {half}", []).append(name)
    whole = {half: sum(of == half for of, _ in SCORES) for half in ASKED}
    told = [
        run if len(names) == whole[run.split()[1]] else f"{run} ({'; '.join(names)})"
        for run, names in sorted(lacking.items())
    ]
    return told + [f"ceiling of the {TOKENIZERS[x]}" for x in TOKENIZERS if x not in ceilings]


def cell(seeds: dict, half: str, score: str) -> dict | None:
    """Mean over seeds; value, and bounds of the 95 % interval, by seed; the outermost bounds."""
    found = {
        seed: reports[half]["scores"][score]
        for seed, reports in sorted(seeds.items())
        if score in reports.get(half, {}).get("scores", {})
    }
    if not found:
        return None
    bounds = {seed: one["interval"] or [one["value"]] * 2 for seed, one in found.items()}
    return {
        "mean": statistics.fmean(one["value"] for one in found.values()),
        "values": {seed: one["value"] for seed, one in found.items()},
        "bounds": bounds,
        "low": min(low for low, _ in bounds.values()),
        "high": max(high for _, high in bounds.values()),
        "chance": next(iter(found.values())).get("chance"),
    }


def differ(a: dict, b: dict, seeds: list[int]) -> bool:
    """Whether the intervals of two cells, each over these seeds alone, do not overlap."""
    (a_low, a_high), (b_low, b_high) = (
        (min(c["bounds"][s][0] for s in seeds), max(c["bounds"][s][1] for s in seeds))
        for c in (a, b)
    )
    return a_low > b_high or b_low > a_high


def signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # -0.0 + 0.0 is 0.0


def shared_seeds(of: list[dict | None]) -> list[int]:
    return sorted(set.intersection(*(set(c["values"]) if c else set() for c in of)))


def readings(cells: dict) -> list[str]:
    """What docs/table5.md asks, each answered by its own rule from the seeds that both have."""
    lines = []
    for (first, second), name in READINGS:
        a, b = (cells.get(letter, {}).get(name) for letter in (first, second))
        seeds = shared_seeds([a, b])
        if seeds:
            gap = statistics.fmean(a["values"][s] - b["values"][s] for s in seeds)
            way = "apart" if differ(a, b, seeds) else "no difference seen"
            way = f"{way} ({len(seeds)} seeds)" if len(seeds) > 1 else "one seed: no reading"
            lines.append(f"* {first} against {second}, {name}: {signed(gap)}, {way}")
        elif a and b:
            lines.append(f"* {first} against {second}, {name}: no shared seed: no reading")
    of = {letter: cells.get(letter, {}).get(ANSWERS) for letter in "CBED"}
    seeds = shared_seeds(list(of.values()))
    if seeds:
        gain = lambda one, other, s: of[one]["values"][s] - of[other]["values"][s]
        found = [gain("C", "B", s) - gain("E", "D", s) for s in seeds]
        told = ", ".join(f"seed {s}: {signed(v)}" for s, v in zip(seeds, found))
        way = "above 0 with every seed" if min(found) > 0 else "not above 0 with every seed"
        way = way if len(seeds) > 1 else "one seed: no reading"
        mean = signed(statistics.fmean(found))
        lines.append(f"* (C - B) - (E - D), {ANSWERS}: {mean} in the mean ({told}), {way}")
    return lines


def probes(out: pathlib.Path, runs: dict) -> tuple[dict, dict, list[str]]:
    """(letter -> seed -> mean cosine of the probed steps, run -> records of seed 0, what is
    missing)."""
    cosines = {}
    first = {}
    lacking = []
    for letter in PROBED:
        for seed in runs.get(letter, {}):
            run = f"{letter}-{seed}"
            try:
                records = probe_plot.read_run(str(out / run))
            except UsageError as error:
                lacking.append(f"probes of {run} ({error})")
                continue
            if seed == 0:
                first[run] = records
            values = [v for v in probe_plot.values_of(records, "cosine")[1] if math.isfinite(v)]
            if values:
                cosines.setdefault(letter, {})[seed] = statistics.fmean(values)
            else:
                lacking.append(f"cosines of {run}")
    return cosines, first, lacking


def shown(values: dict) -> str:
    """ "**0.75** (0.7, 0.8)", mean and each seed's."""
    if not values:
        return "-"
    mean = statistics.fmean(values.values())
    return f"**{mean:.3g}** ({', '.join(f'{v:.3g}' for v in values.values())})"


def table(cells: dict, ceilings: dict, cosines: dict) -> list[str]:
    names = list(SCORES.values())
    lines = [f"| | {' | '.join([*names, COSINE])} |", f"|---|{'---|' * (len(names) + 1)}"]
    for letter, of in cells.items():
        row = [shown(of[name]["values"] if of[name] else {}) for name in names]
        lines.append(f"| {letter} | {' | '.join([*row, shown(cosines.get(letter, {}))])} |")
    chance = [
        next((of[name]["chance"] for of in cells.values() if of[name]), None) for name in names
    ]
    chance = ["-" if c is None else f"{c:.3g}" for c in chance]
    lines.append(f"| chance | {' | '.join(chance)} | - |")
    for name, found in ceilings.items():
        row = [f"{found['right']:.3g}" if one == DRAWINGS else "-" for one in names]
        lines.append(f"| true pictures through the {TOKENIZERS[name]} | {' | '.join(row)} | - |")
    return lines


def made_by(runs: dict, clock: dict) -> str:
    """The machines that ran, what it took, and whether the code changed between."""
    reports = [r for of in runs.values() for halves in of.values() for r in halves.values()]
    kept = [report.get("environment", {}) for report in reports]
    devices = sorted({e["devices"] for e in kept if "devices" in e})
    machines = sorted({one["machine"] for one in clock.values()})
    hours, cpu = (
        sum(one[key] for one in clock.values()) / 3600 for key in ("seconds", "cpu_seconds")
    )
    codes = len({e["code_sha256"] for e in kept if "code_sha256" in e})
    changed = f" The code changed between the measurements: {codes} versions." if codes > 1 else ""
    where = "; ".join([*devices, *machines]) or "Machine not known"
    return f"{where}; jobs of {hours:.1f} hours in all, {cpu:.1f} hours of CPU.{changed}"


def write(out: pathlib.Path):
    """Writes table5.md, table5.json, table5.png and probes.png. Raises UsageError for cells that
    cannot be compared."""
    runs = read(out)
    ceilings = read_ceilings(out)
    require_alike(out, runs, ceilings)
    clock = json.loads((out / CLOCK).read_text("utf-8")) if (out / CLOCK).exists() else {}
    cells = {
        letter: {name: cell(seeds, *of) for of, name in SCORES.items()}
        for letter, seeds in runs.items()
    }
    cosines, records, no_probes = probes(out, runs)
    lacking = missing(runs, cells, ceilings) + no_probes
    machines = made_by(runs, clock)
    text = "\n".join([
        f"Mean over seeds (each seed's). {machines}", "", *table(cells, ceilings, cosines), "",
        f"A verdict about understanding uses \"{ANSWERS}\", one about drawing \"{DRAWINGS}\", both over "
        "the seeds that the two experiments share.", "", *readings(cells), "",
        *(["Missing:", "", *(f"* {one}" for one in lacking), ""] if lacking else []),
    ])  # fmt: skip
    (out / "table5.md").write_text(text, "utf-8")
    facts = {
        "made_by": machines, "clock": clock, "cells": cells, "ceilings": ceilings, "cosines": cosines,
        "scores": {
            f"{letter}-{seed} {half}": report["scores"]
            for letter, seeds in runs.items()
            for seed, reports in seeds.items()
            for half, report in reports.items()
        },
        "missing": lacking,
    }  # fmt: skip
    (out / "table5.json").write_text(json.dumps(facts, indent=2), "utf-8")
    if cells:
        table5_picture.write(cells, LETTERS, DRAWN, out / "table5.png")
    if records:
        (out / "probes.png").write_bytes(probe_plot.probe_picture(records))
    print(text)
