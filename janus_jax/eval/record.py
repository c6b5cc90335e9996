"""What makes a number reproducible: every setting, kept beside the result."""

import hashlib
import importlib.metadata
import json
import pathlib
import platform

import jax

from janus_jax.common import files
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import version
from janus_jax.eval.benchmark import Item

REPORT = "report.json"
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "pillow", "tokenizers", "cykooz.resizer")


def asked_hash(asked: list) -> str:
    """SHA-256 of what is asked, in its order: prompts and each one's first file, or questions with
    options and right answers."""
    total_hash = hashlib.sha256()
    for one in asked:
        if isinstance(one, Item):
            told = [one.prompt, one.files[0]]
        else:
            told = [one.index, one.question, dict(one.options), one.answer]
            told += [picture_mark(picture) for picture in one.pictures]
        total_hash.update(json.dumps(told, default=str).encode() + b"\n")
    return total_hash.hexdigest()


def picture_mark(picture) -> str:
    """What tells a record's picture from others without reading it: its place, or what is known of
    its content."""
    if isinstance(picture, str | pathlib.Path):
        return "/".join(pathlib.Path(picture).parts[-2:])
    return str(getattr(picture, "content", getattr(picture, "name", "")))


def environment() -> dict:
    """Versions and devices, which may differ between two parts of one result."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = "not installed"
    package = pathlib.Path(__file__).parents[1]
    code = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        code.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return {
        "janus_jax": version(),
        "code_sha256": code.hexdigest(),
        "python": platform.python_version(),
        **packages,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
    }


def write(folder: pathlib.Path, report: dict):
    """Writes report.json, and report.md for people."""
    files.write(folder / REPORT, json.dumps(report, indent=2))
    files.write(folder / "report.md", page(report))


def read_report(path: pathlib.Path) -> dict:
    """The report at a path, a file or the folder of a result. Raises UsageError."""
    path = path / REPORT if path.is_dir() else path
    if not path.is_file():
        raise UsageError(f"{path}: no such report; give a folder that janus-jax eval wrote")
    try:
        found = files.read_json(path)
        _ = found["settings"]["benchmark"], found["scores"], found["counts"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: no report of janus-jax eval ({error})") from None
    return found


def page(report: dict) -> str:
    """A report in Markdown."""
    settings = report["settings"]
    lines = [f"# {settings['benchmark']} ({settings['protocol']}): {settings['model']['name']}", ""]
    if report["counts"]["missing"]:
        lines += [f"**Not whole: {report['counts']['missing']} are missing.**", ""]
    lines += _scores(report)
    if report["reported"]:
        lines += [
            "",
            "What others reported:",
            "",
            "| model | score | value | source |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {r['model']} | {r['score']} | {r['value']:g} | {r['source']} |"
            for r in report["reported"]
        ]
    told = {k: report[k] for k in ("settings", "counts", "scorer", "environment") if report.get(k)}
    lines += ["", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in flat(told).items()]
    return "\n".join(lines) + "\n"


def _scores(report: dict) -> list[str]:
    if not report["scores"]:
        told = [f"Not scored yet. {report.get('next', '')}".strip()]
        if command := report.get("command"):
            told = ["Not scored yet. What scores it:", "", "```bash", command, "```"]
            told += [
                "",
                "Then give what it wrote: the same `janus-jax eval`, with `--results=FILE`.",
            ]
        return told
    lines = ["| score | value | 95 % interval | chance |", "|---|---|---|---|"]
    for name, score in report["scores"].items():
        mark = "**" if name == report["headline"] else ""
        low, high = score.get("interval") or (None, None)
        interval = "" if low is None else f"{low:.4g} to {high:.4g}"
        chance = f"{score['chance']:.3g}" if score.get("chance") is not None else ""
        lines.append(f"| {mark}{name}{mark} | {score['value']:.4g} | {interval} | {chance} |")
    if by_picture := report.get("by_picture"):
        n = len(next(iter(by_picture.values()))["values"])
        lines += ["", f"| score | of the 1st to {n}th picture of each prompt alone | 95 %, seeds |"]
        lines.append("|---|---|---|")
        for name, one in by_picture.items():
            told = ", ".join(f"{value:.4g}" for value in one["values"])
            seeds = "{:.4g} to {:.4g}".format(*one["interval"]) if one["interval"] else ""
            lines.append(f"| {name} | {told} | {seeds} |")
    return lines


def flat(values: dict, path: str = "") -> dict:
    """Nested dicts as one: dotted path -> value."""
    out = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        out |= flat(value, f"{path}{key}.") if inner else {f"{path}{key}": value}
    return out


def _cell(value) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
