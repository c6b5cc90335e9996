"""Folders of pictures as people have them: metadata beside them, splits, links, and other files."""

import json

import pytest
from support.formats import caption, photo, refusal, write_classes

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset


def write_split(folder, n=2):
    folder.mkdir(parents=True)
    lines = [json.dumps({"file_name": f"{k}.jpg", "text": caption(k)}) for k in range(n)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    for k in range(n):
        (folder / f"{k}.jpg").write_bytes(photo(k))


def test_splits_are_no_classes_and_metadata_beside_pictures_is_read(tmp_path):
    """The caption of every picture was "train" or "test", and those of test were trained on."""
    write_split(tmp_path / "d" / "train")
    write_split(tmp_path / "d" / "test")
    message = refusal(tmp_path / "d")
    assert "its folders test, train are splits, not classes" in message
    assert f"give path={tmp_path}/d/train" in message
    source = open_dataset(Dataset("generation", str(tmp_path / "d" / "train")), 24, 0)
    assert [source[i]["captions"] for i in (0, 1)] == [[caption(0)], [caption(1)]]
    both = f"{tmp_path}/d/train,{tmp_path}/d/test"
    assert len(open_dataset(Dataset("generation", both), 24, 0)) == 4
    for name in ("cat", "dog"):  # metadata of each class says more than its name
        write_split(tmp_path / "classes" / name)
    assert "its folder 'cat' has metadata.jsonl" in refusal(tmp_path / "classes")
    (tmp_path / "d" / "metadata.csv").write_text("file_name,text\ntrain/0.jpg,x\n")
    assert "metadata.csv describes the splits test, train at once" in refusal(tmp_path / "d")
    (tmp_path / "d" / "train" / "metadata.csv").write_text("file_name,text\n0.jpg,x\n")
    assert "metadata.jsonl and metadata.csv, one of which" in refusal(tmp_path / "d" / "train")


@pytest.mark.parametrize(
    "folders, refused",
    [
        (("train2017", "val2017"), True),
        (("train_images", "test_images"), True),
        (("training",), True),
        (("images",), True),
        (("train", "bus"), False),  # the vehicle
        (("test_tube", "train_station"), False),
    ],
)
def test_which_folders_are_classes(tmp_path, folders, refused):
    for name in folders:
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "a.jpg").write_bytes(photo(0))
    if not refused:
        source = open_dataset(Dataset("generation", str(tmp_path / "d")), 24, 0)
        assert {source[i]["captions"][0].replace(" ", "_") for i in range(len(source))} == set(
            folders
        )
        return
    assert f"give path={tmp_path}/d/{folders[0]}" in refusal(tmp_path / "d")
    (tmp_path / "names.json").write_text(json.dumps({name: f"a {name}" for name in folders}))
    named = Dataset("generation", str(tmp_path / "d"), names=str(tmp_path / "names.json"))
    assert open_dataset(named, 24, 0)[0]["captions"] == [f"a {min(folders)}"]


def test_files_of_two_splits_are_not_trained_on_together(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    for path in (tmp_path, tmp_path / "*.jsonl"):
        message = refusal(path, "text")
        assert "holds the splits test and train (test: test-00000-of-00001.jsonl" in message
        assert f"path={tmp_path}/train*" in message
    assert len(open_dataset(Dataset("text", f"{tmp_path}/train*"), 24, 0)) == 2
    meant = f"{tmp_path}/train*.jsonl,{tmp_path}/test-00000-of-00001.jsonl"
    assert len(open_dataset(Dataset("text", meant), 24, 0)) == 3
    for name in ("train_station", "test_tube", "bus"):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{name}.txt").write_text(name)
    assert len(open_dataset(Dataset("text", str(tmp_path / "texts")), 24, 0)) == 3
    for name in ("mine_train", "mine_test", "more"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{name}.csv").write_text("text\nx\n")
    assert f"path={tmp_path}/mine/mine_train.csv" in refusal(tmp_path / "mine", "text")
    (tmp_path / "p").mkdir()
    for name in ("train_1", "val_1"):
        (tmp_path / "p" / f"{name}.jpg").write_bytes(photo(0))
        (tmp_path / "p" / f"{name}.txt").write_text("x")
    assert "its pictures are of the splits train, validation by their names" in refusal(
        tmp_path / "p"
    )


def test_pictures_whose_names_do_not_tell_it_are_read_and_what_is_left_out_is_said(
    tmp_path, caplog
):
    for name in ("a.jfif", "b.JPE", "c", "d.heic", "e.jpg", "f.webp"):
        heic = b"\0\0\0\x18ftypheic" + bytes(40)
        (tmp_path / name).write_bytes(heic if name == "d.heic" else photo(0))
        (tmp_path / name[0]).with_suffix(".txt").write_text(f"caption {name[0]}")
    (tmp_path / "e.txt").rename(tmp_path / "e.caption")
    (tmp_path / "b.txt").rename(tmp_path / "b.TXT")
    (tmp_path / "f.json").write_text('{"width": 96}')  # says nothing of what .txt says
    (tmp_path / "more" / "deep").mkdir(parents=True)
    source = open_dataset(Dataset("generation", str(tmp_path)), 24, 0)
    said = [source[i]["captions"][0] for i in range(len(source))]
    assert said == [f"caption {name}" for name in "abcef"] and source.image(2).width == 96
    (told,) = [m for m in caplog.messages if "not read" in m]
    assert "1 .heic (d.heic: unsupported type HEIC;" in told and "1 .txt (d.txt)" in told
    assert "1 folders (more/)" in told and "README" not in told
    for name in "abcef":  # names that tell nothing at all
        (tmp_path / name).with_suffix(".jpg").unlink(missing_ok=True)
    (tmp_path / "a.jfif").rename(tmp_path / "a")
    (tmp_path / "b.JPE").unlink()
    (tmp_path / "f.webp").unlink()
    again = open_dataset(Dataset("generation", str(tmp_path)), 24, 0)
    assert [again[i]["captions"] for i in range(2)] == [["caption a"], ["caption c"]]


def test_links_that_the_owner_made_are_followed(tmp_path):
    write_classes(tmp_path / "elsewhere")
    (tmp_path / "photo.jpg").write_bytes(photo(1))
    (tmp_path / "words.txt").write_text("a linked caption")
    (tmp_path / "classes").mkdir()
    for name in ("n01", "n02"):
        (tmp_path / "classes" / name).symlink_to(tmp_path / "elsewhere" / name)
    classes = open_dataset(Dataset("generation", str(tmp_path / "classes")), 24, 0)
    assert [classes.image(i).width for i in range(4)] == [96] * 4
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.jpg").symlink_to(tmp_path / "photo.jpg")
    (tmp_path / "flat" / "a.txt").symlink_to(tmp_path / "words.txt")
    (tmp_path / "flat" / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "flat" / "b.txt").write_text("b")
    flat = open_dataset(Dataset("generation", str(tmp_path / "flat")), 24, 0)
    assert flat[0]["captions"] == ["a linked caption"] and flat.image(0).size == (96, 96)
    with pytest.raises(ValueError, match="is a link to a file that is not there"):
        flat.image(1)
    lines = tmp_path / "set" / "inner"
    lines.mkdir(parents=True)
    (lines / "a.jsonl").write_text(
        '{"image": "../x.jpg", "caption": "out"}\n{"image": "l.jpg", "caption": "in"}'
    )
    (lines / "l.jpg").symlink_to(tmp_path / "photo.jpg")
    (lines / "round").symlink_to(tmp_path / "set")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "set").symlink_to(lines)
    assert "its folder 'set' has a.jsonl, which says more" in refusal(tmp_path / "linked")
    listed = open_dataset(Dataset("generation", str(tmp_path / "linked"), "json"), 24, 0)
    assert len(listed) == 2
    named = open_dataset(Dataset("generation", str(lines / "a.jsonl")), 24, 0)
    assert named.image(1).size == (96, 96)
    with pytest.raises(ValueError, match="leaves the folder of the pictures"):
        named.image(0)


@pytest.mark.parametrize("field", ["split", "subset", "partition"])
def test_records_whose_field_says_two_splits_are_not_trained_on_together(tmp_path, field):
    """Karpathy's files, and nlphuji/flickr30k: all splits in one file, and a field that tells them."""
    rows = [{"image": "0.jpg", "caption": f"{k}", field: "train"} for k in range(30)]
    path = tmp_path / "a.jsonl"
    write = lambda: path.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "0.jpg").write_bytes(photo(0))
    write()
    assert len(open_dataset(Dataset("generation", str(path)), 24, 0)) == 30
    rows[25][field] = "test"
    write()
    assert (
        f'by their field "{field}" its records are of test and train, and what is tested'
        in refusal(path)
    )
    rows[25][field] = "restval"  # of train
    del rows[26][field]
    write()
    assert len(open_dataset(Dataset("generation", str(path)), 24, 0)) == 30


def test_what_systems_and_editors_leave_in_folders_is_neither_class_nor_picture(tmp_path, caplog):
    for name in ("cat/a.jpg", "dog/b.jpg", "cat/a.jpg~", "dog/c.jpg.part", "__MACOSX/cat/._a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photo(0))
    for name in ("Thumbs.db", "cat/desktop.ini", "dog/.DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    source = open_dataset(Dataset("generation", str(tmp_path)), 24, 0)
    assert [source[i]["captions"] for i in range(len(source))] == [["cat"], ["dog"]]
    assert [m.partition(": ")[2] for m in caplog.messages] == [
        "not read: 1 .jpg~ (cat/a.jpg~), 1 .part (dog/c.jpg.part)"
    ]


def test_numbers_of_folders_do_not_come_into_captions_without_a_word(tmp_path, caplog):
    """kohya's folders say how often a picture is to be seen: 10_ohwx dog."""
    (tmp_path / "10_ohwx dog").mkdir()
    (tmp_path / "10_ohwx dog" / "a.jpg").write_bytes(photo(0))
    open_dataset(Dataset("generation", str(tmp_path)), 24, 0)
    assert any(
        "folders are numbered, and so are the captions: '10 ohwx dog'" in m for m in caplog.messages
    )
    caplog.clear()
    (tmp_path / "10_ohwx dog" / "a.txt").write_text("ohwx dog, sitting")
    open_dataset(Dataset("generation", str(tmp_path)), 24, 0)
    assert not caplog.messages


def test_captions_beside_pictures_by_their_whole_names_are_seen(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(photo(0))
        (tmp_path / f"{name}.txt").write_text("a cat")
    assert "beside any of 2 pictures; call a.jpg.txt a.txt, and so on" in refusal(tmp_path)
