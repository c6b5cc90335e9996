"""What the model sees of data sets as one HTML page: no script, no other file, light or dark."""

import base64
import dataclasses
import html
import io

from PIL import Image

from janus_jax.common.text import short
from janus_jax.data.sources import printable
from janus_jax.data.tools.view import PackedRow, Piece, Segment, Shown, visible
from janus_jax.model import batch as bt

_SIDE = 224  # pixels at which pictures are shown, about
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --page: #fbfbf9; --ink: #1d2126; --soft: #667078; --line: #d9dcdf;
  --card: #ffffff; --learn: #bfe8c8; --learn-edge: #1d7a3a; --read: #eceef1; --control: #6b4fa3;
  --cut: #b3261e; --pad: #e4e5e7; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --ink: #e4e7ea; --soft: #98a2ab;
  --line: #333a41; --card: #1c2126; --learn: #1f5132; --learn-edge: #7fdc9b; --read: #2a3037;
  --control: #c3abf3; --cut: #ff8a80; --pad: #23282d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: .2rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem; }
h3 { font-size: 1rem; margin: 0; } p { margin: .3rem 0; } .soft { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .8rem 1rem; margin: .8rem 0; }
.tokens { font: 14px/2 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap; margin: .6rem 0 0; }
.t { unicode-bidi: isolate; padding: .12em 0; border-radius: .2em; box-shadow: inset 0 0 0 1px var(--card);
  background: var(--read); }
.p { background: var(--learn); box-shadow: inset 0 0 0 1px var(--card), inset 0 -2px var(--learn-edge); }
.c { color: var(--control); border: 1px solid var(--control); border-radius: .5em; padding: 0 .3em;
  margin: 0 .1em; font-size: 12px; background: none; }
.c.p { background: var(--learn); }
.slots { display: inline-block; vertical-align: top; white-space: normal; padding: .4rem; margin: .2rem;
  line-height: 1.35; border-radius: .4rem; font-size: 12px; max-width: 100%; }
.slots img { display: block; max-width: 100%; border-radius: .2rem; margin-bottom: .3rem; }
.tiny { image-rendering: pixelated; } .cut { color: var(--cut); font-weight: 600; white-space: normal; }
.bar { display: flex; gap: 2px; margin: .6rem 0; } .bar a { min-width: 0; overflow: hidden; display: block;
  text-align: center; font-size: 12px; color: inherit; text-decoration: none; }
.bar i { display: flex; height: 1.2rem; background: var(--read); } .bar u { display: block; }
.bar .gap { background: var(--pad); height: 1.2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; width: 100%; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: normal; } td.n { white-space: nowrap; }
td:last-child { overflow-wrap: anywhere; min-width: 10rem; } summary { cursor: pointer; margin-top: .4rem; }
"""


@dataclasses.dataclass
class View:
    """What stages see of a data set.

    title: of the data set.
    facts: how they see it, in words.
    shown: examples of its first records.
    bad: why records before them cannot be used.
    """

    title: str
    facts: str
    shown: list[Shown]
    bad: list[str]


def page(title: str, notes: list[str], views: list[View], rows: list[PackedRow]) -> str:
    """The page. What records say is escaped; nothing of it is obeyed.

    title: what is shown.
    notes: facts about all of it, a paragraph each.
    views: data sets, as stages see them.
    rows: the first packed row of each stage.
    """
    body = [f"<h1>{_text(title)}</h1>", *(f'<p class="soft">{_text(note)}</p>' for note in notes)]
    body.append(_legend())
    for view in views:
        body.append(f"<h2>{_text(view.title)}</h2>")
        body.append(f'<p class="soft">{_text(view.facts)}</p>')
        body += [f'<p class="cut">{_text(short(why, 500))}</p>' for why in view.bad]
        body += [_card(example) for example in view.shown]
    body += [_row(row, k) for k, row in enumerate(rows)]
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style>"
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'
    )


def _text(text: str) -> str:
    return html.escape(printable(visible(text)))


def _legend() -> str:
    return (
        '<p><span class="t p">to predict</span> <span class="t">read, not learned from</span> '
        '<span class="t c">control id</span> <span class="soft">A token is a box; point at it for '
        "its id and position. ⏎ is a line break.</span></p>"
    )


def _card(example: Shown) -> str:
    return (
        f'<div class="card"><h3>{_text(example.where)}</h3><p class="soft">{_text(example.told)}</p>'
        f'<div class="tokens">{_tokens(example.pieces, example.pictures, example.cut)}</div></div>'
    )


def _tokens(pieces: list[Piece], pictures: list[tuple] = (), cut: tuple | None = None) -> str:
    out = []
    waiting = list(pictures)
    for piece in pieces:
        if cut and piece.at <= cut[0] < piece.at + len(piece.ids):
            out.append(_cut(cut))
        if piece.role == bt.TEXT:
            out.append(_token(piece))
        else:
            is_picture = waiting and piece.role in bt.SLOTS.values()
            out.append(_slots(piece, waiting.pop(0) if is_picture else None))
    end = pieces[-1].at + len(pieces[-1].ids)
    return "".join(out) + (_cut(cut) if cut and cut[0] >= end else "")


def _cut(cut: tuple[int, int]) -> str:
    return f'<span class="cut"> ✂ {cut[1]} tokens are left out </span>'


def _token(piece: Piece) -> str:
    numbers = " ".join(map(str, piece.ids))
    kinds = f"t{' c' if piece.control else ''}{' p' if piece.predicted else ''}"
    learned = "to predict" if piece.predicted else "read"
    about = f"id {numbers}, position {piece.at}, {learned}"
    text = _text(piece.text).replace("\n", "⏎\n")
    return f'<span class="{kinds}" title="{about}">{text}</span>'


def _slots(piece: Piece, picture: tuple | None) -> str:
    count = len(piece.ids)
    last = piece.at + count - 1
    fills = {
        bt.UNDERSTANDING_SLOT: "slots that the picture's features fill",
        bt.GENERATION_SLOT: "image ids",
    }
    what = fills.get(piece.role, "slots that the features of another sense fill")
    learned = ", to predict" if piece.predicted else ""
    told = f"{count} {what}{learned}; positions {piece.at} to {last}"
    shown = ""
    width = _SIDE
    if picture:
        pixels, how = picture
        side = pixels.shape[0]
        width = side * max(1, _SIDE // side)
        tiny = ' class="tiny"' if width > side else ""
        shown = f'<img{tiny} width="{width}" alt="the picture" src="{_uri(pixels)}">'
        told = f"{how}<br>{told}"
    kinds = f"slots t{' p' if piece.predicted else ''}"
    return f'<span class="{kinds}" style="width:calc({width}px + .8rem)">{shown}{told}</span>'


def _uri(pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _row(row: PackedRow, k: int) -> str:
    """A packed row: a bar of its segments, a table of them, the tokens of each."""
    bar = [_stripe(s, k) for s in row.segments]
    if row.padding:
        bar.append(f'<a style="flex:{row.padding}"><i class="gap"></i>padding</a>')
    cells = "".join(
        f'<tr><td class="n">{s.number}</td><td class="n">{s.begin} to {s.end - 1}</td>'
        f'<td class="n">{s.positions[0]} to {s.positions[1]}</td><td class="n">{s.predicted}</td>'
        f"<td>{s.kind}</td><td>{_text(s.name)}</td><td>{_text(s.where)}</td></tr>"
        for s in row.segments
    )
    names = (
        "segment",
        "places in the row",
        "positions",
        "to predict",
        "kind",
        "data set",
        "record",
    )
    heads = "".join(f"<th>{name}</th>" for name in names)
    tokens = "".join(
        f'<details id="r{k}s{s.number}"><summary>tokens of segment {s.number}</summary>'
        f'<div class="tokens">{_tokens(s.pieces)}</div></details>'
        for s in row.segments
    )
    told = f"{row.length} tokens, {len(row.segments)} examples, {row.padding} of padding. "
    why = "A token sees what comes before it in its own segment; positions begin anew with each."
    return (
        f'<h2>Packed: {_text(row.title)}</h2><p class="soft">{told}{why}</p>'
        f'<div class="card"><div class="bar">{"".join(bar)}</div><div class="wide"><table>'
        f"<tr>{heads}</tr>{cells}</table></div>{tokens}</div>"
    )


def _stripe(s: Segment, k: int) -> str:
    """A segment of the bar: what is predicted in it is coloured."""
    runs = []
    for piece in s.pieces:
        if runs and runs[-1][0] == piece.predicted:
            runs[-1][1] += len(piece.ids)
        else:
            runs.append([piece.predicted, len(piece.ids)])
    inner = "".join(f'<u class="{"p" if p else ""}" style="flex:{n}"></u>' for p, n in runs)
    return f'<a href="#r{k}s{s.number}" style="flex:{s.end - s.begin}"><i>{inner}</i>{s.number}</a>'
