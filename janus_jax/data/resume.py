"""Where a run stands in its data, carried over to another mixture or another number of streams."""

import dataclasses
import importlib.metadata

import numpy as np

from janus_jax.common.text import differences
from janus_jax.data.mixture import Mixture
from janus_jax.data.sources import SourceError

FORMAT = 2  # of positions; other numbers would be other rows
# only said: other libraries may change bits of a picture, never which record is drawn
_VERSIONS = "versions"


def fingerprint(mixture: Mixture, encoder) -> dict:
    """What a position means something for: name -> value, comparable and readable."""
    datasets = {
        e.name: {
            "kind": e.kind, "records": len(e.source), "content": e.source.fingerprint, "weight": e.weight,
            "steps": list(e.steps), "form": e.form, "continues": e.continues,
        }
        for e in mixture.entries
    }  # fmt: skip
    return {
        "datasets": datasets,
        "ratio": mixture.ratio,
        "seed": mixture.seed,
        "rows": dataclasses.asdict(encoder.rows),
        "examples": {
            "supervise": encoder.supervise,
            "dropout": encoder.dropout,
            "first": encoder.first,
        },
        "template": dataclasses.asdict(encoder.processor.template),
        "tokenizer": encoder.processor.tokenizer.fingerprint,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of the libraries that make a row's numbers."""
    out = {}
    for name in ("numpy", "pillow", "tokenizers", "grain", "cykooz.resizer"):
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "not installed"
    return out


def differing(old: dict, now: dict) -> list[str]:
    """In what two fingerprints differ, a line each; other libraries are no other data."""
    return differences({**old, _VERSIONS: 0}, {**now, _VERSIONS: 0})


def restore_position(
    state: dict, now: dict, mixture: Mixture, accept: bool
) -> tuple[dict[int, dict], list[str], list[str] | None]:
    """The streams' states for a mixture, from a saved position; what changed, in words; and the
    data sets that go on, None where nothing changed.

    state: of `Batches.get_state`, all streams in it.
    now: the `fingerprint` of the data as it is now.
    mixture: what is drawn from now on.
    accept: go on though the data has changed. Every example that was drawn stays drawn, and those
        that were not, or waited for a row, come first; a data set of other content begins anew.

    Raises SourceError naming the differences unless they are accepted.
    """
    if state.get("format") != FORMAT:
        raise SourceError(
            f"the checkpoint's position in the data has format {state.get('format')}, this version "
            f"reads {FORMAT}: "
            f"go on with the version that saved it, or begin the stage in another --workdir"
        )
    streams = {int(n): stream for n, stream in state["streams"].items()}
    old = state["fingerprint"]
    changed = differing(old, now)
    versions = [
        f"{line} (rows may differ in bits)" for line in differences(old[_VERSIONS], now[_VERSIONS])
    ]
    if not changed:
        return streams, versions, None
    if not accept:
        raise SourceError(
            "the data is not what this run was trained on so far:\n  "
            + "\n  ".join(changed)
            + "\nundo that, or accept it (--accept_changes): what was drawn stays drawn, and a data "
            "set whose content changed begins anew"
        )
    out, said, stayed = _dealt(old, streams, now, mixture, state["step"])
    return out, [*changed, *said, *versions], stayed


def _dealt(old: dict, streams: dict, new: dict, mixture: Mixture, step: int):
    n = len(mixture.entries)
    names = list(old["datasets"])
    blank = {
        "kinds": [0] * 3,
        "phase": mixture.phase(step),
        "drawn_this_phase": [0] * n,
        "drawn": [0] * n,
        "buffer": [],
    }
    starts = [0] * n
    lefts = [[]] * n
    said = []
    stayed = []
    for i, e in enumerate(mixture.entries):
        before = old["datasets"].get(e.name)
        after = new["datasets"][e.name]
        same = (
            before
            and all(before[k] == after[k] for k in ("records", "content"))
            and old["seed"] == new["seed"]
        )
        if same:
            starts[i], left = undrawn(streams, names.index(e.name))
            lefts[i] = left
            stayed.append(e.name)
            said.append(
                f"data.datasets.{e.name} goes on from {starts[i]} drawn, {len(left)} of them once "
                f"more to come"
            )
        else:
            said.append(
                f"data.datasets.{e.name} begins anew"
                if before
                else f"data.datasets.{e.name} is new"
            )
    said += [
        f"data.datasets.{name} is drawn no more" for name in names if name not in new["datasets"]
    ]
    dealt = {
        b: {**blank, "start": starts, "replay": [left[b :: mixture.streams] for left in lefts]}
        for b in range(mixture.streams)
    }
    return dealt, said, stayed


def undrawn(streams: dict[int, dict], entry: int) -> tuple[int, list]:
    """A position beyond which no stream has drawn of an entry, and (position, attempt, at) of those
    before it that came into no row yet, or not to their end."""
    count = len(streams)
    start = streams[0]["start"][entry]
    drawn = np.zeros((max(stream["drawn"][entry] for stream in streams.values()), count), bool)
    for b, stream in streams.items():
        drawn[: stream["drawn"][entry], b] = True
    left = [[start + int(p), 0, 0] for p in np.flatnonzero(~drawn)]
    for stream in streams.values():
        left += stream["replay"][entry]
        left += [waiting for e, *waiting in stream["buffer"] if e == entry]
    return start + drawn.size, sorted(left)
