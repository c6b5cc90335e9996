"""What device.py's parts find: lines of JSON, written as they come, and the Markdown made of them.

A line is of the runner, {"part", "state", "seconds"}, or of a part, {"part", "row", "right",
"values"}. A row that is told again replaces the one before.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import time
import traceback

LINES, REPORT = "device.jsonl", "device.md"
RUNNING, DONE, ELSEWHERE = "running", "done", "not for"


class Lines:
    """The file of lines in a folder. Several processes may add to it."""

    def __init__(self, out: pathlib.Path):
        self.path = pathlib.Path(out) / LINES

    def add(self, part: str, **values) -> None:
        """One line, on the disk when this returns: a kill afterwards loses nothing."""
        line = json.dumps({"part": part, "at": round(time.time(), 1), **values}) + "\n"
        with open(self.path, "a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[dict]:
        """All whole lines; one that a kill has cut is passed over."""
        found = []
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def rows(self, part: str) -> dict[str, dict]:
        """row -> values, of a part."""
        return {x["row"]: x["values"] for x in self.read() if x["part"] == part and "row" in x}


@dataclasses.dataclass(frozen=True)
class Here:
    """Where a part runs.

    part: its name.
    argument: what of its function's kinds it is, or "".
    lines: where it says what it finds.
    work: a folder for large files, gone afterwards.
    toy: whether sizes are such as a CPU does in seconds.
    """

    part: str
    argument: str
    lines: Lines
    work: pathlib.Path
    toy: bool

    def say(self, row: str, right: bool | None = None, **values) -> None:
        """A row of the report. right: the verdict, where there is one."""
        print(f"{row}: {values} {'' if right is None else right}", flush=True)
        self.lines.add(self.part, row=row, right=right, values=values)


def child(functions: dict) -> None:
    """The main program of a script of parts: `FUNCTION --part=NAME --out=DIR --work=DIR`, as
    device.py calls it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("function", choices=functions)
    parser.add_argument("--part", required=True)
    parser.add_argument("--argument", default="")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    here = Here(args.part, args.argument, Lines(args.out), args.work, args.toy)
    try:
        functions[args.function](here)
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"{type(error).__name__}: {show(error)}")  # the last line is what the report says


def states(lines: list[dict]) -> dict[str, dict]:
    """part -> the last line of its state."""
    return {x["part"]: x for x in lines if "state" in x}


def all_well(lines: list[dict], parts) -> bool:
    """Whether every part ended well and nothing was found wrong."""
    ended = states(lines)
    good = lambda state: state == DONE or state.startswith(ELSEWHERE)
    done = all(good(ended.get(part.name, {}).get("state", "")) for part in parts)
    return done and not any(x.get("right") is False for x in last_rows(lines))


def last_rows(lines: list[dict]) -> list[dict]:
    """The lines of parts, those that were told again left out, in the order of the first telling."""
    return list({(x["part"], x["row"]): x for x in lines if "row" in x}.values())


def show(value) -> str:
    """A value of the report: four digits of a number, no line or column breaks."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "/")


def table(head: list[str], rows: list[list]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(show, row)) + " |" for row in lines]


def section(part, rows: list[dict]) -> list[str]:
    """What one part found: a column for each value that any of its rows has."""
    columns = list(dict.fromkeys(name for x in rows for name in x["values"]))
    judged = any(x["right"] is not None for x in rows)
    body = []
    for x in rows:
        verdict = ["" if x["right"] is None else x["right"]] if judged else []
        body.append([x["row"], *(x["values"].get(name, "") for name in columns), *verdict])
    head = ["", *columns, *(["right"] if judged else [])]
    return ["", f"## {part.name}", "", part.what, "", *table(head, body)]


def report(lines: list[dict], parts, head: str) -> str:
    """The Markdown.

    lines: as `Lines.read` gives them.
    parts: the run's, in order; each has a name, a limit in seconds and says what it finds.
    head: the first lines: the command and the machine.
    """
    ended, rows = states(lines), last_rows(lines)
    overview, sections = [], []
    for part in parts:
        own = [x for x in rows if x["part"] == part.name]
        judged = [x["right"] for x in own if x["right"] is not None]
        verdict = f"{sum(judged)} of {len(judged)}" if judged else ""
        state = ended.get(part.name, {"state": "not begun"})
        overview.append(
            [part.name, state["state"], state.get("seconds", ""), part.limit, len(own), verdict]
        )
        sections += section(part, own) if own else []
    columns = ["part", "state", "seconds", "limit", "rows", "right"]
    return "\n".join([head, "", *table(columns, overview), *sections, ""])
