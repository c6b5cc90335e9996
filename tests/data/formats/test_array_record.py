"""ArrayRecord shards that are refused."""

from support.formats import refusal


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
