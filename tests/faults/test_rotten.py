"""Thousands of pictures, some rotten: counted exactly, listed, replaced alike everywhere, refused
beyond 1 %."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from support import tiny

from janus_jax.config.schema import Dataset, Rows
from janus_jax.data import catalog
from janus_jax.data.read_stats import ReadStats
from janus_jax.data.sources import SourceError
from janus_jax.model import batch as bt

# Of the larger more are rotten than are told one by one.
SIZES = [2_000, pytest.param(4_000, marks=pytest.mark.slow)]
ROWS = Rows(count=8, length=192, understanding_images=1, generation_images=4)
ONLY = {"understanding": 0, "text": 0, "generation": 1}


def jpeg(k: int) -> bytes:
    pixels = np.random.default_rng(k).integers(0, 256, (16, 16, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


ROTTEN = {
    "damaged": lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
    "empty file": lambda path, _: path.write_bytes(b""),
    "web page": lambda path, _: path.write_bytes(b"<!DOCTYPE html><html>404</html>"),
    "git-lfs pointer": lambda path, _: path.write_bytes(
        b"version https://git-lfs.github.com/spec/v1\n"
    ),
    "missing file": lambda path, _: path.unlink(),
    "unsupported type": lambda path, _: path.write_bytes(b"<?xml version='1.0'?><svg></svg>"),
}


def planted(folder, count: int, bad: int) -> dict[int, str]:
    """Writes records of one of twenty pictures each, `bad` of them rotten: record -> cause."""
    (folder / "pictures").mkdir(parents=True)
    files, records = [jpeg(k) for k in range(20)], []
    for k, whole in enumerate(files):
        (folder / "pictures" / f"{k}.jpg").write_bytes(whole)
    causes = {}
    for i in np.random.default_rng(0).permutation(count)[:bad].tolist():
        cause = list(ROTTEN)[len(causes) % len(ROTTEN)]
        path = folder / "pictures" / f"bad{i}.jpg"
        path.write_bytes(files[0])
        ROTTEN[cause](path, files[0])
        causes[i] = cause
    for i in range(count):
        name = f"bad{i}.jpg" if i in causes else f"{i % 20}.jpg"
        records.append(json.dumps({"image": name, "caption": f"picture {i}"}))
    (folder / "records.jsonl").write_text("\n".join(records))
    return causes


def batches(folder, listing=None, say=print, **how):
    dataset = Dataset("generation", str(folder / "records.jsonl"), images=str(folder / "pictures"))
    source = catalog.open_dataset(dataset, 16, 0)
    out = tiny.batches(
        {"mine": ("generation", source)}, tiny.processor(), tiny.CONFIG, ROWS, ONLY, **how
    )
    out.stats = ReadStats(out.mixture, say, listing)
    return out


def epoch(iterator, count: int) -> np.ndarray:
    """Reads until each record has had its turn, settling now and then. The examples."""
    seen, left, steps = [], set(range(count)), 0
    while left:
        seen.append(next(iterator)[1])
        left -= set(seen[-1][:, bt.EXAMPLE_COLUMNS.index("position")].tolist())
        steps += 1
        if steps % 50 == 0 or not left:
            iterator.sync_counts()
    return np.concatenate(seen)


@pytest.fixture(scope="module", params=SIZES)
def one_percent(tmp_path_factory, request):
    """(folder, record -> cause, records)"""
    folder, count = tmp_path_factory.mktemp("rotten"), request.param
    return folder, planted(folder, count, count // 100), count


def test_one_in_a_hundred_is_skipped_counted_and_listed(one_percent, tmp_path):
    folder, causes, count = one_percent
    said, listing = [], tmp_path / "bad_records.jsonl"
    iterator = batches(folder, listing, said.append)
    examples = epoch(iterator, count)
    iterator.close()
    counts = {cause: list(causes.values()).count(cause) for cause in ROTTEN}
    assert iterator.stats.causes("mine") == counts and sum(counts.values()) == len(causes)
    assert iterator.stats.bad["mine"] == causes
    listed = [json.loads(line) for line in listing.read_text().splitlines()]
    assert {line["record"]: line["cause"] for line in listed} == causes and len(listed) == len(
        causes
    )
    assert all(f"bad{line['record']}.jpg" in line["message"] for line in listed)
    assert all(line["where"].endswith(f"records.jsonl:{line['record'] + 1}") for line in listed)
    # Twenty are told one by one. No rotten record is in a row; each gave its place to another.
    assert len(said) == 21 and said[20].startswith("(more bad records") and str(listing) in said[20]
    position, record = (
        examples[:, bt.EXAMPLE_COLUMNS.index(name)] for name in ("position", "record")
    )
    assert not set(record.tolist()) & set(causes)
    first = position < count
    own = {iterator.mixture.index(0, p) for p in range(count)} - set(causes)
    assert sorted(position[first].tolist()) == list(range(count)) and own <= set(
        record[first].tolist()
    )
    assert iterator.stats.report()[-1].startswith(
        f"  mine: {len(causes)} records could not be used: "
    )


def test_substitutes_are_the_same_on_every_host_and_after_a_resume(one_percent):
    folder, *_ = one_percent
    alone = batches(folder)
    whole = [next(alone) for _ in range(60)]
    hosts = [batches(folder, share=h, of=2) for h in range(2)]
    for step in range(30):
        parts = [next(host)[1] for host in hosts]
        np.testing.assert_array_equal(np.concatenate(parts), whole[step][1])
    again = batches(folder)
    again.set_state(tiny.position(hosts))
    for step in range(30, 60):
        batch, examples = next(again)
        np.testing.assert_array_equal(examples, whole[step][1])
        for name in batch:
            np.testing.assert_array_equal(batch[name], whole[step][0][name])
    again.sync_counts()
    assert again.stats.bad["mine"]
    for iterator in (alone, *hosts, again):
        iterator.close()


@pytest.mark.parametrize("count", SIZES)
def test_more_than_one_in_a_hundred_ends_the_run_and_says_why(tmp_path, count):
    causes = planted(tmp_path, count, count * 11 // 1000)
    iterator = batches(tmp_path, tmp_path / "bad_records.jsonl", lambda line: None)
    with pytest.raises(SourceError) as error:
        epoch(iterator, count)
    iterator.close()
    message = str(error.value)
    assert (
        message.startswith("data.datasets.mine: ") and f"(of {count:,}) cannot be used" in message
    )
    assert (
        "more than data.max_bad_fraction 0.01 allows" in message
        and str(tmp_path / "bad_records.jsonl") in message
    )
    assert count // 100 < len(iterator.stats.bad["mine"]) <= len(causes) and "damaged" in message


def test_a_source_that_has_gone_ends_the_run(one_percent, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "records.jsonl").write_bytes((one_percent[0] / "records.jsonl").read_bytes())
    iterator = batches(tmp_path)
    with pytest.raises(
        SourceError,
        match=r"mine: 100 records in a row cannot be used, the last of them: .*no such file",
    ):
        next(iterator)
    iterator.close()
