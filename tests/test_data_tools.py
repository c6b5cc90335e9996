"""`data.check` names what is wrong with data sets; `data.convert` writes them as shards, whole or not at all."""

import io
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time
import types

import msgpack
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image
from skimage import data as photographs

from janus_jax.data import catalog, check, command, convert, duplicates, forecast, shards, survey, workers
from janus_jax.data.pipeline import Rows
from janus_jax.data.sources import Dataset, RecordError, SourceError

ROOT = pathlib.Path(__file__).parent.parent
OPTIONS = types.SimpleNamespace(tokenizer="", records=0, threads=2, out="")
# What every line of the planted file after the good ones is to be called; None where it can be used.
PLANTED = (
    ("truncated.jpg", "damaged"), ("zero.jpg", "empty file"), ("page.jpg", "web page"), ("gone.jpg", "missing file"),
    ("copy.jpg", None), ("smaller.jpg", None), ("cmyk.jpg", None), ("line.png", None),
)  # fmt: skip


@pytest.fixture(scope="module")
def photos():
    """Name -> RGB photograph."""
    names = ("astronaut", "coffee", "chelsea", "rocket")
    return {name: Image.fromarray(getattr(photographs, name)()) for name in names}


@pytest.fixture(scope="module")
def planted(tmp_path_factory, photos) -> Dataset:
    """A JSON-lines file and a folder with one of each fault."""
    root = tmp_path_factory.mktemp("planted")
    pictures = root / "pictures"
    pictures.mkdir()
    for name, photo in photos.items():
        photo.save(pictures / f"{name}.jpg", quality=92)
    whole = (pictures / "coffee.jpg").read_bytes()
    (pictures / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "zero.jpg").write_bytes(b"")
    (pictures / "page.jpg").write_bytes(b"<!DOCTYPE html><html><body>404</body></html>")
    (pictures / "copy.jpg").write_bytes((pictures / "rocket.jpg").read_bytes())
    photos["astronaut"].resize((200, 200), Image.Resampling.LANCZOS).save(
        pictures / "smaller.jpg", quality=70
    )
    photos["chelsea"].convert("CMYK").save(pictures / "cmyk.jpg", quality=95)
    Image.new("RGB", (1, 5000), (200, 30, 30)).save(pictures / "line.png")
    records = [{"image": f"{name}.jpg", "caption": f"this is {name}"} for name in photos]
    records += [{"image": name, "caption": f"planted as {name}"} for name, _ in PLANTED]
    records += [
        {"image": "rocket.jpg", "caption": " \t"},
        {"image": "../../etc/passwd", "caption": "escape"},
        {"image": "rocket.jpg", "conversations": [
            {"from": "human", "value": "What?"}, {"from": "narrator", "value": "A rocket."},
        ]},
    ]  # fmt: skip
    lines = [json.dumps(record) for record in records] + ['{"image": "rocket.jpg", "caption": "bro']
    (root / "all.jsonl").write_text("\n".join(lines) + "\n")
    return Dataset("understanding", str(root / "all.jsonl"), images=str(pictures))


FAULTS = {
    **{5 + k: cause for k, (_, cause) in enumerate(PLANTED) if cause},
    13: "blank caption", 14: "outside the folder", 15: "unknown role", 16: "not JSON",
}  # fmt: skip


@pytest.fixture
def plain(tmp_path, photos) -> Dataset:
    """A hundred small records without a fault, of 20 kB together."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for k in range(100):
        photos["coffee"].crop((4 * k, 2 * k, 4 * k + 40 + k, 2 * k + 60)).save(pictures / f"{k}.jpg")
    records = [{"image": f"{k}.jpg", "caption": f"crop {k}", "extra": {"number": k}} for k in range(100)]
    (tmp_path / "plain.json").write_text(json.dumps(records))
    return Dataset("generation", str(tmp_path / "plain.json"), images=str(pictures))


def job(line: Dataset, out, count: int = 4, max_side: int = 0) -> shards.Job:
    source = catalog.open_dataset(line, 384, 0)
    return shards.Job(source, line.kind, pathlib.Path(out), "data", count, max_side)


def files(directory) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(pathlib.Path(directory).iterdir())}


def test_check_names_every_fault_and_every_picture_that_is_there_twice(planted, tmp_path):
    told = []
    options = types.SimpleNamespace(**vars(OPTIONS) | {"out": str(tmp_path)})
    found = check.check({"mine": planted}, None, [], options, told.append)
    mine, text = found["datasets"]["mine"], "\n".join(told)
    assert (mine["records"], mine["usable"], *check.unusable(found)) == (16, 8, 8, 0)
    listed = [json.loads(line) for line in (tmp_path / "rotten.jsonl").read_text().splitlines()]
    assert {line["where"]: line["cause"] for line in listed} == {
        f"all.jsonl:{n}": c for n, c in FAULTS.items()
    }
    for name, cause in PLANTED:
        assert cause is None or f"{name}: " in text
    assert mine["duplicates"]["pictures"]["groups"] == [["all.jsonl:4", "all.jsonl:9"]]
    assert mine["duplicates"]["near"]["groups"] == [
        ["all.jsonl:1", "all.jsonl:10"],
        ["all.jsonl:3", "all.jsonl:11"],
    ]
    assert mine["pictures"]["unusual"] == ["all.jsonl:11: JPEG CMYK", "all.jsonl:12: 1x5000"]
    assert mine["pictures"]["height"]["max"] == 5000
    assert json.loads((tmp_path / "report.json").read_text()) == found
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.width > 5 * 384 and sheet.height > 384


def test_check_counts_text_and_repeats_by_record(tmp_path):
    texts = ["to be", "or not", "to be", "that is the question " * 2000]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    found = check.check({"a": Dataset("text", str(tmp_path / "a.jsonl"))}, None, [], OPTIONS, lambda _: None)
    a = found["datasets"]["a"]
    assert a["duplicates"]["records"]["groups"] == [["a.jsonl:1", "a.jsonl:3"]]
    assert a["tokens"]["text"]["max"] == 4096 and a["tokens"]["cut"] == 1 and "pictures" not in a


def test_a_sample_is_drawn_over_the_whole_set():
    assert survey.sample(10, 0).tolist() == survey.sample(10, 10).tolist() == list(range(10))
    drawn = survey.sample(100_000, 500)
    assert len(set(drawn.tolist())) == 500 and (np.diff(drawn) > 0).all()
    assert drawn.min() < 2000 and drawn.max() > 98_000


@pytest.mark.parametrize("change", ["smaller", "larger", "poor"])
def test_a_picture_of_another_size_or_quality_is_alike_and_another_picture_is_not(photos, change):
    def changed(photo):
        scale = {"smaller": 0.4, "larger": 1.7, "poor": 1.0}[change]
        photo = photo.resize([round(side * scale) for side in photo.size], Image.Resampling.LANCZOS)
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=60)
        return Image.open(file).convert("RGB")

    pictures = [
        *photos.values(),
        *map(changed, photos.values()),
        photos["chelsea"].transpose(Image.FLIP_LEFT_RIGHT),
    ]
    groups, crowded = duplicates.near(*zip(*map(duplicates.look, pictures)))
    assert groups == [[i, i + 4] for i in range(4)] and not crowded


def stage(**changes):
    fields = {
        "rows": Rows(count=32, length=1024, pictures=2, images=2), "steps": 100, "batch_size": 60,
        "ratio": types.SimpleNamespace(understanding=1.0, text=1.0, generation=2.0),
    }  # fmt: skip
    return types.SimpleNamespace(**fields | changes)


def looked(kind: str, total: int, text: int, pictures: int = 0, images: int = 0) -> survey.Survey:
    tokens = text + 100 * (pictures + images)
    example = survey.Example(tokens, pictures, images, text, text // 2 + 100 * images, False)
    record = survey.Record(0, [], [], [], [], b"", {"second": example})
    return survey.Survey("", kind, "", total=total, looked=10, good=[record] * 10)


def test_forecast_is_the_mixture_s_shares_of_examples_and_tokens():
    lines = {
        "see": Dataset("understanding", ""), "read": Dataset("text", ""),
        "draw": Dataset("generation", "", weight=3.0), "late": Dataset("generation", "", steps=(60, 100)),
    }  # fmt: skip
    surveys = {
        "see": looked("understanding", 1000, 50, pictures=1), "read": looked("text", 500, 100),
        "draw": looked("generation", 4000, 20, images=1), "late": looked("generation", 4000, 20, images=1),
    }  # fmt: skip
    first, second = forecast.forecast("second", lines, surveys, stage(), 0)
    assert (first["steps"], second["steps"]) == ([0, 60], [60, 100]) and "late" not in first["datasets"]
    for phase in (first, second):
        assert 0.2 < phase["full"] <= 1
        for of in phase["datasets"].values():
            assert of["examples"] == pytest.approx(of["examples_asked"], abs=0.01)
        for share in ("tokens", "text", "predicted"):
            assert sum(of[share] for of in phase["datasets"].values()) == pytest.approx(1)
    see, read, draw = (first["datasets"][name] for name in ("see", "read", "draw"))
    weights = np.array([1 * 150, 1 * 100, 2 * 120])
    assert [see["tokens"], read["tokens"], draw["tokens"]] == pytest.approx(
        list(weights / weights.sum()), abs=0.01
    )
    assert second["datasets"]["draw"]["examples_asked"] == pytest.approx(
        3 * second["datasets"]["late"]["examples_asked"]
    )
    assert read["rows_an_epoch"] == pytest.approx(500 / read["examples_a_step"] * 32)
    assert read["epochs"] == pytest.approx(60 * read["examples_a_step"] / 500)


def test_forecast_says_what_a_stage_lacks():
    with pytest.raises(SourceError, match="understanding"):
        forecast.forecast("second", {"read": Dataset("text", "")}, {"read": looked("text", 9, 9)}, stage(), 0)


def test_shards_hold_the_fields_and_the_files_as_they_are_and_read_back(plain, tmp_path):
    one = job(plain, tmp_path / "out")
    manifest = convert.convert(one, 1, 0.0)
    names = [f"data-{k:05d}-of-00004.array_record" for k in range(4)]
    assert sorted(files(one.out)) == sorted(["convert.json", "rotten.jsonl", *names])
    assert manifest["written"] == 100 and manifest["bad"] == {} and manifest["complete"]
    reader = ArrayRecordReader(str(one.path(1)))
    assert "group_size:1," in reader.writer_options_string()
    fields = msgpack.unpackb(reader.read([0])[0])
    picture = pathlib.Path(plain.images, "25.jpg").read_bytes()
    assert fields == {"image": picture, "caption": "crop 25", "extra": {"number": 25}}
    back = catalog.open_dataset(Dataset("generation", str(one.out)), 384, 0)
    assert [back[i] for i in range(100)] == [one.source[i] for i in range(100)]
    assert np.array_equal(np.asarray(back.image(99)), np.asarray(one.source.image(99)))


@pytest.mark.parametrize("max_side", [0, 64])
def test_documents_and_class_folders_read_back(photos, tmp_path, max_side):
    for name, photo in photos.items():
        (tmp_path / "classes" / name).mkdir(parents=True)
        photo.crop((0, 0, 100, 60)).save(tmp_path / "classes" / name / "a.png")
    records = [
        {"texts": ["before", None, "between", None], "images": [None, "rocket/a.png", None, "coffee/a.png"]},
        {"text": "one <image> only", "image": ["rocket/a.png"]},
        {
            "image": ["rocket/a.png", "coffee/a.png"],
            "question": "<image> or <image>?",
            "answer": "The first.",
        },
    ]
    (tmp_path / "documents.json").write_text(json.dumps(records))
    classes = str(tmp_path / "classes")
    for line, count in (
        (Dataset("understanding", str(tmp_path / "documents.json"), images=classes), [2, 1, 2]),
        (Dataset("generation", classes, prompt=("a photo of {caption}",)), [1] * 4),
    ):
        one = job(line, tmp_path / f"{line.kind}", 1, max_side)
        manifest = convert.convert(one, 1, 0.0)
        assert manifest["written"] == len(count) and manifest["reencoded"] == (sum(count) if max_side else 0)
        back = catalog.open_dataset(Dataset(line.kind, str(one.out), prompt=line.prompt), 384, 0)
        for i, pictures in enumerate(count):
            assert back[i] == one.source[i] and survey.count_pictures(line.kind, back[i]) == pictures
            for k in range(pictures):
                now, before = back.image(i, k), one.source.image(i, k)
                assert now.size == ((64, 38) if max_side else before.size)
                near = before.resize(now.size, Image.Resampling.LANCZOS)
                assert np.abs(np.asarray(now, int) - np.asarray(near, int)).mean() < (3 if max_side else 1e-9)


def test_bad_records_are_left_out_listed_and_judged(planted, tmp_path):
    one = job(planted, tmp_path / "out", 3)
    with pytest.raises(SourceError, match=r"8 of 16 records .* --max_bad=0.1(?s:.*)zero\.jpg: is empty"):
        convert.convert(one, 1, 0.1)
    with pytest.raises(
        SourceError, match="its conversion was stopped; start the same"
    ):  # training does not take it
        catalog.open_dataset(Dataset("understanding", str(one.out)), 384, 0)
    written = [one.path(k).stat().st_mtime_ns for k in range(3)]
    manifest = convert.convert(one, 1, 0.5)
    assert [one.path(k).stat().st_mtime_ns for k in range(3)] == written, "done again"
    assert manifest["written"] == 8 and manifest["bad"]["web page"] == 1
    listed = [json.loads(line) for line in (one.out / "rotten.jsonl").read_text().splitlines()]
    assert {line["where"]: line["cause"] for line in listed} == {
        f"all.jsonl:{n}": c for n, c in FAULTS.items()
    }
    assert len(catalog.open_dataset(Dataset("understanding", str(one.out)), 384, 0)) == 8


def test_a_rotten_set_stops_the_command_after_a_thousand_records(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "JUDGED", 25)
    pathlib.Path(plain.images, "3.jpg").write_bytes(b"")
    one = job(plain, tmp_path / "out")
    with pytest.raises(SourceError, match="1 of 25 records"):
        convert.convert(one, 1, 0.02)
    assert not json.loads((one.out / "convert.json").read_text())["complete"]
    with pytest.raises(SourceError, match="its conversion was stopped"):
        catalog.open_dataset(Dataset("generation", str(one.out)), 384, 0)


def test_larger_pictures_are_made_smaller_when_asked(plain, tmp_path):
    one = job(plain, tmp_path / "out", 1, max_side=100)
    manifest = convert.convert(one, 1, 0.0)
    back = catalog.open_dataset(Dataset("generation", str(one.out)), 384, 0)
    before = [one.source.image(i).size for i in range(100)]
    large = [i for i, size in enumerate(before) if max(size) > 100]
    assert manifest["reencoded"] == len(large) == 39
    assert {max(back.image(i).size) for i in large} == {100}
    assert back.image(99).size == (100, round(60 * 100 / 139))
    assert back.picture_file(0) == pathlib.Path(plain.images, "0.jpg").read_bytes()


def test_another_source_and_a_strange_directory_are_refused(plain, tmp_path):
    one = job(plain, tmp_path / "out")
    convert.convert(one, 1, 0.0)
    with pytest.raises(SourceError, match=r"max_side was 0, is 64"):
        convert.convert(job(plain, one.out, max_side=64), 1, 0.0)
    path = pathlib.Path(plain.path)
    path.write_text(path.read_text().replace("crop 7", "crop seven"))
    with pytest.raises(SourceError, match=r"source was '\w{16}', is '\w{16}'"):
        convert.convert(job(plain, one.out), 1, 0.0)
    with pytest.raises(SourceError, match=r"holds out and more, but no convert.json"):
        convert.convert(job(plain, tmp_path), 1, 0.0)
    with convert._claimed(one), pytest.raises(SourceError, match="another convert writes there"):
        convert.convert(one, 1, 0.0)


def test_a_full_disk_leaves_no_half_shard_and_the_same_command_goes_on(plain, tmp_path):
    """A limit on the size of files stands for the disk: the same refusal of the same system call."""
    whole = job(plain, tmp_path / "whole", 2)
    convert.convert(whole, 1, 0.0)
    one = job(plain, tmp_path / "out", 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            OSError, match=r"cannot be written \(.*File too large.* GB are free .* complete shards are kept"
        ):
            convert.convert(one, 1, 0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(files(one.out)) == ["convert.json", "rotten.jsonl"]
    convert.convert(one, 1, 0.0)
    assert files(one.out) == files(whole.out)


def run(module: str, *flags: str, **more) -> subprocess.Popen:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", f"janus_jax.data.{module}", *flags], env=environment, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip


def test_convert_killed_at_any_moment_goes_on_to_the_same_bytes(plain, tmp_path):
    whole = job(plain, tmp_path / "whole", 20)
    convert.convert(whole, 1, 0.0)
    out = tmp_path / "out"
    flags = (
        "--kind=generation", f"--path={plain.path}", f"--images={plain.images}", "--processes=2", "--shards=20",
        f"--out={out}",
    )  # fmt: skip
    killed = run("convert", *flags)
    while not list(out.glob("*.array_record")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)  # returns when its workers have left as well: they hold its pipes
    done = len(list(out.glob("*.array_record")))
    assert 0 < done < 20
    again = run("convert", *flags)
    told, errors = again.communicate(timeout=60)
    assert again.returncode == 0 and "100 records in 20 shards" in told, errors
    assert files(out) == files(whole.out)


class Fatal:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_worker_that_is_killed_ends_the_command_with_a_remedy():
    with pytest.raises(OSError, match="fewer --processes"):
        list(workers.run(print, Fatal(), [0, 1], 2, lambda n: None))


def test_progress_tells_the_rate_and_the_time_left_of_what_is_new():
    out, now = io.StringIO(), [0.0]
    progress = workers.Progress("mine", 1000, out=out, clock=lambda: now[0])
    progress.skip(500)
    now[0] = 20.0
    progress(100, ", 3 unusable")
    assert out.getvalue() == "mine: 600 of 1,000 records, 5/s, 1 min left, 3 unusable\n"


def test_check_of_a_config_forecasts_its_stages_and_ends_with_code_3(planted, tmp_path):
    (tmp_path / "mine.py").write_text(f"""
from configs import quickstart

def get_config():
    config = quickstart.get_config()
    config.data = {{"datasets": {{
        "see": {{"kind": "understanding", "path": {planted.path!r}, "images": {planted.images!r}}},
        "read": {{"kind": "text", "path": "shapes:"}},
        "draw": {{"kind": "generation", "path": "shapes:"}},
        "gone": {{"kind": "generation", "path": "nowhere/*.tar"}},
    }}}}
    return config
""")
    done = run("check", f"--config={tmp_path}/mine.py", "--stage=stage2", "--records=40", "--config.seed=3")
    told, errors = done.communicate(timeout=120)
    assert done.returncode == 3, errors
    assert "[blank caption] all.jsonl:13" in told and "nowhere/*.tar: no such file" in told
    assert "stage2, steps 0 to" in told and "stage3, steps" not in told
    assert "unusable records: 8; data sets that cannot be opened: 1" in told


def test_flags_that_contradict_each_other_end_with_code_2():
    def parsed(*given):
        from absl import flags

        values = flags.FlagValues()
        command.define_flags(values)
        values(["test", *given])
        return values

    lines, experiment = command.chosen(parsed("--kind=text", "--path=a.txt", "--prompt=a", "--prompt=b"), {})
    assert lines == {"data": Dataset("text", "a.txt", prompt=("a", "b"))} and experiment is None
    for given, why in (
        (("--kind=text",), "--path"), (("--dataset=a",), "--config"),
        (("--config=configs/stage1.py", "--path=a"), "--path: a config describes"),
    ):  # fmt: skip
        with pytest.raises(command.CommandError, match=why):
            command.chosen(parsed(*given), {})
    done = run("check", "--kind=txt", "--path=a")
    assert done.communicate()[1].startswith("CommandError: flag --kind=txt") and done.returncode == 2


def test_where_nothing_can_be_written_nothing_is_read(plain, tmp_path):
    (tmp_path / "file").write_text("x")
    options = types.SimpleNamespace(**vars(OPTIONS) | {"out": str(tmp_path / "file")})
    for run in (
        lambda: check.check({"mine": plain}, None, [], options, pytest.fail),
        lambda: convert.convert(job(plain, tmp_path / "file"), 1, 0.0),
    ):
        with pytest.raises(
            command.CommandError, match=r"--out=.*file: File exists; name a directory that this user"
        ):
            run()


def test_the_presets_have_no_files_to_convert():
    with pytest.raises(command.CommandError, match="shapes:"):
        convert.opened(Dataset("text", "shapes:"), None)


def test_a_bad_record_keeps_its_cause():
    class Source:
        def where(self, i):
            return f"a.json:{i}"

    line = survey.bad(RecordError("blank text", "is blank"), Source(), np.int64(3))
    assert json.dumps(line) and line["cause"] == "blank text"
    assert survey.bad(ValueError("odd"), Source(), 3)["cause"] == "cannot be encoded"
