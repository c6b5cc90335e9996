"""What makes a number reproducible: every setting, kept beside the result."""

import hashlib
import importlib.metadata
import json
import pathlib
import platform

import jax

from janus_jax.common import files
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import differences, listed, version
from janus_jax.eval.benchmark import Item

SETTINGS = "settings.json"  # of the result that is being made
REPORT = "report.json"
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "pillow", "tokenizers", "cykooz.resizer")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".npz")


def digest(path: pathlib.Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def weights_hash(path: pathlib.Path) -> str:
    """SHA-256 over the weights of a folder or file. A training checkpoint's is that of its
    manifest, which holds the sums of its arrays."""
    if not path.is_dir():
        return digest(path)
    found = sorted(p for p in path.iterdir() if p.suffix in WEIGHTS)
    found = found or [path / "manifest.json"]
    return hashlib.sha256("".join(map(digest, found)).encode()).hexdigest()


def settings_mark(settings: dict) -> str:
    """Settings as a short word, to compare those of several processes."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


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


def of_model(name: str, source, processor, dtype: str | None) -> dict:
    """What is said of a model.

    name: as it was asked for.
    source: the opened weights.
    dtype: asked for, or None.
    """
    template = processor.template
    return {
        "name": name,
        "sha256": weights_hash(source.path),
        "layout": source.kind,
        "dtype": dtype or source.config.dtype,
        "template": {
            "user": template.user,
            "assistant": template.assistant,
            "system": template.system,
        },
        "native_size": source.config.generation_encoder.image_size,
        "understanding_size": source.config.understanding_encoder.image_size,
        "understanding_resizer": "the longer side to the size, bicubic, the rest background",
    }


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


def begin(folder: pathlib.Path, settings: dict):
    """Remembers the settings of the result that is made in a folder. Raises UsageError where one of
    other settings lies there: pictures and answers of two kinds would be counted as one."""
    path = folder / SETTINGS
    settings = json.loads(json.dumps(settings))
    if path.exists():
        changed = differences(files.read_json(path), settings)
        if changed:
            raise UsageError(
                f"{folder} holds a result of other settings; give another --out, or undo:"
                f"{listed(changed)}"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            f"{folder}: not empty, and no {SETTINGS} says of what; give another --out, or empty it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(settings, indent=2))


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
