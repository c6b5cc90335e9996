"""A run goes on elsewhere: other hosts and workers, other data, and every example comes once in its
epoch."""

import concurrent.futures

import numpy as np
import pytest
from support import tiny
from support.sets import SETS, batches

from janus_jax.config.schema import Rows
from janus_jax.data.sources import SourceError
from janus_jax.data.toy import shapes_sources
from janus_jax.model import batch as bt

MORE = {"more": ("generation", shapes_sources.ShapesGeneration(9, 31))}
SAVED, STEPS = 6, 16  # steps until the position is saved, and in all


def run(hosts: list, steps: int) -> list[tuple]:
    """Batches of all hosts together, which work side by side, and the examples in each."""
    out = []
    with concurrent.futures.ThreadPoolExecutor(len(hosts)) as pool:
        for _ in range(steps):
            parts, examples = zip(*pool.map(next, hosts))
            batch = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            out.append((batch, np.concatenate(examples)))
    return out


def saved(hosts: list) -> dict:
    """The position as a checkpoint has it; the hosts end."""
    for host in hosts:
        host.close()
    return tiny.position(hosts)


def same(a: list[tuple], b: list[tuple]):
    assert len(a) == len(b)
    for (one, drawn), (other, expected) in zip(a, b):
        np.testing.assert_array_equal(drawn, expected)
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def examples(found: list[tuple], mixture) -> dict[str, np.ndarray]:
    """Data set -> [n, 2] of the positions and records of its examples."""
    rows = np.concatenate([drawn for _, drawn in found])
    entry, at = (
        rows[:, bt.EXAMPLE_COLUMNS.index("dataset")],
        [bt.EXAMPLE_COLUMNS.index(name) for name in ("position", "record")],
    )
    return {e.name: rows[entry == i][:, at] for i, e in enumerate(mixture.entries)}


def once_each(drawn: np.ndarray, records: int):
    """No position twice; the first epoch whole, each of its records once."""
    assert len(np.unique(drawn[:, 0])) == len(drawn)
    first = drawn[drawn[:, 0] < records]
    assert sorted(first[:, 0]) == list(range(records)) == sorted(first[:, 1])
    for epoch in range(int(drawn[:, 0].max()) // records + 1):
        inside = drawn[drawn[:, 0] // records == epoch, 1]
        assert len(np.unique(inside)) == len(inside)


@pytest.fixture(scope="module")
def whole():
    """The run that nothing interrupts."""
    return run([batches()], STEPS)


@pytest.fixture(scope="module")
def position(whole):
    """What two hosts of two workers each save."""
    hosts = [batches(share=h, of=2, workers=2) for h in range(2)]
    same(run(hosts, SAVED), whole[:SAVED])
    return saved(hosts)


@pytest.mark.parametrize(
    "of, workers", [(1, 0), (4, 0), (2, 1), (1, 2)], ids=["1x0", "4x0", "2x1", "1x2"]
)
def test_goes_on_with_other_hosts_and_workers_bit_for_bit(whole, position, of, workers):
    hosts = [batches(share=h, of=of, workers=workers) for h in range(of)]
    assert [host.set_state(position) for host in hosts] == [[]] * of
    same(run(hosts, STEPS - SAVED), whole[SAVED:])
    for host in hosts:
        host.close()


def test_every_example_comes_once_an_epoch(whole):
    for name, drawn in examples(whole, batches().mixture).items():
        once_each(drawn, len(SETS[name][1]))


CHANGES = {  # what is changed, and how it is named
    "weights": (
        {"sets": SETS | MORE, "weights": {"more": 0.5}},
        {"sets": SETS | MORE, "weights": {"more": 3.0}},
        ["datasets.more.weight: 0.5 -> 3.0"],
    ),
    "a data set more": ({}, {"sets": SETS | MORE}, ["datasets.more: nothing -> there"]),
    "a data set less": ({"sets": SETS | MORE}, {}, ["datasets.more: there -> nothing"]),
    "rows": ({}, {"rows": Rows(12, 192, 2, 3)}, ["rows.count: 8 -> 12"]),
    "shorter rows": ({}, {"rows": Rows(8, 160, 2, 3)}, ["rows.length: 192 -> 160"]),
}


@pytest.mark.parametrize("before, after, named", CHANGES.values(), ids=CHANGES)
def test_other_data_is_refused_by_name_or_goes_on_with_nothing_lost_or_twice(before, after, named):
    first = batches(**before)
    found = run([first], SAVED)
    at = saved([first])
    with pytest.raises(SourceError) as error:
        batches(**after).set_state(at)
    lines = str(error.value).split("\n")
    assert [line.strip() for line in lines[1:-1]] == named and "--accept_changes" in lines[-1]
    hosts = [batches(**after, share=h, of=2, accept=True) for h in range(2)]
    said = [host.set_state(at) for host in hosts]
    assert said[0] == said[1] and said[0][: len(named)] == named
    later = run(hosts, 2 * STEPS)
    old, new = examples(found, first.mixture), examples(later, hosts[0].mixture)
    for host in hosts:
        host.close()
    stayed = old.keys() & new.keys()
    assert stayed >= set(SETS)
    for name in stayed:
        source = (SETS | MORE)[name][1]
        once_each(np.concatenate([old[name], new[name]]), len(source))
        assert any(f"{name} goes on from" in line for line in said[0])
    for name in new.keys() - old.keys():
        once_each(new[name], len(MORE[name][1]))


def test_a_data_set_whose_content_changed_begins_anew():
    first = batches()
    run([first], SAVED)
    at = saved([first])
    other = SETS | {"sentences": ("text", shapes_sources.ShapesText(5, 83))}
    with pytest.raises(SourceError, match=r"datasets\.sentences\.content: "):
        batches(other).set_state(at)
    again = batches(other, accept=True)
    said = again.set_state(at)
    assert "data.datasets.sentences begins anew" in said
    once_each(examples(run([again], STEPS), again.mixture)["sentences"], 83)
    again.close()


def test_step_ranges_may_be_taken_away_and_what_was_counted_begins_anew(tmp_path):
    """The report after a boundary has gone, and the bad records of a data set that was mended."""
    first = batches(SETS | MORE, steps={"more": (0, 5), "scenes": (3, 1 << 62)})
    run([first], SAVED)
    first.sync_counts()
    first.stats.bad["questions"] = {3: "damaged"}
    first.stats.bad["scenes"] = {5: "damaged"}
    at = saved([first])
    mended = SETS | {"questions": ("understanding", shapes_sources.ShapesUnderstanding(1, 61))}
    second = batches(mended, accept=True)
    second.set_state(at)
    assert second.stats.bad == {"questions": {}, "sentences": {}, "scenes": {5: "damaged"}}
    assert second.stats.reads["questions"] == 0 < second.stats.reads["scenes"]
    run([second], 4)
    second.sync_counts()
    second.close()
    report = second.stats.report()
    assert report[0].split()[:4] == ["data", "from", "step", str(SAVED)] and len(report) == 5
    assert second.stats.metrics(SAVED + 4) == {"bad_records": 1.0}
    third = batches(mended)
    third.set_state(saved([second]))
    assert third.stats.report() == report
