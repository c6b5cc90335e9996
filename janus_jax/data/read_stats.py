"""What was read of each data set: the shares seen beside those asked for, and every record that
could not be used."""

import json
import math
import pathlib

import numpy as np

from janus_jax.data.mixture import Mixture
from janus_jax.data.sources import SourceError
from janus_jax.model.batch import CONTINUED, TRUNCATED

SHOWN = 20  # bad records that are logged one by one; the rest are counted
JUDGED = 1000  # records read before a share of bad ones says anything
# standard deviations: over a whole epoch, chance goes beyond about once in ten thousand runs
_CERTAIN = 4


class ReadStats:
    """Of one stage; the same on every process once merged.

    mixture: the data sets that are read.
    say: takes a line of the log.
    listing: the file that lists all bad records, or None.
    most: the share of bad ones above which a data set is refused.
    """

    def __init__(self, mixture: Mixture, say=print, listing=None, most: float = 0.01):
        self.mixture = mixture
        self.say = say
        self.most = most
        self.listing = pathlib.Path(listing) if listing else None
        names = [e.name for e in mixture.entries]
        self.reads = dict.fromkeys(names, 0)
        self.bad = {name: {} for name in names}  # record -> cause
        # first step of a phase -> int64 [entries, 4]: examples, tokens, continued, truncated
        self.seen = {}
        self.since = 0  # the step from which shares are counted: where the data last changed
        self._mine = {}
        self._listed = None

    def count(self, step: int, examples: np.ndarray):
        """Adds a batch's examples (see model/batch.py) to what this process has seen."""
        first = self.mixture.changes[self.mixture.phase(step)]
        mine = self._mine.setdefault(first, np.zeros((len(self.reads), 4), np.int64))
        _, entry, _, _, code, tokens = examples.T
        flags = [(code & flag) > 0 for flag in (CONTINUED, TRUNCATED)]
        for k, weight in enumerate((np.ones_like(entry), tokens, *flags)):
            mine[:, k] += np.bincount(entry, weight, len(mine)).astype(np.int64)

    def take(self) -> dict:
        """What this process has seen since it was last asked; JSON holds it."""
        mine = {str(first): counts.tolist() for first, counts in self._mine.items()}
        self._mine = {}
        return mine

    def merge(self, everyone: list[dict]):
        """Enters {"news": [(reads, bad), ...], "counts"} of all processes. Raises SourceError where
        too much is bad."""
        found = []
        for one in everyone:
            for first, counts in one["counts"].items():
                self.seen[int(first)] = self.seen.get(int(first), 0) + np.array(counts, np.int64)
            for reads, bad in one["news"]:
                for entry, n in reads.items():
                    self.reads[self.mixture.entries[int(entry)].name] += n
                found += bad
        self._enter(found)
        for e in self.mixture.entries:
            self._judge(e)

    def _enter(self, found: list):
        lines = []
        for entry, index, cause, message in found:
            e = self.mixture.entries[entry]
            if index in self.bad[e.name]:
                continue
            self.bad[e.name][index] = cause
            where = e.source.where(index)
            total = sum(map(len, self.bad.values()))
            if total <= SHOWN:
                self.say(f"skipped a record of {e.name} ({cause}): {message}")
            if total == SHOWN:
                self.say(f"(more bad records are only counted, and listed in {self.listing})")
            line = {
                "dataset": e.name,
                "record": index,
                "where": where,
                "cause": cause,
                "message": message,
            }
            lines.append(json.dumps(line) + "\n")
        if self.listing and lines:
            try:
                if self._listed is None:  # a run that goes on finds some again
                    there = self.listing.read_text("utf-8") if self.listing.is_file() else ""
                    self._listed = set(there.splitlines(True))
                with self.listing.open("a", encoding="utf-8") as file:
                    file.writelines(line for line in lines if line not in self._listed)
                self._listed |= set(lines)
            except OSError as error:  # a full disk does not stop training; the counts are kept
                self.say(
                    f"ERROR: {self.listing} cannot be written ({error.strerror}); {len(lines)} are "
                    f"not listed"
                )

    def _judge(self, e):
        """By distinct records: of those read so far, beyond chance; once all have been read,
        exactly."""
        bad = self.bad[e.name]
        records = len(e.source)
        reads = self.reads[e.name]
        read = min(reads, records)
        expected = self.most * read
        surely = (
            len(bad) > expected + _CERTAIN * math.sqrt(expected) or len(bad) > self.most * records
        )
        if reads < JUDGED or not surely:
            return
        causes = ", ".join(f"{n} {cause}" for cause, n in self.causes(e.name).items())
        raise SourceError(
            f"data.datasets.{e.name}: {len(bad)} of {read:,} records read (of {records:,}) cannot "
            f"be used, more than "
            f"data.max_bad_fraction {self.most:g} allows: {causes}. The list is in "
            f"{self.listing or 'the log'}; mend "
            f"or remove them (python -m janus_jax.data check finds the rest), or allow more"
        )

    def causes(self, name: str) -> dict[str, int]:
        """cause -> bad records of a data set, the most frequent first."""
        causes = list(self.bad[name].values())
        return {
            c: causes.count(c) for c in sorted(set(causes), key=lambda c: (-causes.count(c), c))
        }

    def shares(self, first: int) -> list[tuple]:
        """(data set, kind, share asked, share of the examples seen, of the tokens, examples, those
        that go on in a later row, truncated) in the phase that begins at step `first`."""
        asked = self.mixture.asked(first)
        seen = self.seen.get(first, np.zeros((len(self.reads), 4), np.int64))
        parts = seen / np.maximum(seen.sum(0), 1)
        return [
            (
                e.name,
                e.kind,
                asked.get(e.name, 0.0),
                parts[i, 0],
                parts[i, 1],
                *map(int, seen[i, [0, 2, 3]]),
            )
            for i, e in enumerate(self.mixture.entries)
        ]

    def metrics(self, step: int) -> dict[str, float]:
        """What to log: the bad records so far; and, where a kind has several data sets, each one's
        share of the examples of this phase."""
        out = {"bad_records": float(sum(map(len, self.bad.values())))}
        shares = self.shares(self.mixture.changes[self.mixture.phase(step - 1)])
        if len({kind for _, kind, asked, *_ in shares if asked}) < sum(
            asked > 0 for _, _, asked, *_ in shares
        ):
            out |= {f"share_{name}": float(seen) for name, _, asked, seen, *_ in shares if asked}
        return out

    def report(self) -> list[str]:
        """Lines: of each phase, what was asked of each data set and what was seen; what was bad."""
        out = []
        for first in sorted(self.seen):
            until = next((f" to {change}" for change in self.mixture.changes if change > first), "")
            title = f"data from step {max(first, self.since)}{until}"
            out.append(
                f"  {title:<30} {'kind':<13} {'asked':>8} {'seen':>8} {'tokens':>8}  examples  "
                f"continued  truncated"
            )
            out += [
                f"    {name:<28} {kind:<13} {asked:8.2%} {seen:8.2%} {tokens:8.2%} {n:9,} {on:10,} "
                f"{cut:10,}"
                for name, kind, asked, seen, tokens, n, on, cut in self.shares(first)
                if asked or n
            ]
        for name, found in self.bad.items():
            if found:
                causes = ", ".join(f"{n} {cause}" for cause, n in self.causes(name).items())
                out.append(
                    f"  {name}: {len(found)} records could not be used: {causes}; listed in "
                    f"{self.listing}"
                )
        return out

    def state(self) -> dict:
        """JSON holds it, by name: another mixture finds its own."""
        bad = {name: [[i, cause] for i, cause in found.items()] for name, found in self.bad.items()}
        names = [e.name for e in self.mixture.entries]
        seen = {str(p): dict(zip(names, counts.tolist())) for p, counts in self.seen.items()}
        return {"reads": self.reads, "bad": bad, "seen": seen, "since": self.since}

    def set_state(self, state: dict, stayed: list[str] | None = None, step: int = 0):
        """stayed: where the data has changed, the data sets that go on; of the others nothing is
        known any more, and shares are counted anew from `step` on."""
        self.since = state.get("since", 0) if stayed is None else step
        names = [e.name for e in self.mixture.entries]
        known = set(names) if stayed is None else set(stayed)
        self.reads = {name: state["reads"].get(name, 0) if name in known else 0 for name in names}
        bad = {name: state["bad"].get(name, ()) if name in known else () for name in names}
        self.bad = {name: dict(map(tuple, found)) for name, found in bad.items()}
        self.seen = {
            int(p): np.array([counts.get(name, [0] * 4) for name in names], np.int64)
            for p, counts in (state["seen"].items() if stayed is None else ())
        }
        self._mine = {}
