"""What users want to see at each evaluation: read, or refused with all that is wrong, before a run."""

import dataclasses

import pytest
from PIL import Image
from support import tiny
from support.configs import checked

from janus_jax.config.evaluation import Evaluation
from janus_jax.config.schema import ConfigError
from janus_jax.eval.during_asked import read_asked
from janus_jax.eval.during_scores import require_scorable


def asking(prompts=(), questions=()):
    evaluation = Evaluation(prompts=tuple(prompts), questions=tuple(questions))
    return dataclasses.replace(checked(), evaluation=evaluation)


def test_prompts_and_questions_are_read_from_files_too(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (5, 4), "red").save(tmp_path / "in" / "a b.png")
    (tmp_path / "p.txt").write_text("\ufeffa cat, sitting\r\n\r\n  a dog \n", "utf-8")
    (tmp_path / "in" / "q.TXT").write_text("a b.png: is it: red?\na b.png:why?\n")
    direct = f"{tmp_path}/in/a b.png: what?"
    found = read_asked(
        asking(["a hat", str(tmp_path / "p.txt")], [str(tmp_path / "in/q.TXT"), direct]),
        tiny.processor(),
    )
    assert found.prompts == ["a hat", "a cat, sitting", "a dog"]
    assert [question for _, question in found.questions] == ["is it: red?", "why?", "what?"]
    assert {picture.size for picture, _ in found.questions} == {(5, 4)}


def test_all_that_cannot_be_asked_is_told_at_once(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "q.txt").write_text("gone.png: what?\nno picture\n")
    names = ("gone.txt", "empty.txt", "bytes.txt", "all.jsonl")
    prompts = ["a cat", " ", *(str(tmp_path / name) for name in names)]
    with pytest.raises(ConfigError) as error:
        require_scorable(asking(prompts, [str(tmp_path / "q.txt"), "a.png: "]), tiny.processor())
    title, *lines = str(error.value).split("\n")
    told = [
        "evaluation.prompts[1] is ' ': empty",
        "gone.txt: No such file or directory",
        "empty.txt is empty; write one a line",
        "bytes.txt: is no text in UTF-8",
        "all.jsonl': a list is read from a .txt file",
        "gone.png",
        "q.txt:2: 'no picture' is no question about a picture; write \"PICTURE: QUESTION\"",
        "evaluation.questions[1]: 'a.png: ' is no question about a picture",
    ]
    assert title == "8 problem(s) in the config:"
    assert [words for words, line in zip(told, lines, strict=True) if words not in line] == []


def test_what_is_too_long_for_the_model_is_refused_by_a_dry_run_too(tmp_path):
    """Else a stage finds it, when those before it are trained."""
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    long = "word " * (tiny.processor().context + 1)
    asked = asking(["a hat", long], [f"{tmp_path}/a.png: what?", f"{tmp_path}/a.png: {long}"])
    with pytest.raises(ConfigError) as error:
        require_scorable(asked, tiny.processor())
    _, prompt, question = str(error.value).split("\n")
    assert "evaluation.prompts[1]: " in prompt and "the context is" in prompt
    assert "evaluation.questions[1]: " in question and "the context is" in question
