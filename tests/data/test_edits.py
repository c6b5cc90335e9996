"""Records of edits: the names that people have, what they become, and what is said of those that lack
a part."""

import io
import json

import pytest
from PIL import Image

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.sources import RecordError, SourceError
from janus_jax.model.config import to_dict

ONE, TWO = "a/1.png", "a/2.png"
WIDTHS = {ONE: 4, TWO: 8}
MADE = {"captions": ["make it red"], "source_ids": 0.5, "edit_dropout": (0.05, 0.05, 0.05)}
GIVEN = [  # (record, fields of its line, its pictures, the one to draw last)
    ({"images": [ONE, ONE], "prompt": "make it red", "target": TWO}, {}, [ONE, ONE, TWO]),
    ({"image": ONE, "instruction": "make it red", "target": [TWO]}, {}, [ONE, TWO]),
    ({"input_image": ONE, "edit_prompt": "make it red", "edited_image": TWO}, {}, [ONE, TWO]),
    (
        {"original_image": ONE, "original_prompt": "a cat", "edit_prompt": "make it red",
         "edited_image": TWO, "edited_prompt": "a red cat"}, {}, [ONE, TWO],
    ),
    ({"source_img": ONE, "instruction": "make it red", "target_img": TWO}, {}, [ONE, TWO]),
    (
        {"input_image": json.dumps([ONE, TWO]), "input_prompt": "make it red", "output_image": ONE},
        {}, [ONE, TWO, ONE],
    ),
    ({"source": ONE, "instruction": "make it red", "target": TWO}, {}, [ONE, TWO]),
    (
        {"before": {"file": ONE}, "what": "make it red", "after": [TWO, ONE]},
        {"picture": "before.file", "caption": "what", "target": "after.0"}, [ONE, TWO],
    ),
    (
        {"file_name": ONE, "edit": "it red", "edited_image": TWO},
        {"prompt": ("make {caption}",)}, [ONE, TWO],
    ),
    (
        {"image": ONE, "colour": "red", "caption": "a cat", "after": TWO},
        {"prompt": ("make it {colour}",), "target": "after"}, [ONE, TWO],
    ),
]  # fmt: skip


@pytest.mark.parametrize("record, line, pictures", GIVEN)
def test_an_edit_by_the_names_that_people_have(source, record, line, pictures):
    opened = source("generation", [record], **line)
    assert opened[0] == MADE | {"sources": len(pictures) - 1}
    shown = [opened.image(0, k).width for k in range(len(pictures))]
    assert shown == [WIDTHS[name] for name in pictures]
    with pytest.raises(RecordError, match="number"):
        opened.image(0, len(pictures))


@pytest.mark.parametrize(
    "record, line",
    [
        ({"image": ONE, "caption": "make it red", "target": "train"}, {}),
        ({"original_image": ONE, "image": TWO, "caption": "make it red"}, {}),
        (
            {"original_image": ONE, "edited_image": TWO, "edited_prompt": "make it red"},
            {"picture": "edited_image", "caption": "edited_prompt"},
        ),
    ],
)
def test_a_picture_with_its_caption_is_no_edit(source, record, line):
    assert source("generation", [record], **line)[0] == {"captions": ["make it red"]}


@pytest.mark.parametrize(
    "record, line, cause, told",
    [
        (
            {"input_image": ONE, "edit_prompt": "x"}, {}, "no target",
            r'the picture that comes out: none in "edited_image", .* \(fields: input_image, '
            r"edit_prompt\); name its field as target",
        ),
        ({"images": [ONE], "prompt": "x", "target": None}, {}, "no target", "none in"),
        ({"image": ONE, "prompt": "x"}, {"target": "after"}, "no target", 'none in "after"'),
        ({"prompt": "x", "target": TWO, "images": []}, {}, "no picture", "to begin from: none in"),
        ({"images": [ONE, ""], "prompt": "x", "target": TWO}, {}, "no picture", "2 pictures is emp"),
        ({"input_image": ONE, "edited_image": TWO}, {}, "no instruction", "none in instruction, ed"),
        (
            {"input_image": ONE, "edit": " ", "edited_image": TWO}, {}, "blank caption",
            "\"edit\" is empty or blank: ' '",
        ),
        (
            {"image": ONE, "prompt": "x", "target": [ONE, TWO]}, {}, "several targets",
            "has 2 pictures, an edit draws one; name it, as in target=target.0",
        ),
        ({"image": ONE, "prompt": "x", "target": 7}, {}, "wrong type", "needs a path or a file"),
        ({"image": ONE, "prompt": "x", "target": "http://a/b"}, {}, "web address", "is a URL"),
    ],
)  # fmt: skip
def test_an_edit_that_lacks_a_part_is_refused_by_name(source, record, line, cause, told):
    opened = source("generation", [record, GIVEN[0][0] | {"after": TWO}], **line)
    with pytest.raises(RecordError, match=told) as error:
        opened[0]
    assert error.value.cause == cause and str(error.value).startswith("data.json")


def test_a_target_is_of_edits_alone(source):
    with pytest.raises(SourceError, match="target is 'after': edits alone have one, of kind gen"):
        source("understanding", [{"image": ONE, "caption": "x"}], target="after")


def test_how_a_line_writes_edits_is_part_of_what_its_records_hold(source):
    records = [record for record, line, _ in GIVEN if not line]
    plain = source("generation", records)
    assert plain.fingerprint == source("generation", records, source_ids=0.5).fingerprint
    for change in ({"source_ids": 0.0}, {"edit_dropout": (0.1, 0.0, 0.0)}):
        changed = source("generation", records, **change)
        assert changed.fingerprint != plain.fingerprint
        assert changed.pictures_fingerprint == plain.pictures_fingerprint


def test_pictures_beside_and_in_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    def file(width):
        out = io.BytesIO()
        Image.new("RGB", (width, 5)).save(out, "PNG")
        return {"bytes": out.getvalue(), "path": None}

    rows = [{"original_image": file(4), "edit_prompt": "make it red", "edited_image": file(8)}] * 2
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    opened = open_dataset(Dataset("generation", str(tmp_path / "a.parquet")), 24, 0)
    assert opened[1] == MADE | {"sources": 1}
    assert [opened.image(1, k).width for k in (0, 1)] == [4, 8]
    assert opened.understood(1) == (['an edit by "edit_prompt"'], [])


def test_an_edit_is_converted_with_its_parts(source, tmp_path):
    from janus_jax.data.formats.array_record import ArrayRecords
    from janus_jax.data.tools import to_array_record

    source("generation", [record for record, line, _ in GIVEN[:3] if not line])
    words = [
        "--kind=generation", f"--path={tmp_path / 'data.json'}", f"--images={tmp_path / 'pictures'}",
        f"--out={tmp_path / 'out'}",
    ]  # fmt: skip
    assert to_array_record.main(words) == 0
    assert len(ArrayRecords(str(tmp_path / "out"))) == 3
    again = open_dataset(Dataset("generation", str(tmp_path / "out")), 24, 0)
    assert [again[i]["sources"] for i in range(3)] == [2, 1, 1]
    assert [again.image(0, k).width for k in range(3)] == [4, 4, 8]


def test_a_config_without_edits_is_written_as_before():
    line = Dataset("generation", "a.jsonl")
    assert not to_dict(line).keys() & {"target", "source_ids", "edit_dropout"}
    told = to_dict(Dataset("generation", "a.jsonl", target="after", source_ids=0.0))
    assert (told["target"], told["source_ids"]) == ("after", 0.0)
