"""Lines that are added while a job goes on."""

from janus_jax.common.json_lines import Log, whole_lines


def test_lines_are_added_to_those_that_are_there_but_for_one_that_a_kill_has_cut(tmp_path):
    path = tmp_path / "a.jsonl"
    with Log(path) as log:
        log.add([{"a": 1}, "ø"])
        assert list(whole_lines(path)) == [(1, b'{"a": 1}\n'), (2, b'"\\u00f8"\n')]
    path.write_bytes(path.read_bytes() + b'{"b')
    assert [number for number, _ in whole_lines(path)] == [1, 2]
    with Log(path) as log:
        log.add([3])
    assert path.read_bytes() == b'{"a": 1}\n"\\u00f8"\n3\n'
