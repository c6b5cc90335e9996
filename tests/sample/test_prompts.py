"""Prompts from files of every kind that people have them in."""

import pytest

from janus_jax.sample.prompts import read_prompts


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.txt", "a cat\n\n a dog \r\n"),
        (
            "geneval.jsonl",
            '{"tag": "one", "prompt": "a cat"}\n{"prompt": "a dog", "include": []}\n',
        ),
        ("geneval.txt", '{"tag": "one", "prompt": "a cat"}\n{"prompt": "a dog"}\n'),
        ("a.jsonl", '"a cat"\n"a dog"\n'),
        ("a.ndjson", '{"caption": "a cat"}\n{"text": "a dog"}'),
        ("a.json", '["a cat", {"prompt": "a dog"}]'),
        ("mjhq.json", '{"1f": {"category": "x", "prompt": "a cat"}, "2e": {"prompt": "a dog"}}'),
        ("lines.json", '{"prompt": "a cat"}\n{"prompt": "a dog"}\n'),
        ("parti.tsv", "Prompt\tCategory\na cat\tanimals\na dog\tanimals\n"),
        ("drawbench.csv", "Prompts,Category\na cat,Colors\na dog,Colors\n"),
        ("numbered.csv", 'id,prompt\n1,a cat\n2,"a dog"\n'),
        ("trailing.csv", "id,prompt\n1,a cat,,\n2,a dog,\n"),
    ],
)
def test_the_prompts_of_a_file_are_found(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    assert read_prompts(tmp_path / name) == ["a cat", "a dog"]


def test_a_line_break_within_quotes_is_of_the_prompt(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,prompt\n1,"a cat\non a mat"\n\n2,"""Stop"" said a sign"\n', "utf-8")
    assert read_prompts(path) == ["a cat\non a mat", '"Stop" said a sign']


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_mark_tells_the_encoding(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("a café\n猫\n".encode(encoding))
    assert read_prompts(path) == ["a café", "猫"]


def test_a_line_that_only_begins_like_json_is_a_prompt(tmp_path):
    path = tmp_path / "a.txt"
    lines = ["{curly} letters", "[square] ones", '{"a":' * 100_000]
    path.write_text("\n".join(lines), "utf-8")
    assert read_prompts(path) == lines


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.jsonl", b'{"image": "a.png", "n": 1}', r'a.jsonl:1: has no text in a field "prompt" \(fields: image, n\)'),
        ("a.jsonl", b'{"prompt": "a"}\n{"prom', r"a.jsonl:2: is '\{\"prom', no JSON"),
        ("a.jsonl", b"[1]", "a.jsonl:1: is '.1.'; needs a text or an object"),
        ("a.txt", b'a cat\n["a", "b"]', "a.txt:2: is .*; needs a text or an object"),
        ("a.json", b"{", "a.json: is no JSON"),
        ("a.json", b"[" * 200_000, "a.json: is no JSON"),
        ("a.jsonl", b'{"a":' * 200_000, "a.jsonl:1: is .*no JSON"),
        ("a.csv", b'id,prompt\n1,a\n2,"b\n3,c\n', "a.csv:3: its fields cannot be told apart .*written twice"),
        ("a.csv", b"id,prompt\n1,a cat, red\n", "a.csv:2: has more fields than line 1; put a text with ',' in quotes"),
        ("a.csv", b"id,words\n1,a cat\n", r"a.csv:2: has no text .* \(fields: id, words\)"),
        ("a.txt", "a cat".encode("utf-16-le"), "UTF-16 without its mark; save it as UTF-8"),
        ("a.txt", b"\x89PNG\r\n\x1a\n", "a.txt: byte 0x89 at offset 0 is not UTF-8"),
        ("a.txt", b"\xff\xfea", "begins as utf-16 and is none"),
        ("a.txt", b"\n \n", "holds no prompt"),
    ],
    ids=lambda x: str(x)[:30],
)  # fmt: skip
def test_what_holds_no_prompt_is_refused_by_file_and_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_prompts(tmp_path / name)


def test_a_folder_of_prompts_is_refused_by_its_name(tmp_path):
    with pytest.raises(ValueError, match="is a directory; name one file"):
        read_prompts(tmp_path)
