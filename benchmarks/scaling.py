"""How a stage's step scales over chips that are not there: bytes of a chip, link traffic and the
bound on its time.

    python benchmarks/scaling.py                                # a100-40gb, about five minutes on
    two cores python benchmarks/scaling.py --chip=v5p --sizes=8,32,128    # TPUs take about two
    minutes a plan

Weak scaling keeps the rows of a chip, strong scaling the rows of the step. Each plan (see
janus_jax/plan/report.py) runs in a process of its own. Writes scaling-<chip>.json, .md and .png
under --out after each, so that a stopped run leaves what it has. All of it is compiled or
calculated, nothing timed.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

SLICES = {
    "v5p": {8: "2x2x2", 32: "2x4x4", 128: "4x4x8", 512: "8x8x8"},
    "v5e": {8: "2x4", 32: "4x8", 128: "8x16", 256: "16x16"},
}
LENGTH = 4096  # tokens of a row


def holders(args, chips: int) -> int:
    """Chips that share one copy of the weights: a node's GPUs, or as many TPUs as the configs'
    targets take."""
    return min(32 if args.chip in SLICES else 8, chips)


def plan(args, chips: int, rows: int) -> dict | None:
    """One stage's study, or None (said why) where there is no plan."""
    shape = SLICES.get(args.chip, {}).get(chips, chips)
    fsdp, stage = holders(args, chips), f"--config.stages.{args.stage}"
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "plan.json"
        command = [
            sys.executable, "-m", "janus_jax.plan", f"--config={args.config}", f"--topology={args.chip}:{shape}",
            f"--config.mesh.data={chips // fsdp}", f"--config.mesh.fsdp={fsdp}", f"--config.model.remat={args.remat}",
            f"{stage}.rows.count={rows}", f"{stage}.rows.length={LENGTH}", f"{stage}.rows.understanding_images=3",
            f"{stage}.rows.generation_images=6", f"--json={out}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not out.is_file():
            print(f"  no plan: {(done.stderr or done.stdout).strip()[-800:]}", flush=True)
            return None
        whole = json.loads(out.read_text())
    return whole["stages"][args.stage] | {
        "chips": chips,
        "rows": rows,
        "compiler": whole["compiler"],
    }


def markdown(args, points: list[dict]) -> str:
    lines = [
        f"# Scaling of {args.config}, {args.stage}, on {args.chip}",
        "",
        f"Compiled by {points[0]['compiler']}; nothing was run. rows of {LENGTH}, remat "
        f"{args.remat}, {holders(args, max(args.sizes))} chips hold a copy of the weights. "
        "Times are lower bounds at the chip's peaks (janus_jax/plan/report.py says what they "
        "assume), GB are 1e9 bytes.",
        "",
        "| | chips | rows | a chip | state GB | temporaries GB | fits | into a chip GB | compute "
        "ms | links ms | step ms, nothing overlapped | tokens/s a chip |",
        "|---|" + "---|" * 11,
    ]
    for kind in ("weak", "strong"):
        for p in (p for p in points if kind in p["kinds"]):
            b, limit = p["bytes"], p["bound"]
            speed = p["speeds"]["bound, nothing overlapped"]
            temporaries = b["activations"] + b["other"]
            state = (b["total"] - temporaries - b["program"]) / 1e9
            sent = sum(c["bytes"] for c in p["collectives"]) / 1e9
            lines.append(
                f"| {kind} | {p['chips']} | {p['rows']} | {p['rows'] / p['chips']:g} | {state:.2f} "
                f"| {temporaries / 1e9:.2f} | {'yes' if p['fits'] else 'no'} | {sent:.2f} | "
                f"{1e3 * limit['compute']:.0f} | {1e3 * limit['links']:.1f} | "
                f"{1e3 * speed['seconds']:.0f} | {speed['tokens_per_s_and_chip']:,.0f} |"
            )
    return "\n".join([*lines, ""])


def plot(args, points: list[dict], path: pathlib.Path):
    """Bytes of a chip, its link traffic, and the bound on the step, over the number of chips."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator

    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    panels = (
        ("memory of a chip, GB", lambda p: p["bytes"]["total"] / 1e9),
        (
            "into a chip over its links, GB a step",
            lambda p: sum(c["bytes"] for c in p["collectives"]) / 1e9,
        ),
        ("step, at least, ms (nothing overlapped)", lambda p: 1e3 * sum(p["bound"].values())),
    )
    for axis, (title, value) in zip(axes, panels):
        for kind, style in (("weak", "o-"), ("strong", "s--")):
            found = [p for p in points if kind in p["kinds"]]
            what = (
                f"{kind}: {args.rows} rows a chip"
                if kind == "weak"
                else f"{kind}: {strong_rows(args)} rows a step"
            )
            axis.plot([p["chips"] for p in found], [value(p) for p in found], style, label=what)
        axis.set(title=title, xlabel=f"{args.chip} chips", xscale="log")
        axis.xaxis.set_major_locator(FixedLocator(args.sizes))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticklabels([str(n) for n in args.sizes])
        axis.grid(alpha=0.3)
    axes[1].set_ylim(0, 1.15 * max(panels[1][1](p) for p in points))
    for axis in (axes[0], axes[2]):  # strong scaling is a straight line there
        axis.set_yscale("log")
        for which in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            which("{x:g}")
    axes[0].axhline(points[0]["memory"] / 1e9, color="gray", ls=":", label="usable")
    axes[0].legend()
    axes[1].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def strong_rows(args) -> int:
    """The rows of a step in strong scaling: those of weak scaling in the middle, one plan for
    both."""
    return args.rows * args.sizes[len(args.sizes) // 2]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/stage2.py")
    parser.add_argument("--stage", default="stage2")
    parser.add_argument("--chip", default="a100-40gb")
    parser.add_argument(
        "--sizes", default=(8, 32, 128, 512), type=lambda s: tuple(map(int, s.split(",")))
    )
    parser.add_argument("--rows", default=4, type=int, help="Rows of a chip in weak scaling.")
    parser.add_argument("--remat", default="dots")
    parser.add_argument("--out", default="benchmarks/results", type=pathlib.Path)
    args = parser.parse_args()
    wanted = {}
    for chips in args.sizes:
        wanted.setdefault((chips, args.rows * chips), []).append("weak")
        if strong_rows(args) % chips == 0:
            wanted.setdefault((chips, strong_rows(args)), []).append("strong")
    points, begin = [], time.perf_counter()
    for i, ((chips, rows), kinds) in enumerate(wanted.items(), 1):
        print(
            f"{i}/{len(wanted)}: {chips} x {args.chip}, {rows} rows ({' and '.join(kinds)})",
            flush=True,
        )
        if found := plan(args, chips, rows):
            points.append(found | {"kinds": kinds})
            stem = args.out / f"scaling-{args.chip}"
            stem.with_suffix(".json").write_text(json.dumps(points, indent=1))
            stem.with_suffix(".md").write_text(markdown(args, points))
            plot(args, points, stem.with_suffix(".png"))
        print(f"  {time.perf_counter() - begin:.0f} s so far", flush=True)
    sys.exit(0 if len(points) == len(wanted) else 1)


if __name__ == "__main__":
    main()
