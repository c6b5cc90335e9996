"""What users have, good and bad, on real files and through the lanes, as training reads them.

Bad records are skipped, counted by cause, named by file and record, and replaced; unusual ones come out as they should.
Ratios that are refused (zero, negative, NaN) are in test_config.py.
"""

import base64
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import struct
import tarfile
import tempfile
import zlib

import jax
import numpy as np
import pytest
import test_formats as formats
import tiny
from conftest import on_mesh
from PIL import Image

from janus_jax import batch as bt
from janus_jax import loss
from janus_jax.data import catalog, image_ids, image_ids_writer
from janus_jax.data.images import generation_image, understanding_image
from janus_jax.data.ledger import Ledger
from janus_jax.data.pipeline import DRAWN, Rows
from janus_jax.data.sources import KINDS, Dataset, SourceError

GOOD, SIDE, BAD = 40, 16, 17  # records; pixels of tiny.CONFIG's pictures; the place of the bad record
ROWS = Rows(count=2, length=192, pictures=1, images=2)


def lanes(line: Dataset, rows: Rows = ROWS, **how):
    """Batches of one data set and its ledger, whose lines of the log are in `said`."""
    source = catalog.open_dataset(line, SIDE, 0)
    source = image_ids.attach(source, line.image_ids) if line.image_ids else source
    ratio = {kind: float(kind == line.kind) for kind in KINDS}
    processor = how.pop("processor", None) or tiny.processor()
    out = tiny.batches({"mine": (line.kind, source)}, processor, tiny.CONFIG, rows, ratio, dropout=0.0, **how)
    said = []
    out.ledger = Ledger(out.mixture, said.append)
    return out, said


def epoch(iterator, count: int) -> dict[int, int]:
    """Position -> the record drawn there, once each of the first `count` positions has had its turn."""
    found = {}
    while not set(range(count)) <= set(found):
        examples = next(iterator)["examples"]
        found |= dict(examples[:, [DRAWN.index("position"), DRAWN.index("record")]].tolist())
    iterator.settle()
    iterator.close()
    return {position: record for position, record in found.items() if position < count}


def require_skipped(line: Dataset, bad: int, cause: str, *words: str, **how):
    """One epoch of a data set of GOOD good records and a bad one, which is all that is lost."""
    iterator, said = lanes(line, **how)
    mixture = iterator.mixture
    drawn = epoch(iterator, GOOD + 1)
    assert iterator.ledger.bad["mine"] == {bad: cause}, said
    assert len(said) == 1 and said[0].startswith(f"skipped a record of mine ({cause}): "), said
    for word in (mixture.entries[0].source.where(bad), *words):
        assert word in said[0], said[0]
    (place,) = (p for p in range(GOOD + 1) if mixture.index(0, p) == bad)
    assert {p: r for p, r in drawn.items() if p != place} == {
        p: mixture.index(0, p) for p in range(GOOD + 1) if p != place
    }
    tries = (int(mixture.rng(0, place, attempt).integers(GOOD + 1)) for attempt in range(1, 10))
    assert drawn[place] == next(r for r in tries if r != bad)


def png(image: Image.Image, format: str = "PNG", **options) -> bytes:
    image.save(out := io.BytesIO(), format, **options)
    return out.getvalue()


def of_file(name: str, data: bytes):
    """A record of a picture that is in `name`."""

    def write(root) -> bytes:
        (root / "pictures" / name).write_bytes(data)
        return json.dumps({"image": name, "caption": "odd"}).encode()

    return write


def of_record(record: dict | bytes):
    return lambda root: record if isinstance(record, bytes) else json.dumps(record).encode()


def chat(*turns) -> dict:
    return {"image": "0.png", "conversations": [{"from": who, "value": said} for who, said in turns]}


def of_link(root) -> bytes:
    (root / "secret.png").write_bytes(png(Image.new("RGB", (8, 8))))
    (root / "pictures" / "link.png").symlink_to(root / "secret.png")
    return b'{"image": "link.png", "caption": "odd"}'


def of_folder(root) -> bytes:
    (root / "pictures" / "folder.png").mkdir()
    return b'{"image": "folder.png", "caption": "odd"}'


def bomb() -> bytes:
    """The beginning of a PNG (ISO/IEC 15948) that claims 20000x20000 pixels."""
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)) + chunk(
        b"IDAT", b""
    )  # fmt: skip


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def written(root: pathlib.Path, record: bytes | None = None, count: int = GOOD, pictures: bool = True) -> str:
    """Good records in JSON lines, `record` at BAD; the pictures in a folder."""
    (root / "pictures").mkdir(exist_ok=True)
    for k in range(2):
        (root / "pictures" / f"{k}.png").write_bytes(png(noise(SIDE + k, SIDE)))
    named = lambda k: {"image": f"{k % 2}.png"} if pictures else {}
    lines = [json.dumps(named(k) | {"caption": f"picture {k}"}).encode() for k in range(count)]
    lines[BAD:BAD] = [record] if record else []
    (root / "data.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return str(root / "data.jsonl")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
PHOTO = png(noise(64, 64), "JPEG")
ESCAPE = 'field "image" leaves the folder'
# Row of the table of bad inputs, in words: kind, what writes the record, cause, words of the message.
SKIPPED = {
    "1 truncated": ("generation", of_file("x.jpg", PHOTO[: len(PHOTO) // 2]), "damaged", "x.jpg: cannot be decoded"),
    "1 truncated, to see": ("understanding", of_file("x.jpg", PHOTO[: len(PHOTO) // 2]), "damaged", "get it again"),
    "2 empty": ("generation", of_file("x.jpg", b""), "empty file", "x.jpg: is empty (0 bytes)"),
    "3 HTML": ("generation", of_file("x.jpg", b"<!DOCTYPE html><p>404"), "web page", "x.jpg: looks like HTML"),
    "6 float": (
        "generation", of_file("x.tif", png(Image.fromarray(np.array([[-1, 2]], np.float32)), "TIFF")), "damaged",
        "needs [0, 1] or [0, 255]",
    ),
    "11 bomb": ("generation", of_file("x.png", bomb()), "too large", "x.png: ", "scale it down"),
    "14 SVG": ("generation", of_file("x.svg", b"<svg xmlns='x'/>"), "unsupported type", "SVG; supported JPEG, PNG"),
    "14 HEIC": ("generation", of_file("x.jpg", HEIC), "unsupported type", "HEIC; supported JPEG, PNG"),
    "14 PDF": ("generation", of_file("x.png", b"%PDF-1.7\n"), "unsupported type", "PDF; supported JPEG, PNG"),
    "16 missing": ("generation", of_record({"image": "x.png", "caption": "a"}), "missing file", "x.png: no such file"),
    "17 folder": ("generation", of_folder, "no regular file", "folder.png: is a directory"),
    "18 dots": (
        "generation", of_record({"image": "../../etc/passwd", "caption": "a"}), "outside the folder", ESCAPE,
        "'../../etc/passwd'",
    ),
    "18 absolute": ("understanding", of_record({"image": "/etc/passwd", "caption": "a"}), "outside the folder", ESCAPE),
    "18 link": ("generation", of_link, "outside the folder", ESCAPE),
    "19 base64": (
        "generation", of_record({"image": "data:image/png;base64,iVBOR%", "caption": "a"}), "bad base64",
        'field "image": \'data:image/png', "is not valid base64",
    ),
    "19 base64 of no picture": (
        "generation",
        of_record({"image": "data:image/png;base64," + base64.b64encode(b"hello").decode(), "caption": "a"}),
        "damaged", "damaged, or no picture",
    ),
    "20 URL": (
        "generation", of_record({"image": "http://x.org/a.png", "caption": "a"}), "web address", "download it",
    ),
    "25 empty caption": ("generation", of_record({"image": "0.png", "caption": ""}), "blank caption", '"caption" is'),
    "25 empty text": ("text", of_record({"text": ""}), "blank caption", 'field "text" is empty or blank'),
    "26 control": ("understanding", of_record({"image": "0.png", "caption": " \u200b\x07\n"}), "blank caption"),
    "29 Latin-1": (
        "generation", of_record(b'{"image": "0.png", "caption": "caf\xe9"}'), "not UTF-8", "byte 0xe9 at offset",
    ),
    "29 surrogate": (
        "generation", of_record(b'{"image": "0.png", "caption": "a\\ud800"}'), "lone surrogate", "at character 1",
    ),
    "35 broken": ("generation", of_record(b'{"image": "0.png", "caption": "bro'), "not JSON", "is not JSON ("),
    "36 missing field": ("generation", of_record({"image": "0.png", "id": 3}), "missing field", "(fields: image, id)"),
    "36 picture": ("generation", of_record({"image": 7, "caption": "a"}), "wrong type", "\"image\" is '7' (int)"),
    "36 caption": ("generation", of_record({"image": "0.png", "caption": 7}), "wrong type", "\"caption\" is '7' (int)"),
    "36 no object": ("text", of_record(b'["image"]'), "not an object", "is a list, needs an object"),
    "37 role": (
        "understanding", of_record(chat(("human", "<image>"), ("narrator", "a"))), "unknown role",
        "conversations[1].from\" is 'narrator'",
    ),
    "37 twice": (
        "understanding", of_record(chat(("human", "<image>"), ("gpt", "a"), ("gpt", "b"))), "turn out of order",
        "two assistant turns in a row",
    ),
    "38 no answer": (
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
    """As "nobody" (by convention 65534) where the tests run as root, whom permissions do not stop."""
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_picture_without_permission_is_skipped():
    with tempfile.TemporaryDirectory() as root:  # tmp_path is below a folder that others may not enter
        root = pathlib.Path(root)
        root.chmod(0o755)
        path = written(root, b'{"image": "mine.png", "caption": "a"}')
        (root / "pictures" / "mine.png").write_bytes(PHOTO)
        (root / "pictures" / "mine.png").chmod(0)
        line = Dataset("generation", path, images=str(root / "pictures"))
        with unprivileged():
            require_skipped(line, BAD, "no permission", "mine.png: no permission to read it")
        (root / "pictures").chmod(0)
        with unprivileged(), pytest.raises(SourceError, match=r"mine: 100 records in a row .* no permission"):
            next(lanes(line)[0])
        with unprivileged(), pytest.raises(SourceError, match=r"pictures: Permission denied; give a folder"):
            lanes(Dataset("generation", str(root / "pictures")))
        pathlib.Path(path).chmod(0)
        with (
            unprivileged(),
            pytest.raises(SourceError, match=r"data\.jsonl: Permission denied; make it a file"),
        ):
            lanes(line)


def escaping_folder(root):
    """A link out of the folder, in the place of one of its pictures."""
    formats.flat(root, GOOD + 1)
    (root.parent / "secret.jpg").write_bytes(formats.photo(0))
    (root / "007.jpg").unlink()
    (root / "007.jpg").symlink_to(root.parent / "secret.jpg")
    return root, 7


def escaping_caption(root):
    formats.flat(root, GOOD + 1)
    (root.parent / "secret.txt").write_text("secret")
    (root / "007.txt").unlink()
    (root / "007.txt").symlink_to(root.parent / "secret.txt")
    return root, 7


def escaping_parquet(root):
    pyarrow, parquet = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))
    (root / "0.jpg").write_bytes(formats.photo(0))
    names = ["0.jpg"] * (GOOD + 1)
    names[7] = "../../etc/passwd"
    captions = [formats.caption(k) for k in range(GOOD + 1)]
    parquet.write_table(pyarrow.table({"image": names, "caption": captions}), root / "data.parquet")
    return root / "data.parquet", 7


@pytest.mark.parametrize("write", [escaping_folder, escaping_caption, escaping_parquet])
def test_what_leads_out_of_the_folder_is_skipped_in_every_format(write, tmp_path):
    (tmp_path / "data").mkdir()
    path, bad = write(tmp_path / "data")
    require_skipped(Dataset("generation", str(path)), bad, "outside the folder", "leaves the folder")


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
        Dataset("generation", str(tmp_path / "a.tar")), 7, "no picture", "007.json", "../../etc/passwd"
    )


def frames(format: str, **options) -> bytes:
    first, *others = (Image.new("RGB", (20, 12), colour) for colour in ("red", "blue", "lime"))
    return png(first, format, save_all=True, append_images=others, **options)


def rotated() -> tuple[bytes, Image.Image]:
    exif = Image.Exif()
    exif[0x112] = 6  # orientation (CIPA DC-008, Exif 2.3): a quarter turn clockwise makes it upright
    sideways = Image.new("RGB", (32, 20), "black")
    sideways.paste("white", (0, 0, 8, 20))
    return png(sideways, exif=exif), sideways.transpose(Image.Transpose.ROTATE_270)


def plain(image: Image.Image, format: str = "PNG", **options) -> tuple[bytes, Image.Image]:
    return png(image, format, **options), image.convert("RGB")


GREY = np.random.default_rng(1).integers(0, 256, (24, 20)).astype(np.uint8)
IN_GREY = Image.fromarray(GREY).convert("RGB")
PALETTE = noise(20, 24).quantize(16)
CMYK = png(noise(20, 24).convert("CMYK"), "JPEG", quality=95)
RGBA = noise(20, 24)
RGBA.putalpha(Image.fromarray(np.random.default_rng(2).integers(0, 256, (20, 24)).astype(np.uint8)))
# Row of the table, in words: the file's name and bytes, and the RGB picture that it is.
READ = {
    "4 CMYK": ("x.jpg", CMYK, Image.open(io.BytesIO(CMYK)).convert("RGB")),
    "5 16 bit": ("x.png", png(Image.fromarray(GREY * np.uint16(256) + 255 - GREY)), IN_GREY),
    "6 float": ("x.tif", png(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), IN_GREY),
    "7 grey": ("x.png", png(Image.fromarray(GREY)), IN_GREY),
    "7 grey, alpha": ("x.png", *plain(IN_GREY.convert("LA"))),
    "7 one bit": ("x.png", *plain(IN_GREY.convert("1"))),
    "8 alpha": ("x.png", png(RGBA), Image.fromarray(np.asarray(RGBA)[..., :3])),
    "8 palette": ("x.png", png(PALETTE, transparency=bytes(range(16))), PALETTE.convert("RGB")),
    "9 GIF": ("x.gif", frames("GIF"), Image.new("RGB", (20, 12), "red")),
    "9 WebP": ("x.webp", frames("WEBP", lossless=True), Image.new("RGB", (20, 12), "red")),
    "10 EXIF": ("x.png", *rotated()),
    "12 wide": ("x.png", *plain(noise(1, 5000))),
    "12 high": ("x.png", *plain(noise(5000, 1))),
    "13 one pixel": ("x.png", *plain(noise(1, 1))),
    "15 wrong suffix": ("x.jpg", *plain(noise(20, 24))),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["generation", "understanding"])
@pytest.mark.parametrize("row", READ)
def test_an_unusual_picture_comes_out_as_it_should(row, kind, tmp_path):
    name, data, expected = READ[row]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "data.jsonl").write_text(json.dumps({"image": name, "caption": "odd"}))
    iterator, said = lanes(Dataset(kind, str(tmp_path / "data.jsonl")))
    batch = next(iterator)
    iterator.settle()
    iterator.close()
    assert not said
    if kind == "generation":
        np.testing.assert_array_equal(batch["images"][0, 0], generation_image(expected, SIDE, fast=True))
    else:
        np.testing.assert_array_equal(batch["pictures"][0, 0], understanding_image(expected, SIDE, fast=True))


def first_example(line: Dataset, rows: Rows, **how):
    """(the arrays of the first example of a step, its code, what the ledger counts as truncated)"""
    iterator, said = lanes(line, rows, **how)
    batch = next(iterator)
    iterator.settle()
    iterator.close()
    assert not said
    there = batch["segment_ids"][0] == 1
    row = {name: batch[name][0, there] for name in ("tokens", "text_targets", "image_targets", "image_slots")}
    code = int(batch["examples"][0, DRAWN.index("code")])
    return row, code, iterator.ledger.shares(0)[0][-1]


TEXTS = {
    "30 BOM, CRLF, NUL": (b'\xef\xbb\xbf{"text": "one\0 two"}\r\n\r\n\0\0\0', "one two"),
    "34 emoji, right to left, CJK": ('{"text": "🐧 שלום 汉字"}'.encode(), "🐧 שלום 汉字"),
    "34 composed": ('{"text": "\u00e9 e\u0301"}'.encode(), "\u00e9 e\u0301"),
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
    (tmp_path / "a.png").write_bytes(png(noise(20, 20)))
    (tmp_path / "data.jsonl").write_text(json.dumps({"image": "a.png", "caption": "word " * 500}))
    line = Dataset("generation", str(tmp_path / "data.jsonl"))
    row, code, cut = first_example(line, Rows(count=1, length=64, pictures=0, images=1))
    n, t = tiny.CONFIG.generation_encoder.tokens, tiny.processor().tokenizer
    assert code == 3 + bt.TRUNCATED and cut == 1 and len(row["tokens"]) == 64
    assert row["image_slots"].tolist()[-n - 2 :] == [*range(1, n + 1), 0, 0]
    assert (row["image_targets"] > 0).sum() == n and row["tokens"][-n - 3] == t.begin_of_image
    assert row["tokens"].tolist()[-2:] == [t.end_of_image, t.eos]


def test_a_megabyte_of_text_is_cut_and_counted(tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps({"text": "to be or not to be, " * 50_000}))
    line = Dataset("text", str(tmp_path / "data.jsonl"))
    row, code, cut = first_example(line, Rows(count=1, length=64, pictures=0, images=0))
    t = tiny.processor().tokenizer
    assert code == 2 + bt.TRUNCATED and cut == 1
    assert t.decode(row["tokens"][1:40]).startswith("to be or not to be, to be")


def test_what_is_not_to_be_predicted_is_masked(tmp_path):
    (tmp_path / "a.png").write_bytes(png(noise(20, 20)))
    record = {"image": "a.png", "question": "What is it?", "answer": "noise"}
    (tmp_path / "data.jsonl").write_text(json.dumps(record))
    row, *_ = first_example(Dataset("understanding", str(tmp_path / "data.jsonl")), ROWS, supervise="answers")
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
        run = jax.jit(loss.janus_loss, compiler_options={"xla_backend_optimization_level": 0})
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
    codes = np.concatenate([next(iterator)["examples"][:, DRAWN.index("code")] for _ in range(20)])
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
        SourceError, match=r"token id \d+ is beyond model\.transformer\.vocabulary, 64: the tokenizer"
    ):
        next(iterator)
    iterator.close()


def test_an_image_id_beyond_the_codebook_is_skipped(tmp_path):
    """Stored ids are bound to a tokenizer's sizes; this directory was tampered with, or rotted."""
    path, vq = written(tmp_path, count=GOOD + 1), tiny.CONFIG.generation_encoder
    line = Dataset("generation", path, images=str(tmp_path / "pictures"), image_ids=str(tmp_path / "ids"))
    source = catalog.open_dataset(line, SIDE, 0)
    origin = image_ids.Origin(
        "t", dataclasses.asdict(vq), "p", image_ids.pictures_of(source), GOOD + 1, GOOD + 1
    )
    image_ids_writer.begin(tmp_path / "ids", origin, {"arguments": []})
    ids = np.zeros((GOOD + 1, vq.tokens), origin.dtype)
    ids[BAD, 3] = vq.codebook_size
    np.save(tmp_path / "ids" / origin.files[0], ids)
    (tmp_path / "ids" / image_ids.ROTTEN).write_text("")
    require_skipped(line, BAD, "wrong image_ids", "image_ids must be 16 numbers in [0, 64)", ids=True)


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
    iterator, _ = lanes(line)
    assert sorted(epoch(iterator, GOOD).values()) == list(range(GOOD))
    assert any("link.jsonl is the same file as" in m for m in caplog.messages)
    (tmp_path / "copy.jsonl").write_bytes(path.read_bytes())
    lanes(line)
    assert "data.jsonl begins like copy.jsonl and has its size: if it is a copy, remove it" in caplog.messages
