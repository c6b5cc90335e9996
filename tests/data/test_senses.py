"""Records of further senses: how they name inputs, what rows they make, and what is refused."""

import json

import numpy as np
import pytest
from support import sensing, tiny
from support.pictures import encoded, noise
from support.sensing import signals  # noqa: F401

from janus_jax.config.schema import Dataset, Rows
from janus_jax.data import catalog
from janus_jax.data.messages import Slot
from janus_jax.data.sources import RecordError
from janus_jax.model import batch as bt
from janus_jax.model.senses.points.inputs import Sizes

ANSWER = {"role": "assistant", "content": "a cone"}
PART = {"type": "points", "points": "clouds/a.npy"}
WORDS = {"type": "text", "text": "what is it?"}


def asked(*parts) -> dict:
    return {"messages": [{"role": "user", "content": list(parts)}, ANSWER]}


def source(tmp_path, *records, kind="understanding"):
    (tmp_path / "clouds").mkdir(exist_ok=True)
    np.save(tmp_path / "clouds" / "a.npy", sensing.cloud(1))
    (tmp_path / "photo.png").write_bytes(encoded(noise(20, 20)))
    lines = "\n".join(json.dumps(record) for record in records)
    (tmp_path / "mine.jsonl").write_text(lines)
    return catalog.open_dataset(Dataset(kind, str(tmp_path / "mine.jsonl")), 16, 0)


def example(found, config=sensing.CONFIG, rows=sensing.ROWS, kind="understanding"):
    """(example, arrays) of the first record."""
    encode = sensing.encoder(config, rows)
    record = found[0]
    made = encode(kind, record, np.random.default_rng(0))
    return made, encode.pixels(kind, found, 0, record, made)


@pytest.mark.parametrize(
    "record",
    [asked(PART, WORDS), {"points": "clouds/a.npy", "question": "what is it?", "answer": "a cone"}],
)
def test_parts_and_fields_name_files_beside_the_records_as_pictures_do(tmp_path, record):
    made, arrays = example(source(tmp_path, record))
    wanted = sensing.record(("points", sensing.cloud(1)))
    again = sensing.encoder()("understanding", wanted, np.random.default_rng(0))
    assert made["tokens"].tolist() == again["tokens"].tolist()
    assert (made["role"] == 3).sum() == 8 and made["senses"].tolist() == [1]
    assert arrays["points"][0].shape == (64, 3) and arrays["understanding_images"] == []


def test_a_picture_and_a_cloud_keep_their_places_and_their_order(tmp_path):
    record = asked(WORDS, {"type": "image", "image": "photo.png"}, PART, PART)
    found = source(tmp_path, record)
    content = found[0]["messages"][0].content
    assert [x for x in content if x is None or isinstance(x, Slot)] == [None, *[Slot("points")] * 2]
    made, arrays = example(found, rows=Rows(1, 192, 2, 0))
    roles = made["role"][made["role"] > 0]
    assert roles.tolist() == [1] * 16 + [3] * 16
    assert len(arrays["points"]) == 2 and len(arrays["understanding_images"]) == 1


def test_a_part_may_hold_the_numbers_themselves(tmp_path, signals):  # noqa: F811
    numbers = [k / 64 for k in range(64)]
    found = source(tmp_path, asked({"type": "signal", "signal": numbers}, WORDS))
    _, arrays = example(found, sensing.BOTH)
    np.testing.assert_array_equal(arrays["signal"], [np.float32(numbers)])
    with pytest.raises(RecordError, match=r"signal given here: has the shape \[2\], needs \[64\]"):
        example(source(tmp_path, asked({"type": "signal", "signal": [1, 2]}, WORDS)), sensing.BOTH)


def test_a_field_of_a_senses_name_that_names_no_file_of_it_is_left_alone(tmp_path):
    record = {"image": "photo.png", "caption": "a cat", "points": [[1, 2]], "signal": "strong"}
    found = source(tmp_path, record)
    assert "senses" not in found[0] and found.image(0).size == (20, 20)


def test_rows_hold_as_many_inputs_of_each_sense_as_pictures(signals):  # noqa: F811
    records = [
        sensing.record(("points", sensing.cloud(i)), ("signal", np.arange(64) + i), text="what?")
        for i in range(4)
    ]
    rows = Rows(count=4, length=192, understanding_images=2, generation_images=0)
    batch = sensing.batch(sensing.BOTH, *records, rows=rows)
    found = {name: (x.shape, x.dtype) for name, x in batch.items()}
    shapes = bt.shapes(4, 192, 2, 0, sensing.BOTH)
    assert found == {name: (shape, np.dtype(kind)) for name, (shape, kind) in shapes.items()}
    for row in range(4):
        for name in ("points", "signal"):
            slots = batch[f"{name}_slots"][row]
            count = (slots > 0).sum() // 8
            assert 1 <= count <= 2 and slots[slots > 0].tolist() == list(range(1, 8 * count + 1))
            filled = np.abs(batch[name][row]).reshape(2, -1).max(1) > 0
            assert filled.tolist() == [True, count == 2]
        # What fills a row's slots are the inputs of the examples that stand there, in order.
        for k, i in enumerate(
            batch["signal"][row, : batch["segment_ids"][row].max(), 0].astype(int)
        ):
            wanted = Sizes(**sensing.POINTS).array(sensing.cloud(i))
            np.testing.assert_array_equal(batch["points"][row, k], wanted)


BAD = {
    "three points": (sensing.cloud(1, 3), r"has 3 points, needs 8 \(model.senses.points.groups\)"),
    "two numbers a point": (sensing.cloud(1, 50, 2), r"\[50, 2\], needs \[n, 3\].*channels is 3"),
    "one axis": (np.zeros(9), r"has the shape \[9\]"),
    "not a number": (np.array([[0, 0, 0]] * 20 + [[0, np.nan, 0]]), r"point 20 is \[0.0, nan"),
    "one place": (np.ones((30, 3)), r"all its points are one, \[1.0, 1.0, 1.0\]"),
    "words": (np.array([["a", "b", "c"]] * 20), r"holds <U1; needs numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_cloud_that_cannot_be_used_is_refused_by_file_value_and_reason(tmp_path, name):
    cloud, why = BAD[name]
    found = source(tmp_path, asked(PART, WORDS))
    np.save(tmp_path / "clouds" / "a.npy", cloud)
    with pytest.raises(RecordError, match=f"(?s)clouds/a.npy.*{why}") as error:
        example(found)
    assert error.value.cause == "wrong points"


def test_files_that_are_none_are_refused(tmp_path):
    found = source(tmp_path, asked(PART, WORDS))
    (tmp_path / "clouds" / "a.npy").write_text("x y z")
    with pytest.raises(RecordError, match=r"begins with b'x y z': no .npy, .npz or .ply"):
        example(found)
    (tmp_path / "clouds" / "a.npy").unlink()
    with pytest.raises(RecordError, match="No such file") as error:
        example(found)
    assert error.value.cause == "missing file"
    with pytest.raises(RecordError, match="leaves the folder"):
        source(tmp_path, asked(PART | {"points": "../b.npy"}, WORDS))[0]
    with pytest.raises(RecordError, match=r"'points' has no field \"points\" \(fields: type, path"):
        source(tmp_path, asked({"type": "points", "path": "a.npy"}, WORDS), asked(PART, WORDS))[0]


def test_records_that_do_not_fit_the_model_the_row_or_the_kind_are_refused(tmp_path):
    found = source(tmp_path, asked(PART, WORDS))
    with pytest.raises(RecordError, match=r"has points, and .* no such sense.*model.senses.points"):
        example(found, tiny.CONFIG)
    with pytest.raises(RecordError, match=r"has 3 points, a row takes 2; raise .*understanding_im"):
        example(source(tmp_path, asked(PART, PART, PART, WORDS)))
    document = {"images": ["photo.png", None], "texts": [None, "a"], "points": "clouds/a.npy"}
    with pytest.raises(RecordError):
        source(tmp_path, document)[0]
    drawn = source(tmp_path, {"points": "clouds/a.npy", "caption": "a cone"}, kind="generation")
    with pytest.raises(RecordError, match="has 0 pictures"):
        drawn.image(0)
    with pytest.raises(RecordError, match="has points, where pictures alone are read"):
        drawn.portable(0)


@pytest.mark.parametrize("ending", ["npz", "ply"])
def test_other_files_give_the_same_cloud(tmp_path, ending):
    found = source(tmp_path, asked(PART, WORDS))
    wanted = example(found)[1]["points"][0]
    cloud = sensing.cloud(1)
    path = tmp_path / f"clouds/a.{ending}"
    if ending == "npz":
        np.savez(path, cloud)
    else:
        rows = "\n".join(" ".join(repr(float(x)) for x in point) for point in cloud)
        head = "ply\nformat ascii 1.0\nelement vertex 200\n"
        axes = "".join(f"property float {axis}\n" for axis in "xyz")
        path.write_text(
            f"{head}{axes}element face 1\nproperty list uchar int v\nend_header\n{rows}\n3 0 1 2\n"
        )
    other = source(tmp_path, asked(PART | {"points": f"clouds/a.{ending}"}, WORDS))
    np.testing.assert_array_equal(example(other)[1]["points"][0], wanted)
    if ending == "ply":
        path.write_bytes(path.read_bytes().replace(b"ascii", b"binary_little_endian"))
        with pytest.raises(RecordError, match=r"is no ASCII \.ply"):
            example(other)


def test_a_cloud_is_moved_scaled_and_chosen_from_alike_each_time(tmp_path):
    sizes = Sizes(points=64, channels=6, groups=8)
    cloud = sensing.cloud(3, 500, 6)
    first = sizes.array(cloud)
    np.testing.assert_array_equal(first, sizes.array(cloud))
    far = cloud * np.float32([10, 10, 10, 1, 1, 1]) + np.float32([5, -3, 100, 0, 0, 0])
    np.testing.assert_allclose(sizes.array(far), first, atol=1e-4)
    np.testing.assert_allclose(first[:, :3].mean(0), 0, atol=1e-6)
    assert np.linalg.norm(first[:, :3], axis=1).max() == pytest.approx(1)
    assert {tuple(x) for x in first[:, 3:]} <= {tuple(x) for x in cloud[:, 3:]}
    few = sizes.array(cloud[:9])  # some come again
    assert few.shape == (64, 6) and len(np.unique(few, axis=0)) == 9
