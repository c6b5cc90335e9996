"""A model that scores answers, behind any endpoint of OpenAI's chat form.

No reply is lost: each is appended to a file of JSON lines as it comes, with what was asked, and what
is there already is not asked again. What has no verdict in the end is named, with the reason; nothing
takes a missing verdict for 0, as the evaluators of MM-Vet and both harnesses do after some tries.
"""

import dataclasses
import datetime
import hashlib
import http.client
import json
import os
import pathlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import listed, short

_LONGEST_WAIT = 60.0  # seconds
_DOWN = 3  # rows in succession without any reply: the others are not asked


@dataclasses.dataclass(frozen=True)
class Judge:
    """Where it is and how it is asked.

    Args:
        base_url: up to and without /chat/completions, as http://127.0.0.1:8000/v1.
        model: its name there.
        key_variable: the environment variable that holds the key; none is sent where it is empty.
        max_tokens: the longest reply.
        timeout: seconds until a reply.
        tries: how often a row is asked until it has a verdict.
    """

    base_url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    max_tokens: int = 128
    timeout: float = 60.0
    tries: int = 5

    def __post_init__(self):
        if not self.base_url.startswith(("http://", "https://")):
            raise UsageError(
                f"judge: {self.base_url!r} is no address; give its base URL, such as "
                "http://127.0.0.1:8000/v1"
            )


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """What a judge said.

    Args:
        values: row -> verdict.
        unjudged: row -> why it has none.
        models: the names that the endpoint gave to what replied.
        dates: of the first and the last reply that counts, ISO 8601 in UTC; empty without any.
    """

    values: dict[str, float]
    unjudged: dict[str, str]
    models: tuple[str, ...]
    dates: tuple[str, ...]

    @property
    def warning(self) -> str:
        """What is said of rows without a verdict; empty where there are none."""
        if not self.unjudged:
            return ""
        rows = [f"{row}: {why}" for row, why in self.unjudged.items()]
        return (
            f"{len(rows):,} of {len(rows) + len(self.values):,} rows are unjudged, so there is no "
            f"score; run the same command again to ask about these alone:{listed(rows)}"
        )


class _NoReply(Exception):
    """The endpoint is down, busy, or not an endpoint. seconds: how long it asks to wait."""

    def __init__(self, why: str, seconds: float = 0.0):
        super().__init__(why)
        self.seconds = seconds


def judged(
    judge: Judge, questions: Mapping[str, str], verdict: Callable[[str], float | None],
    replies: pathlib.Path, say, wait=time.sleep,
) -> Verdicts:  # fmt: skip
    """The verdicts on rows. Raises UsageError where the endpoint refuses to be asked so (4xx).

    Args:
        judge: see Judge.
        questions: row -> what the judge is asked.
        verdict: of a reply; None where it has none. Such a row is asked again, warmer.
        replies: the file of replies, read and added to.
        say: hears the progress.
        wait: sleeps for so many seconds.
    """
    kept = _kept(judge, questions, verdict, replies, say)
    unjudged = {}
    silent = 0
    for number, (row, question) in enumerate(questions.items(), 1):
        if row in kept:
            continue
        if silent == _DOWN:
            unjudged[row] = f"not asked, since there was no reply for {_DOWN} rows in succession"
            continue
        found, why, replied = _row(judge, row, question, verdict, replies, wait)
        silent = 0 if replied else silent + 1
        if found is None:
            unjudged[row] = why
        else:
            kept[row] = found
        if number % 20 == 0:
            say(f"judge: {number:,} of {len(questions):,} rows")
    lines = [kept[row] for row in questions if row in kept]
    dates = sorted(line["date"] for line in lines)
    return Verdicts(
        {row: kept[row]["verdict"] for row in questions if row in kept},
        unjudged,
        tuple(sorted({line["model"] for line in lines})),
        tuple(dict.fromkeys(dates[:1] + dates[-1:])),
    )


def _row(judge, row: str, question: str, verdict, replies, wait) -> tuple[dict | None, str, bool]:
    """The line of a row that has a verdict, or why it has none; whether anything replied."""
    warmer = 0
    replied = False
    why = ""
    for attempt in range(judge.tries):
        try:
            reply, model = _asked(judge, question, 0.5 * warmer)
        except _NoReply as error:
            why = str(error)
            if attempt < judge.tries - 1:
                wait(min(_LONGEST_WAIT, max(2.0**attempt, error.seconds)))
            continue
        replied = True
        line = {
            "row": row, "asked": _hash(judge, question), "model": model, "temperature": 0.5 * warmer,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "reply": reply, "verdict": verdict(reply),
        }  # fmt: skip
        _append(replies, json.dumps(line) + "\n")
        if line["verdict"] is not None:
            return line, "", True
        why = f"replied {short(reply, 80)!r}, which is no verdict"
        warmer += 1
    return None, f"{judge.tries} tries; the last: {why}", replied


def _asked(judge: Judge, question: str, temperature: float) -> tuple[str, str]:
    """(reply, name of the model). Raises _NoReply, or UsageError for what no second try mends."""
    url = judge.base_url.rstrip("/") + "/chat/completions"
    body = {
        "model": judge.model, "messages": [{"role": "user", "content": question}],
        "temperature": temperature, "max_tokens": judge.max_tokens,
    }  # fmt: skip
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(judge.key_variable, ""):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=judge.timeout) as response:
            content = response.read()
    except urllib.error.HTTPError as error:
        said = f"HTTP {error.code}: {short(error.read(2000).decode('utf-8', 'replace'))}"
        if error.code in (408, 409, 425, 429) or error.code >= 500:
            raise _NoReply(said, _seconds(error.headers.get("Retry-After"))) from None
        sent = "was sent" if key else "is empty, so no key was sent"
        raise UsageError(
            f"judge: {url} refuses: {said}; check the address, the model {judge.model!r} and the key "
            f"({judge.key_variable} {sent})"
        ) from None
    except (OSError, http.client.HTTPException) as error:  # down, slow, cut off
        raise _NoReply(f"{url}: {getattr(error, 'reason', None) or error!r}") from None
    try:
        found = json.loads(content)
        reply = found["choices"][0]["message"]["content"]
        if not isinstance(reply, str):
            raise TypeError
    except (ValueError, KeyError, IndexError, TypeError):
        said = short(content.decode("utf-8", "replace"), 80)
        raise _NoReply(f"{url}: replied {said!r}, which is not of OpenAI's chat form") from None
    return reply, str(found.get("model", judge.model))


def _seconds(text: str | None) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return 0.0


def _hash(judge: Judge, question: str) -> str:
    asked = json.dumps([judge.model, judge.max_tokens, question])
    return hashlib.sha256(asked.encode()).hexdigest()


def _kept(judge: Judge, questions, verdict, replies: pathlib.Path, say) -> dict[str, dict]:
    """row -> its line of the file of replies, where the same was asked and has a verdict."""
    if not replies.exists():
        return {}
    out = {}
    for number, text in enumerate(replies.read_bytes().splitlines(), 1):
        try:
            line = json.loads(text)
            row = line["row"]
            same = row in questions and line["asked"] == _hash(judge, questions[row])
            value = verdict(line["reply"]) if same else None
            if value is not None:
                out[row] = {"model": line["model"], "date": line["date"], "verdict": value}
        except (ValueError, KeyError, TypeError, AttributeError):
            say(f"{replies}: line {number} is damaged, as by a run that was killed: asked again")
    if out:
        say(f"{replies}: {len(out):,} of {len(questions):,} rows have their verdict")
    return out


def _append(path: pathlib.Path, line: str):
    """Adds a line; it is on the disk when this returns. A line that was cut off stays alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
