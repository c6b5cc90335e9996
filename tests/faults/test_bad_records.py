"""What users have, good and bad, on real files and through the streams, as training reads them.

Bad records are skipped, counted by cause, named by file and record, and replaced; unusual ones come
out as they should. Ratios that are refused (zero, negative, NaN) are in config/test_validate.py.
"""

import base64
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import tarfile
import tempfile

import jax
import numpy as np
import pytest
from support import formats, tiny
from support.mesh import on_mesh
from support.pictures import UNUSABLE, UNUSUAL, encoded, noise, put

from janus_jax.config.schema import KINDS, Dataset, Rows
from janus_jax.data import catalog, image_ids
from janus_jax.data.images import generation_image, understanding_image
from janus_jax.data.read_stats import ReadStats
from janus_jax.data.sources import SourceError
from janus_jax.data.tools import image_ids_writer
from janus_jax.model import batch as bt
from janus_jax.training import loss

GOOD, SIDE, BAD = (
    40,
    16,
    17,
)  # records; pixels of tiny.CONFIG's pictures; the place of the bad record
ROWS = Rows(count=2, length=192, understanding_images=1, generation_images=2)


def streams(line: Dataset, rows: Rows = ROWS, **how):
    """Batches of one data set and its read statistics, whose lines of the log are in `said`."""
    source = catalog.open_dataset(line, SIDE, 0)
    source = image_ids.attach(source, line.image_ids) if line.image_ids else source
    ratio = {kind: float(kind == line.kind) for kind in KINDS}
    processor = how.pop("processor", None) or tiny.processor()
    out = tiny.batches(
        {"mine": (line.kind, source)}, processor, tiny.CONFIG, rows, ratio, dropout=0.0, **how
    )
    said = []
    out.stats = ReadStats(out.mixture, said.append)
    return out, said


def epoch(iterator, count: int) -> dict[int, int]:
    """Position -> the record drawn there, once each of the first `count` positions has had its
    turn."""
    found = {}
    while not set(range(count)) <= set(found):
        _, examples = next(iterator)
        found |= dict(
            examples[
                :, [bt.EXAMPLE_COLUMNS.index("position"), bt.EXAMPLE_COLUMNS.index("record")]
            ].tolist()
        )
    iterator.sync_counts()
    iterator.close()
    return {position: record for position, record in found.items() if position < count}


def require_skipped(line: Dataset, bad: int, cause: str, *words: str, **how):
    """One epoch of a data set of GOOD good records and a bad one, which is all that is lost."""
    iterator, said = streams(line, **how)
    mixture = iterator.mixture
    drawn = epoch(iterator, GOOD + 1)
    assert iterator.stats.bad["mine"] == {bad: cause}, said
    assert len(said) == 1 and said[0].startswith(f"skipped a record of mine ({cause}): "), said
    for word in (mixture.entries[0].source.where(bad), *words):
        assert word in said[0], said[0]
    (place,) = (p for p in range(GOOD + 1) if mixture.index(0, p) == bad)
    assert {p: r for p, r in drawn.items() if p != place} == {
        p: mixture.index(0, p) for p in range(GOOD + 1) if p != place
    }
    tries = (int(mixture.rng(0, place, attempt).integers(GOOD + 1)) for attempt in range(1, 10))
    assert drawn[place] == next(r for r in tries if r != bad)


def of_record(record: dict | bytes):
    return lambda root: record if isinstance(record, bytes) else json.dumps(record).encode()


def chat(*turns) -> dict:
    return {
        "image": "0.png",
        "conversations": [{"from": who, "value": said} for who, said in turns],
    }


def written(
    root: pathlib.Path, record: bytes | None = None, count: int = GOOD, pictures: bool = True
) -> str:
    """Good records in JSON lines, `record` at BAD; the pictures in a folder."""
    (root / "pictures").mkdir(exist_ok=True)
    for k in range(2):
        (root / "pictures" / f"{k}.png").write_bytes(encoded(noise(SIDE + k, SIDE)))
    named = lambda k: {"image": f"{k % 2}.png"} if pictures else {}
    lines = [json.dumps(named(k) | {"caption": f"picture {k}"}).encode() for k in range(count)]
    lines[BAD:BAD] = [record] if record else []
    (root / "data.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return str(root / "data.jsonl")


PHOTO = encoded(noise(64, 64), "JPEG")
ESCAPE = 'field "image" leaves the folder'
# Kind, what writes the record, cause, words of the message.
SKIPPED = {
    "dots out of the folder": (
        "generation", of_record({"image": "../../etc/passwd", "caption": "a"}), "outside the folder", ESCAPE,
        "'../../etc/passwd'",
    ),
    "absolute path": ("understanding", of_record({"image": "/etc/passwd", "caption": "a"}),
                      "outside the folder", ESCAPE),
    "base64": (
        "generation", of_record({"image": "data:image/png;base64,iVBOR%", "caption": "a"}), "bad base64",
        'field "image": \'data:image/png', "is not valid base64",
    ),
    "base64 of no picture": (
        "generation",
        of_record({"image": "data:image/png;base64," + base64.b64encode(b"hello").decode(), "caption": "a"}),
        "damaged", "damaged, or no picture",
    ),
    "URL": (
        "generation", of_record({"image": "http://x.org/a.png", "caption": "a"}), "web address", "download it",
    ),
    "empty caption": ("generation", of_record({"image": "0.png", "caption": ""}), "blank caption", '"caption" is'),
    "empty text": ("text", of_record({"text": ""}), "blank caption", 'field "text" is empty or blank'),
    "control characters": ("understanding", of_record({"image": "0.png", "caption": " \u200b\x07\n"}), "blank caption"),
    "Latin-1": (
        "generation", of_record(b'{"image": "0.png", "caption": "caf\xe9"}'), "not UTF-8", "byte 0xe9 at offset",
    ),
    "lone surrogate": (
        "generation", of_record(b'{"image": "0.png", "caption": "a\\ud800"}'), "lone surrogate", "at character 1",
    ),
    "broken JSON": ("generation", of_record(b'{"image": "0.png", "caption": "bro'), "not JSON", "is not JSON ("),
    "missing field": ("generation", of_record({"image": "0.png", "id": 3}), "missing field", "(fields: image, id)"),
    "number for a picture": (
        "generation", of_record({"image": 7, "caption": "a"}), "wrong type", "\"image\" is '7' (int)"),
    "number for a caption": (
        "generation", of_record({"image": "0.png", "caption": 7}), "wrong type", "\"caption\" is '7' (int)"),
    "no object": ("text", of_record(b'["image"]'), "not an object", "is a list, needs an object"),
    "unknown role": (
        "understanding", of_record(chat(("human", "<image>"), ("narrator", "a"))), "unknown role",
        "conversations[1].from\" is 'narrator'",
    ),
    "two answers in a row": (
        "understanding", of_record(chat(("human", "<image>"), ("gpt", "a"), ("gpt", "b"))), "turn out of order",
        "two assistant turns in a row",
    ),
    "no answer": (
        "understanding", of_record(chat(("human", "<image>\nWhat?"))), "no answer", "ends without an answer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", SKIPPED)
def test_a_bad_record_is_skipped_counted_and_replaced(row, tmp_path):
    kind, write, cause, *words = SKIPPED[row]
    (tmp_path / "pictures").mkdir()
    path = written(tmp_path, write(tmp_path), pictures=kind != "text")
    line = Dataset(kind, path, images=str(tmp_path / "pictures"))
    require_skipped(line, BAD, cause, f"data.jsonl:{BAD + 1}", *words)


@contextlib.contextmanager
def unprivileged():
    """As "nobody" (by convention 65534) where the tests run as root, whom permissions do not
    stop."""
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_picture_without_permission_is_skipped():
    with (
        tempfile.TemporaryDirectory() as root
    ):  # tmp_path is below a folder that others may not enter
        root = pathlib.Path(root)
        root.chmod(0o755)
        path = written(root, b'{"image": "mine.png", "caption": "a"}')
        (root / "pictures" / "mine.png").write_bytes(PHOTO)
        (root / "pictures" / "mine.png").chmod(0)
        line = Dataset("generation", path, images=str(root / "pictures"))
        with unprivileged():
            require_skipped(line, BAD, "no permission", "mine.png: no permission to read it")
        (root / "pictures").chmod(0)
        with (
            unprivileged(),
            pytest.raises(SourceError, match=r"mine: 100 records in a row .* no permission"),
        ):
            next(streams(line)[0])
        with (
            unprivileged(),
            pytest.raises(SourceError, match=r"pictures: Permission denied; give a folder"),
        ):
            streams(Dataset("generation", str(root / "pictures")))
        pathlib.Path(path).chmod(0)
        with (
            unprivileged(),
            pytest.raises(SourceError, match=r"data\.jsonl: Permission denied; make it a file"),
        ):
            streams(line)


def escaping_parquet(root):
    pyarrow, parquet = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))
    (root / "0.jpg").write_bytes(formats.photo(0))
    names = ["0.jpg"] * (GOOD + 1)
    names[7] = "../../etc/passwd"
    captions = [formats.caption(k) for k in range(GOOD + 1)]
    parquet.write_table(pyarrow.table({"image": names, "caption": captions}), root / "data.parquet")
    return root / "data.parquet", 7


def test_a_path_of_parquet_that_leads_out_of_the_folder_is_skipped(tmp_path):
    (tmp_path / "data").mkdir()
    path, bad = escaping_parquet(tmp_path / "data")
    require_skipped(
        Dataset("generation", str(path)), bad, "outside the folder", "leaves the folder"
    )


def test_a_picture_that_a_tar_only_names_is_not_looked_for_elsewhere(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for k in range(GOOD + 1):
            members = {"jpg": formats.photo(k % 3), "txt": b"a caption"}
            if k == 7:
                members = {"json": b'{"image": "../../etc/passwd", "caption": "a"}'}
            for suffix, data in members.items():
                member = tarfile.TarInfo(f"{k:03}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    require_skipped(
        Dataset("generation", str(tmp_path / "a.tar")),
        7,
        "no picture",
        "007.json",
        "../../etc/passwd",
    )


def of_pictures(root: pathlib.Path, table: dict) -> list[bytes]:
    """A record of each picture of a table of support/pictures.py, whose files are put into the
    folder."""
    files = [put(root / "pictures", *row[:2]).name for row in table.values()]
    return [json.dumps({"image": file, "caption": "odd"}).encode() for file in files]


@pytest.mark.parametrize("kind", ["generation", "understanding"])
def test_every_picture_that_cannot_be_used_is_counted_listed_and_replaced(kind, tmp_path):
    path = pathlib.Path(written(tmp_path))
    with path.open("ab") as file:
        file.write(b"\n".join(of_pictures(tmp_path, UNUSABLE)) + b"\n")
    iterator, _ = streams(Dataset(kind, str(path), images=str(tmp_path / "pictures")))
    iterator.stats = ReadStats(iterator.mixture, listing=tmp_path / "bad_records.jsonl", most=1.0)
    drawn = epoch(iterator, GOOD + len(UNUSABLE))
    causes = {GOOD + k: cause for k, (_, _, cause, *_) in enumerate(UNUSABLE.values())}
    assert iterator.stats.bad["mine"] == causes and max(drawn.values()) < GOOD
    listed = map(json.loads, (tmp_path / "bad_records.jsonl").read_text().splitlines())
    listed = {line["record"]: line for line in listed}
    assert {record: line["cause"] for record, line in listed.items()} == causes
    for k, (file, _, _, *words) in enumerate(UNUSABLE.values()):
        line = listed[GOOD + k]
        assert line["where"] == f"data.jsonl:{GOOD + k + 1}"
        assert all(word in line["message"] for word in (f"{file}: ", line["where"], *words)), line


@pytest.mark.parametrize("kind", ["generation", "understanding"])
def test_unusual_pictures_come_out_as_they_should(kind, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "data.jsonl").write_bytes(b"\n".join(of_pictures(tmp_path, UNUSUAL)))
    line = Dataset(kind, str(tmp_path / "data.jsonl"), images=str(tmp_path / "pictures"))
    prepare = generation_image if kind == "generation" else understanding_image
    expected = [prepare(picture, SIDE, fast=True) for _, _, picture in UNUSUAL.values()]
    iterator, said = streams(line)
    left = set(range(len(UNUSUAL)))
    while left:
        batch, examples = next(iterator)
        for row in range(ROWS.count):
            here = examples[examples[:, bt.EXAMPLE_COLUMNS.index("row")] == row]
            for k, record in enumerate(here[:, bt.EXAMPLE_COLUMNS.index("record")].tolist()):
                np.testing.assert_array_equal(batch[f"{kind}_images"][row, k], expected[record])
                left -= {record}
    iterator.sync_counts()
    iterator.close()
    assert not said


def first_example(line: Dataset, rows: Rows, **how):
    """(the arrays of the first example of a step, its code, what the read statistics count as
    truncated)"""
    iterator, said = streams(line, rows, **how)
    batch, examples = next(iterator)
    iterator.sync_counts()
    iterator.close()
    assert not said
    there = batch["segment_ids"][0] == 1
    row = {
        name: batch[name][0, there]
        for name in ("tokens", "text_targets", "image_targets", "generation_slots")
    }
    code = int(examples[0, bt.EXAMPLE_COLUMNS.index("code")])
    return row, code, iterator.stats.shares(0)[0][-1]


TEXTS = {
    "BOM, CRLF, NUL": (b'\xef\xbb\xbf{"text": "one\0 two"}\r\n\r\n\0\0\0', "one two"),
    "emoji, right to left, CJK": ('{"text": "🐧 שלום 汉字"}'.encode(), "🐧 שלום 汉字"),
    "composed": ('{"text": "\u00e9 e\u0301"}'.encode(), "\u00e9 e\u0301"),
}


@pytest.mark.parametrize("row", TEXTS)
def test_unusual_text_is_read_as_it_is(row, tmp_path):
    data, text = TEXTS[row]
    (tmp_path / "data.jsonl").write_bytes(data)
    row, code, cut = first_example(Dataset("text", str(tmp_path / "data.jsonl")), ROWS)
    t = tiny.processor().tokenizer
    assert row["tokens"].tolist() == [t.bos, *t.encode(text)[0], t.eos]
    assert t.decode(t.encode(text)[0]) == text and code == 2 and cut == 0


def test_a_caption_longer_than_a_row_is_cut_and_its_picture_is_whole(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(noise(20, 20)))
    (tmp_path / "data.jsonl").write_text(json.dumps({"image": "a.png", "caption": "word " * 500}))
    line = Dataset("generation", str(tmp_path / "data.jsonl"))
    row, code, cut = first_example(
        line, Rows(count=1, length=64, understanding_images=0, generation_images=1)
    )
    n, t = tiny.CONFIG.generation_encoder.tokens, tiny.processor().tokenizer
    assert code == 3 + bt.TRUNCATED and cut == 1 and len(row["tokens"]) == 64
    assert row["generation_slots"].tolist()[-n - 2 :] == [*range(1, n + 1), 0, 0]
    assert (row["image_targets"] > 0).sum() == n and row["tokens"][-n - 3] == t.begin_of_image
    assert row["tokens"].tolist()[-2:] == [t.end_of_image, t.eos]


def test_a_megabyte_of_text_is_cut_and_counted(tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps({"text": "to be or not to be, " * 50_000}))
    line = Dataset("text", str(tmp_path / "data.jsonl"))
    row, code, cut = first_example(
        line, Rows(count=1, length=64, understanding_images=0, generation_images=0)
    )
    t = tiny.processor().tokenizer
    assert code == 2 + bt.TRUNCATED and cut == 1
    assert t.decode(row["tokens"][1:40]).startswith("to be or not to be, to be")


def test_what_is_not_to_be_predicted_is_masked(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(noise(20, 20)))
    record = {"image": "a.png", "question": "What is it?", "answer": "noise"}
    (tmp_path / "data.jsonl").write_text(json.dumps(record))
    row, *_ = first_example(
        Dataset("understanding", str(tmp_path / "data.jsonl")), ROWS, supervise="answers"
    )
    t = tiny.processor().tokenizer
    targets = row["text_targets"]
    assert t.decode(targets[targets != bt.IGNORE][:-1]).strip() == "noise"
    assert targets[targets != bt.IGNORE][-1] == t.eos and (targets == bt.IGNORE).sum() > 16
    assert set(targets.tolist()) <= {bt.IGNORE, *t.encode(" noise")[0], t.eos}


def test_a_batch_with_nothing_to_predict_has_loss_zero_and_no_nan():
    batch = tiny.rows(1)
    batch["text_targets"] = np.full_like(batch["text_targets"], bt.IGNORE)
    batch["image_targets"] = np.zeros_like(batch["image_targets"])
    with on_mesh():
        run = jax.jit(loss.janus_loss)
        value, metrics = run(tiny.make_model(), tiny.put(batch))
    assert float(value) == 0 and all(float(x) == 0 for x in metrics.values()), (value, metrics)


def test_a_kind_of_ratio_zero_is_not_drawn(tmp_path):
    path = written(tmp_path)
    ratio = {"understanding": 1.0, "text": 0.0, "generation": 2.0}
    sources = {
        kind: catalog.open_dataset(Dataset(kind, path, images=str(tmp_path / "pictures")), SIDE, 0)
        for kind in KINDS
    }
    iterator = tiny.batches(sources, tiny.processor(), tiny.CONFIG, ROWS, ratio)
    codes = np.concatenate(
        [next(iterator)[1][:, bt.EXAMPLE_COLUMNS.index("code")] for _ in range(20)]
    )
    iterator.close()
    counts = np.bincount(codes % bt.TRUNCATED, minlength=4)
    assert counts[2] == 0 and counts[3] == pytest.approx(2 * counts[1], rel=0.1)


def test_a_token_beyond_the_vocabulary_names_the_tokenizer(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"text": "beyond"}')
    source = catalog.open_dataset(Dataset("text", str(tmp_path / "data.jsonl")), SIDE, 0)
    few = tiny.small(transformer=dataclasses.replace(tiny.CONFIG.transformer, vocabulary=64))
    ratio = {"understanding": 0.0, "text": 1.0, "generation": 0.0}
    iterator = tiny.batches({"text": source}, tiny.processor(), few, ROWS, ratio)
    with pytest.raises(
        SourceError,
        match=r"token id \d+ is beyond model\.transformer\.vocabulary, 64: the tokenizer",
    ):
        next(iterator)
    iterator.close()


def test_an_image_id_beyond_the_codebook_is_skipped(tmp_path):
    """Stored ids are bound to a tokenizer's sizes; this directory was tampered with, or rotted."""
    path, vq = written(tmp_path, count=GOOD + 1), tiny.CONFIG.generation_encoder
    line = Dataset(
        "generation", path, images=str(tmp_path / "pictures"), image_ids=str(tmp_path / "ids")
    )
    source = catalog.open_dataset(line, SIDE, 0)
    origin = image_ids.Origin(
        "t", dataclasses.asdict(vq), "p", image_ids.pictures_of(source), GOOD + 1, GOOD + 1
    )
    image_ids_writer.begin(tmp_path / "ids", origin, {"arguments": []})
    ids = np.zeros((GOOD + 1, vq.tokens), origin.dtype)
    ids[BAD, 3] = vq.codebook_size
    np.save(tmp_path / "ids" / origin.files[0], ids)
    (tmp_path / "ids" / image_ids.BAD_RECORDS).write_text("")
    require_skipped(
        line, BAD, "wrong image_ids", "image_ids must be 16 numbers in [0, 64)", ids=True
    )


EMPTY = {
    "no bytes": ("a.jsonl", b"", "a.jsonl: is empty (0 bytes)"),
    "an empty list": ("a.json", b"[]", "a.json: is empty; needs a JSON list of records"),
    "blank lines": ("a.jsonl", b"\n \n", "a.jsonl: is empty; needs a JSON list of records"),
    "an empty tar": ("a.tar", bytes(10240), "a.tar: holds no samples"),
}


@pytest.mark.parametrize("row", EMPTY)
def test_an_empty_data_set_is_refused_when_it_is_opened(row, tmp_path):
    name, data, why = EMPTY[row]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError) as error:
        catalog.open_datasets({"mine": Dataset("generation", str(tmp_path / name))}, SIDE, 0)
    assert str(error.value).startswith("data.datasets.mine: ") and why in str(error.value)


def test_a_file_that_a_glob_names_twice_is_read_once_and_a_copy_is_told(tmp_path, caplog):
    path = pathlib.Path(written(tmp_path))
    (tmp_path / "link.jsonl").symlink_to(path)
    line = Dataset("generation", str(tmp_path / "*.jsonl"), images=str(tmp_path / "pictures"))
    iterator, _ = streams(line)
    assert sorted(epoch(iterator, GOOD).values()) == list(range(GOOD))
    assert any("link.jsonl is the same file as" in m for m in caplog.messages)
    (tmp_path / "copy.jsonl").write_bytes(path.read_bytes())
    streams(line)
    assert (
        "data.jsonl begins like copy.jsonl and has its size: if it is a copy, remove it"
        in caplog.messages
    )
