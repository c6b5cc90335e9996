import base64
import random

import pandas
import pytest
from PIL import Image
from support import questions
from support.pictures import encoded, noise

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.image_parts import open_picture
from janus_jax.eval.question_files import Only, question_rows, require_sound

COLUMNS = {"index": ("index",), "question": ("question", "text"), "answer": ("answer",)}


def rows(count: int = 4) -> list[dict]:
    return [
        {"index": str(n), "image": questions.text(n), "question": f"what is {n}?", "answer": "A"}
        for n in range(count)
    ]


def read(path, images="", say=print, **options):
    found, problems = question_rows(str(path), str(images), COLUMNS, say, **options)
    require_sound(str(path), problems)
    return found


def refused(path, images="", **options) -> str:
    with pytest.raises(UsageError) as caught:
        read(path, images, **options)
    return str(caught.value)


def test_a_field_longer_than_the_csv_modules_limit_is_read(tmp_path):
    large = encoded(noise(256, 256))
    made = rows(2)
    made[0]["image"] = base64.b64encode(large).decode()
    assert len(made[0]["image"]) > 131_072
    found = read(questions.tsv(tmp_path / "a.tsv", made))
    assert found[0].pictures[0].read() == large


def test_what_pandas_writes_is_read_as_pandas_reads_it(tmp_path):
    pieces = ['"', "\t", "\n", "\r\n", "a", "'", " ", "é", "\\", '""', ",", "None", "[", "NA"]
    rng = random.Random(0)
    table = pandas.DataFrame(
        {
            "index": range(200), "image": [questions.text(n) for n in range(200)],
            "question": ["q" + "".join(rng.choices(pieces, k=6)) for _ in range(200)],
            "answer": ["".join(rng.choices(pieces, k=2)) for _ in range(200)],
        }
    )  # fmt: skip
    path = tmp_path / "a.tsv"
    table.to_csv(path, sep="\t", index=False)
    again = pandas.read_csv(path, sep="\t", keep_default_na=False)
    found = read(path)
    for name in ("question", "answer"):
        assert [row.fields[name] for row in found] == list(again[name])
    assert [row.pictures[0].read() for row in found] == [questions.picture(n) for n in range(200)]


def test_lines_within_quotes_do_not_shift_the_pictures(tmp_path):
    made = rows(4)
    made[1]["question"] = 'is this\n"quoted"\r\nand\ttabbed? ü'
    found = read(questions.tsv(tmp_path / "a.tsv", made))
    assert found[1].fields["question"] == made[1]["question"]
    assert [row.pictures[0].read() for row in found] == [questions.picture(n) for n in range(4)]


def test_the_mark_at_the_begin_of_a_file_is_no_part_of_a_name(tmp_path):
    path = questions.tsv(tmp_path / "a.tsv", rows())
    marked = tmp_path / "b.tsv"
    marked.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.tsv").read_bytes())
    assert [row.fields for row in read(marked)] == [row.fields for row in read(path)]
    assert read(marked)[3].pictures[0].read() == questions.picture(3)


def test_a_short_image_is_the_index_of_the_row_that_has_it(tmp_path):
    made = rows(4)
    made[0]["image"] = "3"
    made[2]["image"] = "1"
    found = read(questions.tsv(tmp_path / "a.tsv", made))
    assert [row.pictures[0].read() for row in found] == [questions.picture(n) for n in (3, 1, 1, 3)]


def test_a_stored_picture_is_one_that_a_chat_takes(tmp_path):
    part = [row | {"image": questions.struct(n)} for n, row in enumerate(rows())]
    for path in (
        questions.tsv(tmp_path / "a.tsv", rows()), questions.parquet(tmp_path / "a.parquet", part),
    ):  # fmt: skip
        opened = open_picture(read(path)[2].pictures[0], "message 0")
        assert isinstance(opened, Image.Image) and opened.getpixel((0, 0)) == (2, 2, 2)


def test_one_line_is_one_record(tmp_path):
    path = questions.lines(tmp_path / "a.json", [{"index": 7, "question": "q", "answer": "A"}])
    folder = questions.folder(tmp_path / "pictures", ["7.png"])
    found = read(path, folder, names=lambda fields: [f"{fields['index']}.png"])
    assert [(row.where, row.fields["index"]) for row in found] == [("a.json: record 1", "7")]


def test_image_paths_are_looked_for_in_the_folder(tmp_path):
    made = [
        {"index": "0", "image_path": "a/0.png", "question": "q", "answer": "A"},
        {"index": "1", "image_path": "['a/0.png', 'b/1.png']", "question": "q", "answer": "A"},
    ]
    path = questions.tsv(tmp_path / "a.tsv", made)
    folder = questions.folder(tmp_path / "pictures", ["a/0.png", "b/1.png"])
    assert [len(row.pictures) for row in read(path, folder)] == [1, 2]
    (tmp_path / "pictures" / "b" / "1.png").unlink()
    assert "row 2: picture" in refused(path, folder)


def test_parquet_with_lists_and_several_columns_of_pictures_is_read(tmp_path):
    several = [
        {"index": "0", "question": "q", "answer": "A", "image_1": questions.struct(1), "image_2": questions.struct(2)},
        {"index": "1", "question": "q", "answer": "A", "image_1": questions.struct(3), "image_2": None},
    ]  # fmt: skip
    found = read(questions.parquet(tmp_path / "a.parquet", several))
    assert [[p.read() for p in row.pictures] for row in found] == [
        [questions.picture(1), questions.picture(2)], [questions.picture(3)],
    ]  # fmt: skip
    listed = [row | {"image": [questions.struct(4), questions.struct(5)]} for row in rows(1)]
    found = read(questions.parquet(tmp_path / "b.parquet", listed))
    assert [p.read() for p in found[0].pictures] == [questions.picture(4), questions.picture(5)]


def test_what_is_wrong_with_rows_is_told_at_once(tmp_path):
    made = rows(10)
    made[1]["image"] = ""
    made[2]["image"] = questions.text(2)[:-7] + "&&&&&&&"
    made[3]["index"] = "0"
    made[4]["question"] = ""
    made[5]["image"] = "77"
    made[6]["image"] = "QUJD" * 30
    made[7]["image"] = "['" + questions.text(1)
    made[8]["image"] = questions.text(8)[:40] + "&&&&" + questions.text(8)[40:]
    said = refused(questions.tsv(tmp_path / "a.tsv", made))
    for row, why in (
        (2, "has no picture"), (3, "is not base64"), (4, "index 0 is also that of a.tsv: row 1"),
        (5, "question or text is empty"), (6, "no row with a picture has this index"),
        (7, "is no picture that can be read"), (8, "is no list of strings"), (9, "is not base64"),
    ):  # fmt: skip
        assert any(f"row {row}:" in line and why in line for line in said.splitlines()), (row, said)
    assert "row 10" not in said and "get the file again" in said
    assert len(said) < 3000


def test_a_file_without_a_column_names_those_that_it_has(tmp_path):
    made = [{k: v for k, v in row.items() if k not in ("question", "answer")} for row in rows()]
    said = refused(questions.tsv(tmp_path / "a.tsv", made))
    assert "no column question or text; no column answer" in said
    assert "index" in said


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.tsv", b"", "holds no rows"),
        ("a.tsv", b"index\tquestion\n1\t\xff\xfe\n", "cannot be read as TSV"),
        ("a.tsv", b"index\tquestion\tanswer\n1\tq\tA\tmore\n", "4 cells, the head has 3"),
        ("a.csv", b"index,question\n", "the suffix is none of"),
        ("a.json", b"[1, 2", "cannot be read as JSON"),
        ("a.json", b"[1, 2]", "record 1: is 1, needs an object"),
        ("a.json", b'{"error": "not found"}', "no column question or text"),
        (
            "a.jsonl",
            b'{"index": 1, "question": "q", "answer": "A"}\n{"index"\n',
            "line 2: not JSON",
        ),
        (
            "a.jsonl",
            b'{"index": 1, "question": "q", "answer": "A"}\n{"index": "\xff"}\n',
            "line 2: not JSON",
        ),
        ("a.parquet", b"PAR1 no", "cannot be read as parquet"),
    ],
)
def test_files_that_are_not_what_they_are_called_are_refused(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    assert why in refused(tmp_path / name)


def test_a_misspelt_path_names_the_nearest(tmp_path):
    questions.tsv(tmp_path / "MME.tsv", rows())
    assert "did you mean 'MME.tsv'" in refused(tmp_path / "MMEE.tsv")
    questions.tsv(tmp_path / "POPE.tsv", rows())
    assert "holds MME.tsv, POPE.tsv; name one of them" in refused(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "a folder without" in refused(tmp_path / "empty")


def test_rows_of_another_part_are_left_out_and_counted(tmp_path):
    path = questions.tsv(tmp_path / "a.tsv", rows())
    said = []
    only = Only(lambda fields: fields["index"] == "2", "of the second kind")
    assert len(read(path, say=said.append, only=only)) == 1
    assert "3 of 4 rows left out: not of the second kind" in said[0]
    assert "none of its 4 rows" in refused(path, only=Only(lambda fields: False, "of any kind"))
