"""What data.py found, as JSON, Markdown and a plot."""

import json
import pathlib

PEERS = {
    "folder": "DataLoader, JPEG folder",
    "tar": "DataLoader, webdataset",
    "parquet": "DataLoader, datasets",
}
COLOURS = {
    "read": "#4477aa",
    "decode": "#66ccee",
    "resize": "#228833",
    "tokenize": "#ccbb44",
    "rest": "#bbbbbb",
}


def write(results: dict, out: pathlib.Path) -> None:
    """What there is so far, where --out says."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    out.with_suffix(".md").write_text(report(results))
    if "formats" in results:
        plot(results, out.with_suffix(".png"))


def report(results: dict) -> str:
    c = results["corpus"]
    sizes = ", ".join(f"{n} of {size}" for size, n in c["sizes"].items())
    lines = [
        "# Data: records a second of a core",
        "",
        f"{results['machine']}; {results['versions']}",
        f"`{results['command']}`",
        "",
        f"{c['wanted']['count']} JPEGs ({sizes}; {c['bytes'] / 1e3:.0f} kB on average), captions "
        f"of {c['caption words']:.0f} words, answers of {c['answer words']:.0f}. "
        f"{results['repeats']} turns of {results['records']} records, worker processes of a side: "
        f"{results['workers']}; all of a side on one core.",
    ]
    for part, text in (("pictures", _pictures), ("formats", _formats), ("stages", _stages)):
        if part in results:
            lines += ["", *text(results[part])]
    return "\n".join(lines) + "\n"


def _pictures(found: list[dict]) -> list[str]:
    lines = [
        "## A JPEG, read and resized to 384 (longest side)",
        "",
        "Milliseconds of CPU. Exact: as inference does, bit for bit Pillow's. Apart: levels of 255 "
        "from exact.",
        "",
        "| | exact | quick resizing | apart, max | PSNR | scaled while decoding too | apart, max "
        "(mean) | PSNR |",
        "|---|---|---|---|---|---|---|---|",
    ]
    noise = lambda x: "equal" if x["psnr"] is None else f"{x['psnr']:.0f} dB"
    for x in found:
        quick, scaled, exact = x["quick resizing"], x["scaled too"], x["exact"]["ms"]
        lines.append(
            f"| {'x'.join(map(str, x['size']))} | {exact:.2f} | {quick['ms']:.2f} "
            f"({exact / quick['ms']:.1f}x) | {quick['max']:.0f} | {noise(quick)} | "
            f"{scaled['ms']:.2f} ({exact / scaled['ms']:.1f}x) | {scaled['max']:.0f} "
            f"({scaled['mean']:.2f}) | {noise(scaled)} |"
        )
    return lines


def memory(x: dict) -> str:
    return " / ".join(f"{b / 1e6:.0f}" for b in x["held"])


def _formats(found: dict) -> list[str]:
    lines = [
        "## By format",
        "",
        "Ours packs, masks and keeps its position besides; the others only batch, to their "
        "advantage. Memory: MB of the largest worker after the first, the middle and the last "
        "turn. Ours over theirs: above 1 ours is better.",
        "",
        "| | records/s | CPU ms a record | rows/s | over theirs, wall | over theirs, CPU | memory "
        "| disturbed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, x in found.items():
        theirs = x["sides"].get("theirs", {})
        for who, s in x["sides"].items():
            label = PEERS[name] if who == "theirs" else f"{name}, {who}"
            if "failed" in s:
                lines.append(f"| {label} | failed: {s['failed']} | | | | | | |")
                continue
            wall = cpu = ""
            if who != "theirs" and "cpu ms" in theirs:
                wall = f"{s['records/s'] / theirs['records/s']:.2f}x"
                cpu = f"{theirs['cpu ms'] / s['cpu ms']:.2f}x"
            rows = f"{s['rows/s']:.1f}" if "rows/s" in s else ""
            lines.append(
                f"| {label} | {s['records/s']:.0f} | {s['cpu ms']:.2f} | {rows} | {wall} | {cpu} | "
                f"{memory(s)} | {s['disturbed']} of {len(s['turns'])} |"
            )
    lines += [
        "",
        "Where our CPU milliseconds of a record go (parts timed one after the other in one thread; "
        "the rest, mixing, packing, batching and handing over, is the difference to the whole):",
        "",
        "| | read | decode | resize | tokenize and template | rest |",
        "|---|---|---|---|---|---|",
    ]
    for name, x in found.items():
        lines.append(f"| {name} | " + " | ".join(f"{v:.2f}" for v in parts(x).values()) + " |")
    return lines


def parts(x: dict) -> dict[str, float]:
    """CPU milliseconds of a record by part; the rest of the whole, at least 0."""
    whole = x["sides"]["ours"]["cpu ms"]
    return x["sections"] | {"rest": max(whole - sum(x["sections"].values()), 0.0)}


def _stages(found: dict) -> list[str]:
    lines = [
        "## By stage: what a core makes, and what the full-size model takes",
        "",
        "Ours on each stage's mixture (JSON and a JPEG folder, rows of 4096), a core by CPU time; "
        "then what the steps of Janus-1.3B take at the chips' peak, which nothing reaches "
        "(janus_jax/distributed/chips.py), in the target's rows. Cores: what a host (8 A100s; 4 "
        "v5e chips) needs for these pictures, at most. The plan takes documents of 1000 tokens, "
        "those here have about 300: tokenizing longer ones costs more.",
        "",
        "| | examples/s | rows/s | full | on | rows/s | pictures/s | examples/s | cores of a host |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, x in found.items():
        s = x["sides"]["ours"]
        made = 1e3 / s["cpu ms"]
        for target, d in x["demand"].items():
            lines.append(
                f"| {name} | {made:.0f} | {1e3 / s['cpu ms a row']:.1f} | {s['full']:.0%} | "
                f"{target}, {d['hosts']} hosts | {d['rows/s']:.0f} | {d['pictures/s']:.0f} | "
                f"{d['examples/s']:.0f} | {d['examples/s'] / made / d['hosts']:.2f} |"
            )
    return lines


def plot(results: dict, path: pathlib.Path) -> None:
    """CPU milliseconds of a record by format: ours by part, theirs whole."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    labels, y = [], 0
    for name, x in results["formats"].items():
        left = 0.0
        for part, ms in parts(x).items():
            axis.barh(y, ms, left=left, color=COLOURS[part], label=part if y == 0 else None)
            left += ms
        labels.append(f"ours, {name}")
        y += 1
        if theirs := x["sides"].get("theirs", {}).get("cpu ms"):
            axis.barh(y, theirs, color="#ee6677", label="theirs, whole" if y == 1 else None)
            labels.append(PEERS[name])
            y += 1
    axis.set_yticks(range(y), labels)
    axis.invert_yaxis()
    axis.set_xlabel("CPU milliseconds of a record")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=110)
    plt.close(figure)
