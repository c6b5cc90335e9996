"""What a survey found, as plain data and as text."""

import collections

import numpy as np

from janus_jax.data.tools import duplicates
from janus_jax.data.tools.survey import Survey

SHOWN = 20  # lines of a list on the screen
KEPT = 1000  # groups of duplicates in the report's file
EDGES = (0, 32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 4096)  # longest side, pixels
BAR = 40
# The ratio of the sides above which, and the longest side below which, a picture is named as
# unusual.
LONG = 10
SMALL = 32
USUAL = ("RGB", "L", "P", "RGBA", "drawn")  # modes of files; others are scaled or converted


def summary(survey: Survey, source, length: int) -> dict:
    """A survey as plain data. source: names records by `where`; length: a row's tokens in the first
    stage that draws them, whose examples' lengths are told."""
    good = survey.good
    out = {
        "kind": survey.kind,
        "path": survey.path,
        "records": survey.total,
        "looked_at": survey.looked,
        "usable": len(good),
        "unusable": len(survey.bad),
        "causes": survey.causes(),
        "closed": survey.closed,
        "left_out": dict(getattr(source, "left_out", {})),
        "understood": survey.counted("notes"),
        "unread_fields": survey.counted("unread"),
    }
    sizes = np.array([size for record in good for size in record.sizes]).reshape(-1, 2)
    if len(sizes):
        files = collections.Counter(file for record in good for file in record.files)
        unusual = _unusual(good, source)
        longest = np.histogram(sizes.max(axis=1), [*EDGES, np.inf])[0]
        out["pictures"] = {
            "count": len(sizes),
            "width": _spread(sizes[:, 0]),
            "height": _spread(sizes[:, 1]),
            "aspect": _spread(sizes[:, 0] / sizes[:, 1]),
            "longest_side": dict(zip(map(str, EDGES), longest.tolist())),
            "files": dict(files.most_common()),
            "unusual": unusual[:KEPT],
            "unusual_count": len(unusual),
        }
    if good:
        of = [next(iter(record.examples.values())) for record in good]
        out["tokens"] = {
            "text": _spread(np.array([sum(e.text for e in parts) for parts in of])),
            "all": _spread(np.array([sum(e.tokens for e in parts) for parts in of])),
            "cut": sum(parts[0].cut for parts in of),
            "continued": sum(len(parts) > 1 for parts in of),
            "predicted": float(np.mean([sum(e.predicted for e in parts) for parts in of])),
            "row": length,
        }
        out["different_texts"] = len({record.words for record in good})
        out["duplicates"] = _duplicates(good, source)
    return out


def summary_lines(name: str, s: dict, bad: list[dict]) -> list[str]:
    """A summary for the terminal."""
    if s["closed"]:
        return [f"{name} ({s['kind']}, {s['path']}): CANNOT BE OPENED", *_indent([s["closed"]])]
    some = "all" if s["looked_at"] == s["records"] else f"{s['looked_at']:,} drawn at random were"
    out = [f"{name} ({s['kind']}, {s['path']}): {s['records']:,} records, {some} looked at"]
    share = f" ({s['unusable'] / max(s['looked_at'], 1):.2%})" if s["unusable"] else ""
    causes = (
        ": " + ", ".join(f"{n:,} {cause}" for cause, n in s["causes"].items())
        if s["causes"]
        else ""
    )
    body = [f"usable {s['usable']:,}, unusable {s['unusable']:,}{share}{causes}"]
    body += _indent(_cut([f"[{line['cause']}] {_named(line)}" for line in bad]))
    for title, counts in (
        ("left out when the data set is opened", s["left_out"]),
        ("understood as", s["understood"]),
        ("fields that nothing reads", s["unread_fields"]),
    ):
        if counts:
            told = _cut([f"{words} ({n:,})" for words, n in counts.items()])
            body.append(f"{title}: {', '.join(told)}")
    if "pictures" in s:
        body += _pictures(s["pictures"])
    if "tokens" in s:
        body += _tokens(s["tokens"])
        if s["different_texts"] < s["usable"]:
            body.append(f"{s['usable']:,} records say {s['different_texts']:,} different texts")
        body += _repeats(s["duplicates"])
    return out + _indent(body)


def _named(line: dict) -> str:
    """A message that begins with its record's file and number."""
    return (
        line["message"]
        if line["message"].startswith(line["where"])
        else f"{line['where']}: {line['message']}"
    )


def _pictures(p: dict) -> list[str]:
    row = lambda name, form: (
        f"{name} {form(p[name]['min'])} / {form(p[name]['median'])} / {form(p[name]['max'])}"
    )
    whole = lambda x: f"{x:,.0f}"
    ratio = lambda x: f"{x:.3g}"
    out = [
        f"pictures {p['count']:,}; least / median / most: {row('width', whole)}, "
        f"{row('height', whole)}, "
        f"{row('aspect', ratio)} (width : height)"
    ]
    out[0] += "; files " + ", ".join(f"{n:,} {kind}" for kind, n in p["files"].items())
    counts = p["longest_side"]
    filled = [k for k, n in enumerate(counts.values()) if n]
    names = [*counts, ""]
    most = max(counts.values())
    for k in range(filled[0], filled[-1] + 1):
        n = counts[names[k]]
        span = f"{names[k]} to {int(names[k + 1]) - 1}" if names[k + 1] else f"{names[k]} and more"
        out.append(f"  longest side {span:>14} {n:>9,} {'#' * -(-BAR * n // most)}".rstrip())
    if p["unusual"]:
        out += [
            f"unusual, and used: {p['unusual_count']:,} pictures",
            *_indent(_cut(p["unusual"], p["unusual_count"])),
        ]
    return out


def _tokens(t: dict) -> list[str]:
    text = t["text"]
    all_of = t["all"]
    out = [
        f"tokens of text: {text['min']:,.0f} to {text['max']:,.0f}, median {text['median']:,.0f}, "
        f"95 % have at most "
        f"{text['p95']:,.0f}; with pictures {all_of['mean']:,.0f} on average, "
        f"{t['predicted']:,.0f} to be predicted"
    ]
    if t["cut"]:
        out.append(
            f"{t['cut']:,} are longer than a row of {t['row']:,}: their text is cut, here as in "
            f"training"
        )
    if t["continued"]:
        out.append(
            f"{t['continued']:,} are longer than a row of {t['row']:,}: they go on in later rows"
        )
    return out


def _repeats(d: dict) -> list[str]:
    out = []
    for name, title in (
        ("records", "said twice: records with the same text and pictures"),
        ("pictures", "there twice: pictures with the same pixels"),
    ):
        groups = d[name]["groups"]
        if groups:
            out.append(f"{title}, {d[name]['count']:,} in {d[name]['total']:,} groups")
            out += _indent(_cut([" = ".join(_few(group)) for group in groups], d[name]["total"]))
    return out


def _unusual(good: list, source) -> list[str]:
    """Pictures that can be used, but are of a kind that is often a mistake, by name."""
    out = []
    for record in good:
        for (width, height), file in zip(record.sizes, record.files):
            why = []
            if max(width, height) > LONG * min(width, height):
                why.append(f"{width}x{height}")
            if max(width, height) < SMALL:
                why.append(f"only {width}x{height}")
            if file.split()[-1] not in USUAL:
                why.append(file)
            if why:
                out.append(f"{source.where(record.index)}: {', '.join(why)}")
    return out


def _duplicates(good: list, source) -> dict:
    """Groups as lists of `where`; a picture of another than its record's first place is named by
    its number."""
    pictures = [(r.index, k, len(r.sizes)) for r in good for k in range(len(r.sizes))]
    name = lambda i, k=0, n=1: source.where(i) + (f" picture {k}" if n > 1 else "")
    said = duplicates.same([(r.words, *r.pixels) for r in good])
    pixels = [p for r in good for p in r.pixels]
    exact = duplicates.same(pixels)
    named = lambda groups, of: {
        "count": sum(len(g) for g in groups),
        "total": len(groups),
        "groups": [[of(i) for i in g] for g in groups[:KEPT]],
    }
    return {
        "records": named(said, lambda i: name(good[i].index)),
        "pictures": named(exact, lambda i: name(*pictures[i])),
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    low, middle, high, top = np.percentile(values, (0, 50, 95, 100))
    return {
        "min": float(low),
        "median": float(middle),
        "mean": float(values.mean()),
        "p95": float(high),
        "max": float(top),
    }


def _cut(rows: list[str], total: int = 0) -> list[str]:
    more = max(total, len(rows)) - SHOWN
    return rows[:SHOWN] + ([f"... and {more:,} more"] if more > 0 else [])


def _few(names: list[str]) -> list[str]:
    return names[:4] + ([f"... {len(names) - 4:,} more"] if len(names) > 4 else [])


def _indent(rows: list[str]) -> list[str]:
    return [f"  {line}" for row in rows for line in row.split("\n")]
