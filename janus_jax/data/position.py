"""Where a run stands in its data, carried over to another mixture or another number of lanes."""

import numpy as np

from janus_jax.data.mixture import Mixture
from janus_jax.data.sources import SourceError

_VERSIONS = "versions"  # only said: other libraries may change bits of a picture, never which record is drawn


def moved(
    state: dict, fingerprint: dict, mixture: Mixture, form: int, accept: bool
) -> tuple[dict[int, dict], list[str], list[str] | None]:
    """The lanes' states for a mixture, from a saved position; what changed, in words; and the data sets that go on,
    None where nothing changed.

    state: of `Batches.get_state`, all lanes in it. accept: where the data has changed, every example that was drawn
    stays drawn, and those that were not, or waited for a row, come first; a data set whose content changed begins anew.
    Raises SourceError naming the differences unless they are accepted.
    """
    if state.get("format") != form:
        raise SourceError(
            f"the checkpoint's position in the data has format {state.get('format')}, this version reads {form}: "
            f"go on with the version that saved it, or begin the stage in another --workdir"
        )
    lanes = {int(n): lane for n, lane in state["lanes"].items()}
    old = state["fingerprint"]
    changed = differences({**old, _VERSIONS: 0}, {**fingerprint, _VERSIONS: 0})
    versions = [
        f"{line} (rows may differ in bits)" for line in differences(old[_VERSIONS], fingerprint[_VERSIONS])
    ]
    if not changed:
        return lanes, versions, None
    if not accept:
        raise SourceError(
            "the data is not what this run was trained on so far:\n  "
            + "\n  ".join(changed)
            + "\nundo that, or "
            "accept it with --config.data.on_change=accept: what was drawn stays drawn, and a data set whose content "
            "changed begins anew"
        )
    out, said, stayed = _dealt(old, lanes, fingerprint, mixture, state["step"])
    return out, [*changed, *said, *versions], stayed


def differences(old: dict, new: dict, path: str = "") -> list[str]:
    """Lines "name: old -> new"."""
    out = []
    for key in [*old, *(key for key in new if key not in old)]:
        a, b = old.get(key, "nothing"), new.get(key, "nothing")
        if isinstance(a, dict) and isinstance(b, dict):
            out += differences(a, b, f"{path}{key}.")
        elif a != b:
            a, b = ("there" if isinstance(x, dict) else x for x in (a, b))
            out.append(f"{path}{key}: {a} -> {b}")
    return out


def _dealt(old: dict, lanes: dict, new: dict, mixture: Mixture, step: int):
    n, names = len(mixture.entries), list(old["datasets"])
    blank = {
        "kinds": [0] * 3,
        "phase": mixture.phase(step),
        "since": [0] * n,
        "drawn": [0] * n,
        "waiting": [],
    }
    starts, lefts, said, stayed = [0] * n, [[]] * n, [], []
    for i, e in enumerate(mixture.entries):
        before, after = old["datasets"].get(e.name), new["datasets"][e.name]
        same = (
            before
            and all(before[k] == after[k] for k in ("records", "content"))
            and old["seed"] == new["seed"]
        )
        if same:
            starts[i], left = undrawn(lanes, names.index(e.name))
            lefts[i] = left.tolist()
            stayed.append(e.name)
            said.append(
                f"data.datasets.{e.name} goes on from {starts[i]} drawn, {len(left)} of them once more to come"
            )
        else:
            said.append(f"data.datasets.{e.name} begins anew" if before else f"data.datasets.{e.name} is new")
    said += [f"data.datasets.{name} is drawn no more" for name in names if name not in new["datasets"]]
    dealt = {
        b: {**blank, "start": starts, "left": [left[b :: mixture.lanes] for left in lefts]}
        for b in range(mixture.lanes)
    }
    return dealt, said, stayed


def undrawn(lanes: dict[int, dict], entry: int) -> tuple[int, np.ndarray]:
    """A position beyond which no lane has drawn of an entry, and those before it that came into no row yet."""
    count, start = len(lanes), lanes[0]["start"][entry]
    drawn = np.zeros((max(lane["drawn"][entry] for lane in lanes.values()), count), bool)
    for b, lane in lanes.items():
        drawn[: lane["drawn"][entry], b] = True
    open_ = [start + np.flatnonzero(~drawn)]
    for lane in lanes.values():
        open_.append(np.array(lane["left"][entry], np.int64))
        open_.append(np.array([p for e, p, _ in lane["waiting"] if e == entry], np.int64))
    return start + drawn.size, np.sort(np.concatenate(open_))
