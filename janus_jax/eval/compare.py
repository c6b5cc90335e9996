"""Two reports side by side, and every setting in which they differ."""

import pathlib

from janus_jax.common import cli
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import short, table
from janus_jax.eval.record import flat, read_report

SAID = ("settings", "counts", "scorer", "environment")


def changes(a: dict, b: dict) -> list[tuple[str, str, str]]:
    """(setting, its value in a, in b) of every setting that differs; what only one has is "-"."""
    ours, theirs = (flat({name: x.get(name) or {} for name in SAID}) for x in (a, b))
    told = lambda values, name: short(values[name], 60) if name in values else "-"
    return [
        (name, told(ours, name), told(theirs, name))
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name) or (name in ours) != (name in theirs)
    ]


def compared(a: dict, b: dict) -> str:
    """Both reports' scores in one table, then their differing settings, as text."""
    rows = []
    for name in dict.fromkeys([*a["scores"], *b["scores"]]):
        ours, theirs = (x["scores"].get(name, {}) for x in (a, b))
        values = [one.get("value") for one in (ours, theirs)]
        apart = None if None in values else values[1] - values[0]
        rows.append(
            [
                name,
                values[0],
                _interval(ours),
                values[1],
                _interval(theirs),
                apart,
                _apart(ours, theirs),
            ]
        )
    lines = []
    if rows:
        headers = ("score", "A", "A 95 %", "B", "B 95 %", "B - A", "intervals")
        lines.append(table(headers, rows))
    else:
        lines.append("neither report has a score yet")
    found = changes(a, b)
    if found:
        lines += ["", f"{len(found)} settings differ", table(("setting", "A", "B"), found)]
    else:
        lines += ["", "no setting differs"]
    if a["settings"]["benchmark"] != b["settings"]["benchmark"]:
        lines += ["", "These are two benchmarks: their scores cannot be compared."]
    return "\n".join(lines)


def _interval(score: dict) -> str:
    low, high = score.get("interval") or (None, None)
    return "-" if low is None else f"{low:.4g} to {high:.4g}"


def _apart(a: dict, b: dict) -> str:
    if not a.get("interval") or not b.get("interval"):
        return "-"
    low, high = max(a["interval"][0], b["interval"][0]), min(a["interval"][1], b["interval"][1])
    return "overlap" if low <= high else "apart"


def compare_command(f, _):
    """The command."""
    print(f"A = {f.a}\nB = {f.b}\n")
    print(compared(read_report(pathlib.Path(f.a)), read_report(pathlib.Path(f.b))))


def define_flags(into):
    """The command's flags, in absl's `into`."""
    define = cli.Definer(into)
    define.path("a", None, "The folder of a result, or its report.json.", required=True)
    define.path("b", None, "The other's.", required=True)


COMMAND = cli.Command(
    "python -m janus_jax.eval compare",
    "Two results side by side: their scores, and every setting in which they differ.",
    "python -m janus_jax.eval compare scores/pope-a scores/pope-b",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words after `compare`: two folders, or flags."""
    if not any(word.startswith("-") for word in argv):
        if len(argv) != 2:
            told = f"compare takes two results, not {len(argv)}: compare A B"
            return cli.report(UsageError(told))
        argv = [f"--a={argv[0]}", f"--b={argv[1]}"]
    return cli.run(COMMAND, compare_command, argv)
