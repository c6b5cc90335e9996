import json

import pytest
from support.endpoint import chat_reply, endpoint

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval.judge import Judge, judged
from janus_jax.eval.understanding.mmvet import verdict

QUESTIONS = {f"v1_{n}": f"question {n} | truth | answer {n} | " for n in range(6)}


def ask(url, path, waits=None, questions=QUESTIONS, said=None, **options):
    waits = [] if waits is None else waits
    judge = Judge(url, "some-judge", **options)
    say = print if said is None else said.append
    return judged(judge, questions, verdict, path, say, waits.append)


def number(body) -> int:
    return int(body["messages"][0]["content"].split()[1])


def test_every_row_has_its_verdict_and_nothing_is_asked_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    path = tmp_path / "replies.jsonl"
    with endpoint(lambda body, _: chat_reply(f"0.{number(body)}")) as (url, seen):
        first = ask(url, path, key_variable="JUDGE_KEY")
        assert first.values == {f"v1_{n}": n / 10 for n in range(6)}
        assert (first.unjudged, first.warning, first.models) == ({}, "", ("made-1",))
        assert first.dates[0].endswith("+00:00")
        assert seen[0][0]["model"] == "some-judge" and seen[0][0]["temperature"] == 0
        assert seen[0][1]["Authorization"] == "Bearer secret"
        assert "secret" not in path.read_text()
        assert ask(url, path).values == first.values
        assert len(seen) == 6
        changed = QUESTIONS | {"v1_3": "question 5 | truth | another answer | "}
        again = ask(url, path, questions=changed)
        assert len(seen) == 7 and again.values["v1_3"] == 0.5


def test_a_run_that_was_killed_within_a_line_goes_on(tmp_path):
    path = tmp_path / "replies.jsonl"
    with endpoint(lambda body, _: chat_reply("1.0")) as (url, seen):
        ask(url, path)
        text = path.read_bytes()
        path.write_bytes(text[: len(text) - 30])
        said = []
        assert len(ask(url, path, said=said).values) == 6
        assert len(seen) == 7 and "line 6 is damaged" in said[0]
        assert len(ask(url, path).values) == 6 and len(seen) == 7
        assert len([line for line in path.read_bytes().split(b"\n") if line]) == 7


def test_busy_and_broken_replies_are_asked_again_after_growing_waits(tmp_path):
    script = [
        (429, b"slow down", ("Retry-After", "7")), (503, b"down"), (200, b"<html>"), (200, b'{"choices": []}'),
        chat_reply("0.5"),
    ]  # fmt: skip
    waits = []
    with endpoint(lambda _, count: script[min(count, 4)]) as (url, _):
        found = ask(url, tmp_path / "r.jsonl", waits)
    assert found.values == dict.fromkeys(QUESTIONS, 0.5)
    assert waits == [7.0, 2.0, 4.0, 8.0]


def test_rubbish_is_asked_again_warmer_and_a_row_without_verdict_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    with endpoint(lambda body, _: chat_reply("I cannot say" if number(body) == 2 else "0.9")) as (
        url,
        seen,
    ):
        found = ask(url, path, tries=3)
        assert set(found.unjudged) == {"v1_2"}
        assert "v1_2: 3 tries; the last: replied 'I cannot say'" in found.warning
        assert "1 of 6 rows are unjudged, so there is no score" in found.warning
        warm = [body["temperature"] for body, _ in seen if number(body) == 2]
        assert warm == [0, 0.5, 1.0]
    with endpoint(lambda body, _: chat_reply("0.2")) as (url, seen):
        assert ask(url, path).values["v1_2"] == 0.2  # that one alone
        assert len(seen) == 1
    assert [json.loads(line)["verdict"] for line in path.read_text().splitlines()].count(None) == 3


def test_a_judge_that_is_down_or_slow_ends_in_unjudged_rows(tmp_path):
    waits = []
    with endpoint(lambda _, count: 0.5) as (url, seen):
        found = ask(url, tmp_path / "r.jsonl", waits, tries=2, timeout=0.05)
    assert len(found.unjudged) == 6 and found.values == {} and found.dates == ()
    assert len(seen) == 6  # three rows, two tries each
    assert waits == [1.0] * 3
    assert "not asked, since there was no reply for 3 rows" in found.unjudged["v1_5"]
    gone = ask(url, tmp_path / "r.jsonl", waits, tries=1)
    assert "refused" in gone.unjudged["v1_0"]


def test_what_no_second_try_mends_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with (
        endpoint(lambda *_: (401, b'{"error": "no key"}')) as (url, seen),
        pytest.raises(UsageError) as caught,
    ):
        ask(url, tmp_path / "r.jsonl")
    assert "401" in str(caught.value) and "OPENAI_API_KEY is empty" in str(caught.value)
    assert len(seen) == 1
    with pytest.raises(UsageError, match="is no address"):
        Judge("localhost:8000", "m")
