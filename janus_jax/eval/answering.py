"""A benchmark's answers at any scale: each process answers its share and writes it as it comes."""

import csv
import io
import json
import pathlib
from collections.abc import Callable

from janus_jax.common import files
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.json_lines import Log, whole_lines
from janus_jax.common.progress import Progress
from janus_jax.common.text import listed, short
from janus_jax.eval.benchmark import Record
from janus_jax.eval.stored_pictures import long_cells

AT_ONCE = 16  # conversations that are answered together
ANSWERS = "answers.jsonl"


def answer_all(
    answer: Callable, records: list[Record], folder: pathlib.Path, ask: Callable, *,
    max_new_tokens: int, share: tuple[int, int] = (0, 1),
):  # fmt: skip
    """Answers what is not answered yet; `answers_of` reads what all processes wrote.

    answer: `sample.understand.understand_batch` of a model.
    ask: record -> its chat messages.
    max_new_tokens: of an answer, which is the likeliest (temperature 0).
    share: (which process this is, of how many).

    A record that cannot be asked, as for a picture that cannot be read, has its error in place of
    an answer. Raises OSError where the disk takes no more; the same call goes on from there.
    """
    index, count = share
    order = sorted(records, key=lambda record: (len(record.pictures), len(record.question)))
    batches = [order[i : i + AT_ONCE] for i in range(0, len(order), AT_ONCE)][index::count]
    lacking = unanswered(folder, records)
    todo = [some for some in batches if any(record.index in lacking for record in some)]
    done = sum(map(len, batches)) - sum(map(len, todo))
    with (
        Progress("answering", sum(map(len, batches)), "questions") as progress,
        Log(folder / f"answers.{index}.jsonl") as log,
    ):
        progress.skip(done)
        for some in todo:
            given = answer(
                [ask(record) for record in some],
                max_new_tokens=max_new_tokens,
                return_exceptions=True,
            )
            lines = []
            for record, words in zip(some, given):
                told = {"answer": words}
                if isinstance(words, ValueError):
                    told = {"error": str(words)}
                lines.append({"index": record.index, **told})
            log.add(lines)
            progress(len(some))


def answers_of(folder: pathlib.Path) -> dict[str, dict]:
    """index -> {"answer"} or {"error"}, of all that was asked so far, by whichever process; an
    answer counts before an error. Raises UsageError for a damaged file."""
    found = {}
    for path in sorted(folder.glob("answers*.jsonl")):
        for number, line in whole_lines(path):  # one that a kill has cut is answered again
            try:
                told = json.loads(line)
                index = told.pop("index")
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise UsageError(
                    f"{path}:{number}: no answer of janus-jax eval ({error}); take the line out, and "
                    "it is asked again"
                ) from None
            if "answer" in told or "answer" not in found.get(index, {}):
                found[index] = told
    return found


def unanswered(folder: pathlib.Path, records: list[Record]) -> set[str]:
    """The indices without an answer yet; what could not be asked before is tried again."""
    there = answers_of(folder)
    return {r.index for r in records if "answer" not in there.get(r.index, {})}


def made_elsewhere(path: pathlib.Path, records: list[Record]) -> bytes:
    """Answers of another program as a result keeps them, to be written by `take`.

    path: JSON lines with "index" and "answer" (or "prediction"), such as our answers.jsonl, or
        VLMEvalKit's TSV: its `prediction` counts, its `answer` is the truth. Raises UsageError that
        lists what cannot be used.
    """
    rows = _rows(path)
    known = {record.index for record in records}
    problems = []
    found = {}
    for number, row in rows:
        index = str(row.get("index", ""))
        index = f"v1_{index}" if f"v1_{index}" in known else index  # MM-Vet's in VLMEvalKit's TSV
        answer = row.get("prediction", row.get("answer"))
        if index not in known:
            problems.append(f"line {number}: index {short(index, 40)!r} is no record's")
        elif not isinstance(answer, str):
            problems.append(f"line {number}: no text in answer or prediction")
        elif index in found:
            problems.append(f"line {number}: index {index} has an answer before")
        else:
            found[index] = answer
    if lacking := [record.index for record in records if record.index not in found]:
        problems.append(f"no answer to {len(lacking)} records, the first {lacking[0]}")
    if problems:
        raise UsageError(f"--answers={path}:{listed(problems)}")
    lines = [json.dumps({"index": index, "answer": answer}) for index, answer in found.items()]
    return "".join(f"{line}\n" for line in lines).encode()


def take(answers: bytes, folder: pathlib.Path):
    """Puts what `made_elsewhere` gave into a result."""
    files.write(folder / "answers.0.jsonl", answers)


def _rows(path: pathlib.Path) -> list[tuple[int, dict]]:
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix.lower() == ".tsv":
            with long_cells():  # VLMEvalKit's own files keep the pictures
                rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line that is no object")
    except (ValueError, OSError, csv.Error) as error:
        raise UsageError(f"--answers={path}: no JSON lines and no TSV ({error})") from None
    first = 2 if path.suffix.lower() == ".tsv" else 1
    return list(enumerate(rows, first))


def gather(folder: pathlib.Path, records: list[Record]) -> list[dict]:
    """Each record's answer, once all processes are done; written as one file, in the order of the
    records."""
    found = answers_of(folder)
    told = [found.get(record.index, {"error": "not answered"}) for record in records]
    lines = [
        json.dumps({"index": record.index, "question": record.question, **answer})
        for record, answer in zip(records, told)
        if record.index in found
    ]
    files.write(folder / ANSWERS, "".join(f"{line}\n" for line in lines))
    for path in folder.glob("answers.*.jsonl"):
        path.unlink()
    return told
