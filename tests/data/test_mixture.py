"""What a stage draws: kinds at the paper's ratio, data sets by weight and step, and rows that are
full."""

import numpy as np
import pytest
from support import tiny
from support.paths import CONFIGS

from janus_jax.config import read
from janus_jax.config.schema import Rows
from janus_jax.config.steps import changes
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.read_stats import ReadStats
from janus_jax.data.row_stream import RowStream
from janus_jax.data.sources import SourceError
from janus_jax.model import batch as bt

CONFIG = CONFIGS / "stage2.py"
SCALE = 48  # of so many steps of stage 2, one is drawn
ROWS = Rows(count=3, length=2560, understanding_images=4, generation_images=4)
RECORDS = 5_000


def drawn(mixture: Mixture, steps: int, rows: Rows = ROWS) -> np.ndarray:
    """The examples of all streams' rows: int64 [n, 1 + 6], the step and bt.EXAMPLE_COLUMNS."""
    encoder = tiny.Lengths(rows)
    out = []
    for number in range(mixture.streams):
        stream = RowStream(mixture, encoder, number)
        out += [(step, number, *x) for step in range(steps) for x in stream.row(step)["drawn"]]
    return np.array(out, np.int64)


def shares(examples: np.ndarray, column: str, n: int) -> np.ndarray:
    """Percent of the examples that have each value below `n`."""
    values = examples[:, 1 + bt.EXAMPLE_COLUMNS.index(column)] % bt.TRUNCATED
    return 100 * np.bincount(values, minlength=n) / len(values)


@pytest.fixture(scope="module")
def stage2():
    """(config, stage, mixture of its lines with steps / SCALE, its examples, steps)."""
    built, _ = read.read(str(CONFIG))
    stage, steps = built.stages["stage2"], built.stages["stage2"].steps // SCALE
    entries = [
        Entry(
            name, d.kind, tiny.Numbered(RECORDS), d.weight, tuple(step // SCALE for step in d.steps)
        )
        for name, d in built.data.datasets.items()
    ]
    mixture = Mixture(entries, vars(stage.ratio), 0, ROWS.count, steps)
    return built, stage, mixture, drawn(mixture, steps), steps


def test_stage_2_draws_what_the_paper_says(stage2):
    built, stage, mixture, examples, steps = stage2
    assert changes(built.data.datasets.values(), stage.steps) == [0, 120_000]  # section 3.3
    assert mixture.changes == [0, 2500] and steps * ROWS.count > 10_000
    names = [e.name for e in mixture.entries]
    stats = ReadStats(mixture)
    for step in (0, mixture.changes[1]):
        until = steps if step else mixture.changes[1]
        part = examples[(examples[:, 0] >= step) & (examples[:, 0] < until)]
        assert np.abs(shares(part, "code", 4)[1:] - [20, 30, 50]).max() < 0.1
        asked = mixture.asked(step)
        expected = [100 * asked.get(name, 0) for name in names]
        seen = shares(part, "dataset", len(names))
        assert np.abs(seen - expected).max() < 0.1
        assert all(n == 0 for n, share in zip(seen, expected) if not share)
        stats.count(step, part[:, 1:])
    assert mixture.asked(0)["imagenet"] == 0.5 and "text_to_image" not in mixture.asked(0)
    assert set(mixture.asked(2500)) & {"imagenet", "text_to_image", "own_pictures"} == {
        "text_to_image",
        "own_pictures",
    }
    stats.merge([{"news": [], "counts": stats.take()}])
    report = "\n".join(stats.report())
    print(f"\n{report}")
    assert "data from step 0 to 2500 " in report and "data from step 2500 " in report
    assert report.count("imagenet ") == 1 and report.count("own_pictures ") == 1


def test_rows_are_full(stage2):
    *_, examples, steps = stage2
    filled = examples[:, 1 + bt.EXAMPLE_COLUMNS.index("tokens")].sum() / (
        ROWS.count * steps * ROWS.length
    )
    print(f"\n{filled:.2%} of the positions of {ROWS.count * steps:,} rows are filled")
    assert filled >= 0.95


def test_every_step_and_every_lane_mixes_kinds(stage2):
    _, stage, _, long, _ = stage2
    streams, steps = 24, 30
    wide = Mixture([entry(kind, kind) for kind in bt.TASKS], vars(stage.ratio), 0, streams)
    for examples, column, n, least in (
        (drawn(wide, steps), 0, steps, 0.1),
        (drawn(wide, steps), 1, streams, 0.1),
        (long, 1, ROWS.count, 0.19),
    ):
        table = np.zeros((n, 4))
        np.add.at(
            table,
            (examples[:, column], examples[:, 1 + bt.EXAMPLE_COLUMNS.index("code")] % bt.TRUNCATED),
            1,
        )
        assert (table / table.sum(1, keepdims=True))[:, 1:].min() >= least  # of each kind's share


def test_no_example_comes_twice_in_an_epoch_and_what_was_drawn_was_meant(stage2):
    _, _, mixture, examples, _ = stage2
    _, _, entry, position, record, _, _ = examples.T
    assert len(np.unique(np.stack([entry, position]), axis=1).T) == len(examples)
    for i in range(len(mixture.entries)):
        of = position[entry == i]
        for epoch in range(of.max() // RECORDS):  # those that have come to their end
            inside = record[(entry == i) & (position // RECORDS == epoch)]
            assert len(set(inside)) == len(inside) and len(inside) > 0.9 * RECORDS
            # The rest waits for a row, or waited when its data set ended.
    assert all(
        mixture.index(e, p) == r for e, p, r in zip(entry[::97], position[::97], record[::97])
    )


def entry(name, kind="generation", weight=1.0, steps=()):
    return Entry(name, kind, tiny.Numbered(100), weight, steps)


def test_weights_within_a_kind():
    entries = [
        entry("a"),
        entry("b", weight=3.0),
        entry("c", weight=0.5),
        entry("none", weight=0.0),
    ]
    entries.append(entry("chats", "understanding"))
    ratio = {
        "understanding": 1,
        "text": 0,
        "generation": 3,
    }  # nothing of text is there, and nothing is asked
    mixture = Mixture(entries, ratio, 0, 4)
    assert [e.name for e in mixture.entries] == ["a", "b", "c", "chats"]
    seen = shares(drawn(mixture, 250), "dataset", 4)
    expected = [75 / 4.5, 75 * 3 / 4.5, 75 * 0.5 / 4.5, 25]
    assert [100 * mixture.asked(0)[e.name] for e in mixture.entries] == pytest.approx(expected)
    assert np.abs(seen - expected).max() < 0.3, seen


def test_a_kind_whose_ratio_is_0_is_not_drawn_though_it_is_there():
    mixture = Mixture(
        [entry("a"), entry("t", "text")], {"understanding": 0, "text": 0, "generation": 1}, 0, 2
    )
    assert [e.name for e in mixture.entries] == ["a"] and mixture.asked(0) == {"a": 1.0}
    assert set(drawn(mixture, 20)[:, 1 + bt.EXAMPLE_COLUMNS.index("code")] % bt.TRUNCATED) == {3}


@pytest.mark.parametrize("streams", [1, 3, 64])
def test_the_first_draws_of_all_lanes_hold_the_shares_together(streams):
    """No stream begins with the same kind as all others: a step is not all of one kind."""
    ratio = {"understanding": 2, "text": 3, "generation": 5}
    mixture = Mixture([entry(kind, kind) for kind in bt.TASKS], ratio, 0, streams)
    first = [mixture.choose(stream, 0, [0] * 3, [0] * 3) for stream in range(streams)]
    counts = np.bincount(first, minlength=3)
    assert np.abs(counts - streams * np.array([0.2, 0.3, 0.5])).max() <= 1


def test_a_gap_is_refused_by_its_step():
    ratio = {"understanding": 0, "text": 1, "generation": 1}
    sets = [entry("t", "text"), entry("a", steps=(0, 50)), entry("b", steps=(60, 100))]
    with pytest.raises(
        SourceError, match=r"from step 50 on no .* 'generation', of which the ratio asks 1"
    ):
        Mixture(sets, ratio, 0, 2, 100)
    Mixture(sets, ratio, 0, 2, 50)  # a stage that ends before


@pytest.mark.parametrize("records", [1, 2, 1000, 66_000])
def test_an_epoch_is_an_order_of_all_records(records):
    class Sized:
        def __len__(self):
            return records

    mixture = Mixture(
        [Entry("a", "text", Sized())], {"understanding": 0, "text": 1, "generation": 0}, 5, 4
    )
    orders = [[mixture.index(0, epoch * records + k) for k in range(records)] for epoch in range(2)]
    assert all(sorted(order) == list(range(records)) for order in orders)
    assert records < 3 or orders[0] != orders[1]


def test_the_steps_around_a_change_of_data_keep_the_ratio():
    """What waits of a set that ends is as much as three rows hold."""
    ratio = {"understanding": 2, "text": 3, "generation": 5}
    sets = [entry("u", "understanding"), entry("t", "text"), entry("a", steps=(0, 6))]
    mixture = Mixture([*sets, entry("b", steps=(6, 9))], ratio, 0, 48, 9)
    examples = drawn(mixture, 9)
    column = examples[:, 1 + bt.EXAMPLE_COLUMNS.index("code")] % bt.TRUNCATED
    generation = [np.mean(column[examples[:, 0] == step] == 3) for step in range(9)]
    print([f"{share:.1%}" for share in generation])
    assert np.abs(np.array(generation) - 0.5).max() < 0.08
    names = [{"a", "b"} & {mixture.entries[i].name for i in examples[examples[:, 0] == step, 2]}
             for step in (5, 6)]  # fmt: skip
    assert names == [{"a"}, {"b"}]


def test_stages_of_separate_config_files_draw_differently():
    orders = []
    for name in ("stage1", "stage2", "stage3"):
        built, _ = read.read(str(CONFIGS / f"{name}.py"))
        of_one = [Entry("imagenet", "generation", tiny.Numbered(10**6))]
        mixture = Mixture(of_one, dict.fromkeys(bt.TASKS, 1) | {"understanding": 0, "text": 0},
                          built.seed_of(name), 4)  # fmt: skip
        orders.append((mixture.index(0, 7), mixture.rng(0, 7, 0).integers(1 << 40)))
    assert all(len(set(numbers)) == 3 for numbers in zip(*orders)), orders
