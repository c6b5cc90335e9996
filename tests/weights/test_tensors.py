"""The rules of a safetensors header."""

import json
import struct

import pytest

from janus_jax.weights import tensors


def written(directory, header, size: int):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = directory / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    return path


def entry(begin, end, *shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


ONE = b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


@pytest.mark.parametrize(
    "header, size, says",
    [
        ({"a": entry(0, 8, 2), "b": entry(4, 12, 2)}, 12, "b begins at byte 4, where 8 is due"),
        ({"a": entry(0, 8, 2), "b": entry(0, 8, 2)}, 8, "b begins at byte 0, where 8 is due"),
        ({"a": entry(0, 8, 2), "b": entry(12, 20, 2)}, 20, "b begins at byte 12, where 8 is due"),
        ({"a": entry(4, 12, 2)}, 12, "a begins at byte 4, where 0 is due"),
        ({"a": entry(0, 8, 2)}, 12, "cut short or damaged"),
        ({"a": entry(0, 80, 20)}, 12, "cut short or damaged"),
        ({"a": entry(0, 8, 3)}, 8, "takes bytes 0 to 8"),
        ({"a": entry(8, 0, -2)}, 8, "takes bytes 8 to 0"),
        ({"a": entry(0, 16, -2, -2)}, 16, "file damaged"),
        ({"a": entry(0, 8, 2.0)}, 8, "file damaged"),
        ({"a": entry(0, 8, 2) | {"data_offsets": [0, 8, 8]}}, 8, "file damaged"),
        ({"a": entry(0, 1, 2, dtype="F4")}, 1, "type F4, which this program cannot read"),
        (b"{%b,%b}" % (ONE, ONE), 8, "names a twice"),
        (b"[" * 5000, 0, "no JSON"),
        ({"__metadata__": {"format": "mlx"}}, 0, "MLX's form"),
    ],
)
def test_a_header_that_breaks_the_format_is_refused(tmp_path, header, size, says):
    with pytest.raises(ValueError, match=rf"a\.safetensors: .*{says}"):
        tensors.read_safetensors(written(tmp_path, header, size))


def test_tensors_may_be_empty_and_stand_in_any_order(tmp_path):
    header = {"b": entry(8, 12, 1), "none": entry(8, 8, 0), "a": entry(0, 8, 2)}
    found = tensors.read_safetensors(written(tmp_path, header, 12))
    assert {name: x.shape for name, x in found.items()} == {"b": (1,), "none": (0,), "a": (2,)}
