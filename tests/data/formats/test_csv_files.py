"""Tables with a header: what cells may hold, and files that are no such tables."""

import pytest
from support.formats import photo, refusal, refused

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.image_files import ImageError
from janus_jax.data.sources import SourceError


@pytest.fixture
def table(tmp_path):
    """Text -> the source over a table of it, beside the picture a.jpg."""
    (tmp_path / "a.jpg").write_bytes(photo(0))

    def make(text, name="data.csv", **options):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return open_dataset(Dataset("generation", str(tmp_path / name), **options), 24, 0)

    return make


def test_cells_in_quotes_hold_delimiters_quotes_and_lines(table):
    source = table(
        'image,caption,more\na.jpg,"A ""big"", red\r\ncat",\n,,\na.jpg,plain,x\na.jpg,a,b,c\n'
    )
    assert source[0] == {"captions": ['A "big", red\r\ncat']} and source.image(0).width == 96
    assert source[1]["captions"] == ["plain"]
    assert "more" not in source.raw(0) and source.raw(1)["more"] == "x"  # an empty cell is none
    assert [source.where(i) for i in range(3)] == ["data.csv:2", "data.csv:5", "data.csv:6"]
    error = refused(lambda: source[2])
    assert (
        error.cause == "cells"
        and "data.csv:6: has 4 cells, the header 3 (image, caption, more)" in str(error)
    )


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_delimiters_are_told_by_the_header(table, sign):
    source = table(f"\ufeffimage{sign}caption{sign}\na.jpg{sign}one, two{sign}\n")
    assert source[0]["captions"] == ["one, two"]
    excel = table("sep=;\nimage;caption\na.jpg;one, two\n", "excel.csv")
    assert excel[0]["captions"] == ["one, two"] and excel.where(0) == "excel.csv:3"


def test_quotes_of_a_table_with_tabs_may_be_part_of_its_texts(table, caplog):
    source = table('caption\timage\n"Stop" said he\ta.jpg\n"more\ta.jpg\n', "raw.tsv")
    assert [source[i]["captions"][0] for i in (0, 1)] == ['"Stop" said he', '"more']
    assert any("raw.tsv: its quotes are part of the texts" in m for m in caplog.messages)
    assert table('caption\timage\n"a ""b"""\ta.jpg\n', "kept.tsv")[0]["captions"] == ['a "b"']


def test_a_score_is_a_number_and_a_caption_of_digits_a_text(table):
    rows = "image,caption,score\na.jpg,1984,0.5\na.jpg,1985,7\n"
    source = table(rows, score="score", min_score=1.0)
    assert len(source) == 1 and source[0]["captions"] == ["1985"]


def test_files_that_are_no_tables_are_refused_with_their_line(table, tmp_path):
    for text, why in (
        ('image,caption\na.jpg,"open\nb.jpg,x\n', "line 2: unexpected end of data"),
        ("a.jpg,A cat\n", "its first row is no header (a.jpg, A cat)"),
        ("image,image\na.jpg,x\n", "its header names image twice"),
        ("image,caption\n", "has no row below its header"),
        (b"image,l\xe9gende\na.jpg,x\n", "its header is not UTF-8; convert it"),
        ("image,caption\n".encode("utf-16"), "is UTF-16"),
        (
            "image,caption\ra.jpg,A cat\r",
            "line 1: a carriage return stands alone, outside quotes; where all rows end so",
        ),
        ("image,caption\na.jpg,A\rcat\n", "line 2: a carriage return stands alone"),
    ):
        with pytest.raises(ValueError, match=r"data\.csv"):
            table(text)
        assert why in refusal(tmp_path / "data.csv")
    source = table(b"image,caption\na.jpg,caf\xe9\n")
    assert refused(lambda: source[0]).cause == "not UTF-8"


def test_rows_whose_picture_stands_in_a_field_of_another_name_say_which_there_are(table):
    """Not "0 pictures: a record of generation needs one": Kaggle's tables, Flickr30k's."""
    error = refused(lambda: table("Filename,Caption\na.jpg,x\n")[0])
    assert (
        'no picture in "image", "images", "file_name" (fields: Filename, Caption); name its'
        in str(error)
    )
    named = table("Filename,Caption\na.jpg,x\n", picture="Filename", caption="Caption")
    assert named[0]["captions"] == ["x"] and named.image(0).width == 96


def test_flickrs_lists_have_no_header_and_are_refused(table, tmp_path):
    (tmp_path / "a.token").write_text("a.jpg#0\tA cat.\na.jpg#1\tOne cat.\n")
    assert "names its fields with format=csv" in refusal(tmp_path / "a.token")
    with pytest.raises(SourceError, match=r"its first row is no header \(a\.jpg#0, A cat\.\)"):
        table("a.jpg#0\tA cat.\na.jpg#1\tOne cat.\n", "a.tsv")


def test_a_path_as_windows_writes_it_is_told_by_its_backslash(table):
    source = table("image,caption\nsub\\a.jpg,x\n")
    error = refused(lambda: source.image(0), ImageError)
    assert "between folders stands /, not a backslash" in str(error)


def test_a_lone_quote_of_a_table_with_tabs_takes_in_no_rows_and_a_return_is_part_of_its_cell(table):
    """The rows up to the next quote were one record, and a return ended the command with a trace."""
    source = table('image\tcaption\na.jpg\t"he\na.jpg\tsaid"\na.jpg\tmore\n', "quotes.tsv")
    assert [source[i]["captions"][0] for i in range(len(source))] == ['"he', 'said"', "more"]
    kept = table('image\tcaption\na.jpg\t"two\nlines"\n', "lines.tsv")
    assert kept[0]["captions"] == ["two\nlines"]
    source = table('image\tcaption\na.jpg\t"Cat" here\rthere\n', "returns.tsv")
    assert source[0]["captions"] == ['"Cat" here\rthere']
