"""Every format, written from real photographs, read back: records, pixels, pickles, threads; and what is refused."""

import concurrent.futures
import functools
import io
import json
import os
import pickle
import resource
import shutil
import tarfile

import msgpack
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from janus_jax.data.catalog import detect, open_dataset, open_datasets
from janus_jax.data.formats.files import Files, allow_open_files, inside
from janus_jax.data.formats.names import Names
from janus_jax.data.formats.parquet import Parquet
from janus_jax.data.images import ImageError, read_image
from janus_jax.data.sources import Dataset, RecordError, SourceError

skimage = pytest.importorskip("skimage")
NAMES = ("astronaut", "coffee", "chelsea")
SUFFIX = {"json": ".jsonl", "webdataset": ".tar", "array_record": ".array_record", "parquet": ".parquet"}


@functools.cache
def jpeg(name, size=96):
    photo = Image.fromarray(getattr(skimage.data, name)())
    photo.thumbnail((size, size))
    photo.save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


@functools.cache
def photo(k):
    """JPEG of a piece of a photograph, another one for each k."""
    rng, whole = np.random.default_rng(k), Image.fromarray(getattr(skimage.data, NAMES[k % 3])())
    side = int(rng.integers(100, 200))
    left, top = (int(rng.integers(length - side)) for length in whole.size)
    piece = whole.crop((left, top, left + side, top + side)).resize((96, 64 + k % 3 * 32))
    piece.save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


def caption(k):
    return f"{NAMES[k % 3]} number {k}"


def json_lines(root, n):
    for k in range(n):
        (root / f"{k}.jpg").write_bytes(photo(k))
    lines = [json.dumps({"image": f"{k}.jpg", "caption": caption(k)}) for k in range(n)]
    (root / "data.jsonl").write_text("\n".join(lines))
    return root / "data.jsonl"


def json_list(root, n):
    lines = json_lines(root, n).read_text().split("\n")
    (root / "data.json").write_text("\ufeff[\r\n" + " ,\n".join(lines) + "]\n", encoding="utf-8")
    return root / "data.json"


def flat(root, n):
    for k in range(n):
        (root / f"{k:03}.jpg").write_bytes(photo(k))
        (root / f"{k:03}.txt").write_text(caption(k) + "\n")
    return root


def tars(root, n, format=tarfile.PAX_FORMAT, folder=""):
    for shard in range(2):
        with tarfile.open(root / f"{shard}.tar", "w", format=format) as tar:
            for k in range(shard * n // 2, (shard + 1) * n // 2):
                members = {"jpg": photo(k), "txt": caption(k).encode(), "json": b'{"score": 0.5}'}
                for suffix, data in members.items():
                    member = tarfile.TarInfo(f"{folder}{k:03}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return root


def array_record(root, n):
    from array_record.python.array_record_module import ArrayRecordWriter

    for shard in range(2):
        writer = ArrayRecordWriter(str(root / f"x-{shard:05}-of-00002.array_record"), "group_size:1")
        for k in range(shard * n // 2, (shard + 1) * n // 2):
            writer.write(msgpack.packb({"image": photo(k), "caption": caption(k)}))
        writer.close()
    return root


def hub_table(n):
    datasets = pytest.importorskip("datasets")
    features = {"img": datasets.Image(), "caption": datasets.Value("string")}
    features["label"] = datasets.ClassLabel(names=["an_astronaut", "coffee", "cat"])
    rows = {"img": [{"bytes": photo(k), "path": None} for k in range(n)]}
    rows |= {"caption": [caption(k) for k in range(n)], "label": [k % 3 for k in range(n)]}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def parquet(root, n):
    pytest.importorskip("pyarrow")
    hub_table(n).to_parquet(str(root / "data.parquet"), batch_size=5)
    return root / "data.parquet"


def plain_parquet(root, n):
    pyarrow, parquet = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))
    rows = {"image": [photo(k) for k in range(n)], "caption": [caption(k) for k in range(n)]}
    parquet.write_table(pyarrow.table(rows), root / "plain.parquet", row_group_size=4)
    return root


def saved_by_datasets(root, n):
    hub_table(n).save_to_disk(str(root / "saved"))
    return root / "saved"


@functools.cache
def photographs():
    """A builder: TFDS takes each once in a process."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Photographs(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            picture = tfds.features.Image(encoding_format="jpeg")
            features = {"picture": picture, "caption": tfds.features.Text()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for k in range(self.count):
                yield k, {"picture": io.BytesIO(photo(k)), "caption": caption(k)}

    return Photographs


def tfds(root, n):
    """TFDS orders rows by a hash of their keys, so these are found by their captions."""
    photographs().count = n
    photographs()(data_dir=str(root), file_format="array_record").download_and_prepare()
    return f"tfds:photographs:1.0.0@train?{root}"


FORMATS = [
    json_lines, json_list, flat, tars,
    functools.partial(tars, format=tarfile.USTAR_FORMAT, folder="p" * 60 + "/" + "q" * 60 + "/"),
    functools.partial(tars, format=tarfile.GNU_FORMAT, folder="x" * 120 + "/"),
    functools.partial(tars, folder="x" * 120 + "/é/"),
    array_record, parquet, plain_parquet, saved_by_datasets, tfds,
]  # fmt: skip


@pytest.mark.parametrize("write", FORMATS, ids=lambda f: getattr(f, "__name__", "tars_long_names"))
def test_what_is_written_is_read_back(write, tmp_path):
    line = Dataset("generation", str(write(tmp_path, 12)))
    source = open_dataset(line, 24, 0)
    numbers = [int(source[i]["captions"][0].split()[-1]) for i in range(len(source))]
    assert sorted(numbers) == list(range(12)) and (write is tfds or numbers == list(range(12)))

    def row(i):
        return source[i], np.asarray(source.image(i)).tobytes(), source.where(i)

    for i, k in enumerate(numbers):
        record, pixels, where = row(i)
        written = np.asarray(read_image(io.BytesIO(photo(k))))
        assert record == {"captions": [caption(k)]} and pixels == written.tobytes()
        assert source.portable(i)["image"] == photo(k) and str(tmp_path) not in where
    copy, again = pickle.loads(pickle.dumps(source)), open_dataset(line, 24, 0)
    assert repr(copy) == repr(again) == repr(source) and str(tmp_path) not in repr(source)
    assert again.fingerprint == source.fingerprint
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(12), 8))
    for read in (source, copy):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda i, read=read: np.asarray(read.image(i)).tobytes(), order))
        expected = {i: row(i)[1] for i in range(12)}
        assert got == [expected[i] for i in order]


def write_classes(root):
    for k, name in enumerate(("n02", "n01", "sea_lion")):
        (root / name).mkdir(parents=True)
        (root / name / "b.JPEG").write_bytes(jpeg(NAMES[k]))
        (root / name / "a.png").write_bytes(jpeg(NAMES[k]))
    return str(root)


@pytest.mark.parametrize(
    "names",
    [
        '{"n01": "tench, Tinca tinca", "n02": ["goldfish", "Carassius"]}',
        '{"0": ["n01", "tench"], "1": ["n02", "goldfish"]}',
        "n01\ttench, Tinca tinca\nn02\tgoldfish, Carassius\n",
        "n01 tench, Tinca tinca\r\nn02 goldfish, Carassius",
    ],
)
def test_class_folders_and_their_names(tmp_path, names, caplog):
    root, table = write_classes(tmp_path / "train"), tmp_path / "names"
    table.write_text(names)
    line = Dataset("generation", root, names=str(table), prompt=("a photo of {name}",))
    source = open_dataset(line, 24, 0)
    assert [source[i]["captions"] for i in (0, 2, 4)] == [
        ["a photo of tench"],
        ["a photo of goldfish"],
        ["a photo of sea lion"],
    ]
    assert [source.where(i) for i in range(3)] == ["n01/a.png", "n01/b.JPEG", "n02/a.png"]
    assert [m for m in caplog.messages if "sea_lion" in m] == [
        f"{table}: does not name class 'sea_lion', perhaps others: it is called 'sea lion'"
    ]
    both = Dataset("generation", root, names=str(table), caption="names")
    if "Tinca" in names:
        assert open_dataset(both, 24, 0)[0]["captions"] == ["tench", "Tinca tinca"]


def test_folders_that_are_neither_layout_are_refused(tmp_path):
    write_classes(tmp_path / "up" / "train")
    assert "no picture in its folder 'train', and folders are classes here" in refusal(tmp_path / "up")
    for k in range(2):
        (tmp_path / "flat").mkdir(exist_ok=True)
        (tmp_path / "flat" / f"{k}.png").write_bytes(jpeg("coffee"))
    assert "no .txt or .json with its caption beside any of 2 pictures" in refusal(tmp_path / "flat")
    (tmp_path / "flat" / "1.json").write_text('{"caption": "coffee", "image": "ignored.png"}')
    source = open_dataset(Dataset("generation", str(tmp_path / "flat")), 24, 0)
    assert source[1] == {"captions": ["coffee"]} and source.image(1).width == 96
    with pytest.raises(RecordError, match=r"0\.png: no \.txt or \.json"):
        source[0]
    (tmp_path / "none").mkdir()
    assert "no pictures and no folders in it" in refusal(tmp_path / "none", format="folder")


def test_names_that_are_none_are_refused(tmp_path):
    for text in ("", "n01", '{"n01": 3}', '{"n01": " ,"}'):
        (tmp_path / "names").write_text(text)
        with pytest.raises(SourceError, match="names"):
            Names(str(tmp_path / "names"))


def test_class_numbers_and_several_pictures_in_tars(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in {
            "x/1.cls": b"1", "x/1.jpg": jpeg("coffee"), "x/2.left.jpg": jpeg("coffee"),
            "x/2.right.jpg": jpeg("chelsea"), "x/2.json": b'{"question": "same?", "answer": "no", "image": "z.jpg"}',
            "x/._2.jpg": b"mac", "x/3.json": b"{", "x/4.txt": b"caf\xe9", "x/4.png": b"",
        }.items():  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    (tmp_path / "names.json").write_text('["zero", "one, uno"]')
    drawn = open_dataset(
        Dataset("generation", str(tmp_path / "a.tar"), names=str(tmp_path / "names.json")), 24, 0
    )
    asked = open_dataset(Dataset("understanding", str(tmp_path / "a.tar")), 24, 0)
    assert len(drawn) == 4 and drawn[0]["captions"] == ["one"]
    assert asked[1]["messages"][0]["content"] == [{"type": "image"}] * 2 + [{"type": "text", "text": "same?"}]
    assert np.array_equal(asked.image(1, 1), read_image(io.BytesIO(jpeg("chelsea"))))
    for i, cause in ((2, "not JSON"), (3, "not UTF-8")):
        with pytest.raises(RecordError, match=f"a.tar: sample {i}, x/{i + 1}") as error:
            drawn[i]
        assert error.value.cause == cause
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def refusal(path, kind="generation", **options):
    with pytest.raises(SourceError) as error:
        open_dataset(Dataset(kind, str(path), **options), 24, 0)
    return str(error.value)


def test_damaged_shards_are_refused_by_name(tmp_path, caplog):
    root = tars(tmp_path, 6)
    whole = (root / "0.tar").read_bytes()
    (root / "0.tar").write_bytes(whole.rstrip(b"\0") + bytes(-len(whole.rstrip(b"\0")) % 512))
    assert len(open_dataset(Dataset("generation", str(root)), 24, 0)) == 6
    assert any("0.tar: has no end mark; if it was cut off" in m for m in caplog.messages)
    (root / "0.tar").write_bytes(whole[: len(jpeg("astronaut")) // 2])
    with tarfile.open(root / "1.tar") as tar:
        second = tar.getmembers()[1].offset
    (root / "1.tar").write_bytes(whole[:second] + b"?" * 512 + whole[second + 512 :])
    (root / "2.tar").write_bytes(b"\x1f\x8b" + whole)
    (root / "3.tar").write_bytes(bytes(10240))
    (root / "4.tar").write_bytes(b"<html>" * 200)
    message = refusal(root)
    for why in (
        "0.tar: is cut off within '",
        "2.tar: is compressed",
        "3.tar: holds no samples",
        "4.tar: is no tar",
    ):
        assert why in message
    (root / "5.tar").write_bytes(b"")
    assert "5.tar: is empty (0 bytes)" in refusal(root)
    (tmp_path / "a.array_record").write_bytes(
        (array_record(tmp_path, 12) / "x-00000-of-00002.array_record").read_bytes()[:-9999]
    )
    assert "a.array_record: cannot be read as ArrayRecord" in refusal(tmp_path / "a.array_record")


def test_records_of_another_codec_are_refused(tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    for name, payload in (("a", b"\x0a\x10tf.train.Example"), ("b", None)):
        writer = ArrayRecordWriter(str(tmp_path / f"{name}.array_record"), "group_size:1")
        if payload:
            writer.write(payload)
        writer.close()
    message = refusal(tmp_path)
    assert "a.array_record: its records are no msgpack maps" in message and "tfds:" in message
    assert "b.array_record: holds no records" in message


def test_text_documents(tmp_path):
    (tmp_path / "a.txt").write_bytes(
        "\ufeffone\r\nline\r\n\r\n \r\ntwo \u2028é\n".encode() + b"\n\n\ncaf\xe9\n"
    )
    (tmp_path / "b.txt").write_text("\n\nthree\n")
    source = open_dataset(Dataset("text", str(tmp_path)), 24, 0)
    assert [source[i]["text"] for i in (0, 1, 3)] == ["one\nline", "two \u2028é", "three"]
    with pytest.raises(
        RecordError, match=r"a\.txt: document 2: byte 0xe9 at offset 35 of the file is not UTF-8"
    ):
        source[2]
    whole = open_dataset(Dataset("text", str(tmp_path / "b.txt"), format="text_files"), 24, 0)
    assert len(whole) == 1 and whole[0]["text"] == "three"
    (tmp_path / "b.txt").write_bytes(b"a" + b" " * 10**6 + b"b\n" + bytes(10**6) + b"\n \n  c")
    long = open_dataset(Dataset("text", str(tmp_path / "b.txt")), 24, 0)
    assert [len(long[i]["text"]) for i in range(len(long))] == [10**6 + 2, 3]
    (tmp_path / "c.txt").write_text(" \n\n\0")
    assert "c.txt: holds blank lines only" in refusal(tmp_path, "text")


def test_files_are_found_once_in_one_order(tmp_path, caplog):
    for name in ("b-1.jsonl", "b-0.jsonl", "sub/c-0.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}))
    (tmp_path / "b-2.jsonl").symlink_to(tmp_path / "b-0.jsonl")
    (tmp_path / "copy.jsonl").write_text((tmp_path / "b-0.jsonl").read_text())

    def texts(pattern):
        source = open_dataset(Dataset("text", str(tmp_path / pattern), format="json"), 24, 0)
        return [source[i]["text"] for i in range(len(source))]

    assert texts("") == ["b-0.jsonl", "b-1.jsonl", "b-0.jsonl", "sub/c-0.jsonl"]
    assert any("b-2.jsonl is the same file as" in m for m in caplog.messages)
    assert "copy.jsonl begins like b-0.jsonl and has its size: if it is a copy, remove it" in caplog.messages
    assert texts("b-?.jsonl") == texts("b-{0..1}.jsonl") == ["b-0.jsonl", "b-1.jsonl"]
    assert texts("**/*-0.jsonl") == ["b-0.jsonl", "sub/c-0.jsonl"]
    for pattern in ("no-*.jsonl", "no.jsonl", "b-{0..7}.jsonl"):
        with pytest.raises(SourceError, match="no such file"):
            texts(pattern)


def test_the_fingerprint_follows_the_content_and_the_options(tmp_path):
    path = json_lines(tmp_path, 3)
    prints = [
        open_dataset(Dataset("generation", str(path), **o), 24, 0).fingerprint
        for o in ({}, {"prompt": ("a {caption}",)})
    ]
    path.write_text(path.read_text().replace("number 1", "number 7"))
    prints.append(open_dataset(Dataset("generation", str(path)), 24, 0).fingerprint)
    assert len(set(prints)) == 3


@pytest.mark.parametrize("format", ["json", "folder", "webdataset", "array_record", "text"])
def test_a_format_that_is_not_there_is_refused(tmp_path, format):
    path = tmp_path / "photo.bin"
    path.write_bytes(jpeg("coffee"))
    if format != "text":  # any file might be text; its records then say what is wrong
        assert "photo.bin" in refusal(path, format=format)
    assert "its name tells no format; set format to one of json, folder" in refusal(path)
    assert "format is 'tar'" in refusal(path, format="tar")


def test_formats_are_told_from_paths(tmp_path):
    write_classes(tmp_path / "classes")
    assert detect(str(tmp_path / "classes")) == "folder" and detect("a/{000..123}.tar") == "webdataset"
    assert [detect(p) for p in ("hf:a/b:train", "tfds:x@train", "x/*.parquet")] == ["hf", "tfds", "parquet"]
    (tmp_path / "mixed").mkdir()
    for name in ("a.json", "b.tar"):
        (tmp_path / "mixed" / name).write_text("x")
    assert "holds json and webdataset files" in refusal(tmp_path / "mixed")
    (tmp_path / "classes" / "stray.jpg").write_bytes(jpeg("coffee"))
    assert "captions beside pictures, or folders named by class" in refusal(tmp_path / "classes")
    assert "no such file or folder" in refusal(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "is an empty folder" in refusal(tmp_path / "empty")


def test_every_problem_of_a_config_is_told_at_once_and_unused_lines_are_not_opened(tmp_path):
    lines = {
        "a": Dataset("text", str(tmp_path / "a.json")),
        "b": Dataset("texts", "x"),
        "c": Dataset("text", "no.json"),
    }
    with pytest.raises(SourceError) as error:
        open_datasets(lines | {"d": Dataset("generation", "shapes:nothing")}, 24, 0, {"a", "b", "d"})
    message = str(error.value)
    assert "data.datasets.a: " in message and "data.datasets.b: kind is 'texts'" in message
    assert "data.datasets.d: shapes:nothing: unknown" in message and "datasets.c" not in message


def test_presets_keep_the_protocol():
    for kind, path in (("understanding", "shapes:"), ("text", "shapes:"), ("generation", "shapes:pictures")):
        source = open_dataset(Dataset(kind, path), 24, 3)
        assert source[5] == open_dataset(Dataset(kind, path), 24, 3)[5] and source.where(5) == "shapes:5"
        assert source.fingerprint != open_dataset(Dataset(kind, path), 24, 4).fingerprint
    assert source.image(5, k=0).shape == (24, 24, 3) and source[5]["captions"]


def test_small_and_low_scored_records_are_left_out_when_opened(tmp_path, caplog):
    sizes = {"a": 40, "b": 96, "c": 96, "d": 96}
    for name, size in sizes.items():
        (tmp_path / f"{name}.jpg").write_bytes(jpeg("astronaut", size))
    (tmp_path / "d.jpg").write_bytes(b"rotten")
    records = [{"image": f"{n}.jpg", "caption": n, "aesthetic": 5 + k} for k, n in enumerate("abcd")]
    records += [{"image": "a.jpg", "caption": "e", "aesthetic": 9, "width": 64, "height": 80}]
    records += [{"image": "b.jpg", "caption": "f"}, {"image": "b.jpg", "caption": "g", "aesthetic": "high"}]
    records += [{"image": "b.jpg", "caption": "h", "aesthetic": float("nan")}]
    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("x", "y" * (2**20 + 1), zip=True)  # Pillow refuses it with a ValueError
    Image.new("RGB", (96, 96)).save(tmp_path / "bomb.png", pnginfo=bomb)
    records += [{"image": "bomb.png", "caption": "i", "aesthetic": 9}]
    (tmp_path / "data.json").write_text(json.dumps(records))
    options = {"min_side": 64, "score": "aesthetic", "min_score": 6.5}
    source = open_dataset(Dataset("generation", str(tmp_path / "data.json"), **options), 24, 0)
    assert [source.where(i)[-1] for i in range(len(source))] == ["2", "3", "4", "5", "6", "8"]
    assert source[0]["captions"] == ["c"] and source.image(0).size == (96, 96)
    for i, cause in ((3, "missing field"), (4, "wrong type")):
        with pytest.raises(RecordError, match=f'data.json: record {i + 2}: field "aesthetic"') as error:
            source[i]
        assert error.value.cause == cause
    assert any("shorter side >= 64 and aesthetic >= 6.5: kept 6 of 9 records" in m for m in caplog.messages)
    message = refusal(tmp_path / "data.json", score="aesthetic", min_score=1000)
    assert "no record has aesthetic >= 1000; lower min_side or min_score" in message
    assert '2 cannot be read, such as data.json: record 5: field "aesthetic"' in message


def test_parquet_rows_are_the_same_in_any_order(tmp_path):
    """A row group is read up to the row that is asked for at first, whole when more of it is."""
    pyarrow, parquet = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))
    pictures = [bytes([k]) * 2_000_000 for k in range(8)]  # larger than a page
    parquet.write_table(pyarrow.table({"image": pictures}), tmp_path / "x.parquet", row_group_size=4)
    for order in (range(8), reversed(range(8)), (5, 1, 7, 0, 5, 6, 2, 3, 4)):
        reader = Parquet(str(tmp_path))
        for k in order:
            assert reader.open(reader[k]["image"]) == pictures[k]


def header(name, size=b"0", kind=b"0", data=b""):
    """A ustar member whose size field is `size` as it stands."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157], block[148:156] = size.ljust(12, b"\0"), kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data.ljust(-len(data) // 512 * -512, b"\0")


def test_tars_whose_sizes_are_damaged_come_to_an_end(tmp_path):
    for name, content in {
        "negative": header("a.txt", b"-1000"),
        "zero": header("p", b"%o" % 8, b"x", b"0 path=a"),
        "words": header("p", b"%o" % 10, b"x", b"abc path=a"),
        "size": header("p", b"%o" % 11, b"x", b"11 size=-9\n") + header("a.txt"),
    }.items():
        (tmp_path / f"{name}.tar").write_bytes(content + bytes(1024))
    message = refusal(tmp_path)
    for why in (
        "negative.tar: is no tar", "zero.tar: is damaged (a pax record of 0 bytes)", "words.tar: is damaged ('a pax",
        "size.tar: is damaged ('a.txt' has size '-9')",
    ):  # fmt: skip
        assert why in message


def test_shards_that_change_while_they_are_read(tmp_path):
    line = Dataset("generation", str(tars(tmp_path, 6)))
    source = open_dataset(line, 24, 0)
    os.truncate(tmp_path / "0.tar", 100)
    os.remove(tmp_path / "1.tar")
    for i, cause in ((0, "damaged"), (2, "damaged"), (3, "missing file")):
        with pytest.raises(RecordError, match=rf"{i // 3}\.tar") as error:
            source[i]
        assert error.value.cause == cause and source.where(i).startswith(f"{i // 3}.tar: sample {i % 3}")


def test_too_many_open_files_is_no_fault_of_a_record(tmp_path, monkeypatch):
    listed = open_dataset(Dataset("generation", str(json_lines(tmp_path, 3))), 24, 0)
    listed = pickle.loads(pickle.dumps(listed))  # without open files, as in a worker
    shards = open_dataset(Dataset("generation", str(array_record(tmp_path, 4)), "array_record"), 24, 0)
    limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with pytest.raises(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for source, i in ((listed, 0), (shards, 3)):
            with pytest.raises(SourceError, match="ulimit -n"):
                source[i]
        with pytest.raises(SourceError, match="ulimit -n"):
            read_image(tmp_path / "0.jpg")
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert listed[0]["captions"] == [caption(0)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    with pytest.raises(SourceError, match=r"x: 200 shards stay open .* `ulimit -n 264`"):
        allow_open_files(200, "x")
    allow_open_files(192, "x")


def test_fingerprints_see_what_changed(tmp_path):
    def prints(path=tmp_path / "flat", **options):
        source = open_dataset(Dataset("generation", str(path), **options), 24, 0)
        return source.fingerprint, source.pictures_fingerprint

    for name in ("flat", "many"):
        (tmp_path / name).mkdir()
    flat(tmp_path / "flat", 2)
    first = prints()
    (tmp_path / "flat" / "001.txt").write_text(caption(7) + "\n")
    second = prints()
    assert first[0] != second[0] and first[1] == second[1]
    (tmp_path / "flat" / "001.jpg").write_bytes(photo(5) + b"\0")
    assert prints()[1] != second[1]
    # The same number of pictures is left, but others.
    listed = json_lines(tmp_path / "many", 2)
    (tmp_path / "many" / "1.jpg").write_bytes(jpeg("coffee", 40))
    before = prints(listed, min_side=50)
    for k, k2 in ((0, 2), (1, 0), (2, 1)):
        os.rename(tmp_path / "many" / f"{k}.jpg", tmp_path / "many" / f"{k2}.jpg")
    assert set(before).isdisjoint(prints(listed, min_side=50))


def test_fingerprints_of_large_files(tmp_path):
    lines = [json.dumps({"text": "x" * 1000, "n": n}) for n in range(5000)]
    lines[2500:2500] = [json.dumps({"text": "one"})]
    path = tmp_path / "x.jsonl"

    def of(read):
        path.write_text("\n".join(lines))
        return read()

    reads = (
        lambda: open_dataset(Dataset("text", str(path)), 24, 0).fingerprint,
        lambda: Files(str(path), (".jsonl",)).fingerprint(),
    )
    before = [of(read) for read in reads]
    shutil.copy2(path, tmp_path / "copy")
    os.rename(tmp_path / "copy", path)
    assert reads[0]() == before[0] and reads[1]() == before[1]
    lines[2500] = json.dumps({"text": "two"})
    assert [of(read) != b for read, b in zip(reads, before)] == [True, True]


def test_hub_folders_of_other_pictures_are_others(tmp_path):
    pytest.importorskip("datasets")
    found = set()
    for name, order in (("a", [0, 1]), ("b", [0, 1]), ("c", [1, 0])):
        rows = hub_table(2)
        pictures = rows.select(order).select_columns("img")
        rows = rows.remove_columns("img").add_column(
            "img", list(pictures.with_format("arrow")[:]["img"].to_pylist())
        )
        (tmp_path / name).mkdir()
        rows.cast_column("img", pictures.features["img"]).save_to_disk(str(tmp_path / name / "saved"))
        found.add(open_dataset(Dataset("generation", str(tmp_path / name / "saved")), 24, 0).fingerprint)
    assert len(found) == 2
    (tmp_path / "none").mkdir()
    hub_table(2).select([]).save_to_disk(str(tmp_path / "none" / "saved"))
    assert "none/saved" in (message := refusal(tmp_path / "none" / "saved")) and "no rows" in message
    hub_table(2).select([]).to_parquet(str(tmp_path / "none.parquet"))
    assert "none.parquet: holds no rows" in refusal(tmp_path / "none.parquet")


def test_names_that_are_no_utf8(tmp_path):
    stem = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    for suffix, content in ((b".jpg", photo(0)), (b".txt", b"a caf\xc3\xa9")):
        with open(stem + suffix, "wb") as file:
            file.write(content)
    with open(stem[:-1] + b"\xe8.jpg", "wb") as file:
        file.write(b"rotten")
    with open(stem[:-1] + b"\xe8.txt", "wb") as file:
        file.write(b"\xff")
    source = open_dataset(Dataset("generation", str(tmp_path)), 24, 0)
    assert source[1]["captions"] == ["a café"] and source.image(1).size == (96, 64)
    assert source.where(1) == "caf\\udce9.jpg"
    for read, why in ((source.__getitem__, "not UTF-8"), (source.image, "damaged")):
        with pytest.raises((RecordError, ImageError)) as error:
            read(0)
        assert "caf\\udce8" in str(error.value).encode().decode() or why == "damaged"
    (tmp_path / "a.jsonl").write_text('{"image": "x.jpg", "\\ud800": 1}')
    with pytest.raises(RecordError, match="no caption") as error:
        open_dataset(Dataset("generation", str(tmp_path / "a.jsonl")), 24, 0)[0]
    assert "\\ud800" in str(error.value) and str(error.value).isascii()


def test_folders_behind_links(tmp_path):
    (tmp_path / "real" / "in").mkdir(parents=True)
    (tmp_path / "real" / "in" / "a.jpg").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real = os.path.realpath(tmp_path / "real" / "in" / "a.jpg")
    for name in ("in/a.jpg", real, str(tmp_path / "link" / "in" / "a.jpg")):
        assert inside(str(tmp_path / "link"), name) == real
    for name in (str(tmp_path / "b.jpg"), "in/../in/a.jpg", "a\0.jpg", "\ud800"):
        with pytest.raises(RecordError) as error:
            inside(str(tmp_path / "link"), name)
        assert error.value.cause == "outside the folder"


def test_what_cannot_be_opened_is_refused(tmp_path, monkeypatch):
    (tmp_path / "names.json").write_text('{"0": [1, 2]}')
    with pytest.raises(SourceError, match="holds no names of classes"):
        Names(str(tmp_path / "names.json"))
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "pipe.jsonl: is no regular file" in refusal(tmp_path / "pipe.jsonl")

    def denied(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", denied)
    assert "Permission denied; give a folder that can be read" in refusal(tmp_path)
