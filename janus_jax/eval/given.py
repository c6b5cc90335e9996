"""What is scored without drawing or answering: --answers, --verify and --results."""

import dataclasses
import pathlib
import time

from janus_jax.common import exit_codes, provenance
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.files import read_json
from janus_jax.common.outputs import require_writable
from janus_jax.eval import answering, record, result, trees
from janus_jax.eval.drawn_size import size_of_pictures
from janus_jax.eval.judge import Judge


def score_answers(f, task, out: pathlib.Path) -> int:
    """--answers: of any model, in any harness."""
    if task.half != "understanding":
        raise UsageError(f"--answers: {task.name} has pictures; give --results")
    require_writable(out, "--out")
    judge_of(f, task)
    asked = task.read()
    path = pathlib.Path(f.answers)
    if not path.is_file():
        raise UsageError(f"--answers={path}: no such file")
    answers = answering.made_elsewhere(path, asked)
    model = {
        "name": f.model or f"answers of {path.name}",
        "answers_sha256": provenance.digest(path),
    }
    settings = task.settings(asked, model, None)
    provenance.begin(out, settings)
    answering.take(answers, out)
    begun = time.time()
    return said(result.finish(task, asked, out, settings, begun, print, judge_of(f, task)), out)


def judge_of(f, task):
    """The judge that the flags name, or None."""
    if bool(f.judge_url) != bool(f.judge_model):
        raise UsageError("--judge_url and --judge_model: give both, or none")
    if not f.judge_url:
        return None
    if not hasattr(task.module, "to_judge"):
        raise UsageError(f"--judge_url: {task.name} needs no judge; leave it out")
    return Judge(f.judge_url, f.judge_model, f.judge_key)


def said(report: dict, out: pathlib.Path) -> int:
    """Prints a report; the command's exit code."""
    print(f"{record.page(report)}\n{out}: report.md, report.json")
    if report["counts"]["missing"]:
        return exit_codes.DATA
    if report["counts"].get("unjudged") and report["scorer"] != "none yet":
        return exit_codes.RESTART
    return exit_codes.DONE


def of_what_is_there(f, task, out: pathlib.Path) -> int:
    """--verify and --results."""
    judged = hasattr(task.module, "judge_results")
    if task.half != "generation" and (f.verify or not judged):
        raise UsageError(
            f"--verify and --results are for pictures; {task.name} has answers, which are scored here"
        )
    settings = kept_settings(out)
    if not task.pictures:
        task = dataclasses.replace(task, pictures=settings.get("pictures_a_prompt", 0))
    asked = task.read()
    hashes = settings["asked_sha256"], record.asked_hash(asked)
    if hashes[0] != hashes[1]:
        raise UsageError(
            f"--data={task.data}: not what {out} was made from (sha256 {hashes[1][:12]}, "
            f"{hashes[0][:12]} there); name that file, with the same --limit"
        )
    if judged:
        results = pathlib.Path(f.results)
        return said(result.finish(task, asked, out, settings, time.time(), print, results), out)
    tree = out / result.TREE
    wrong = trees.faults(task.module, tree, asked, size_of_pictures(settings))
    trees.refuse(tree, "not what the scorer needs", wrong)
    print(f"{tree}: {sum(len(item.files) for item in asked):,} pictures, all that the scorer needs")
    if not f.results:
        return exit_codes.DONE
    results = pathlib.Path(f.results)
    for old in trees.stale([results] if results.is_file() else [], tree, asked):
        print(f"WARNING: {old} is older than the newest picture: of other pictures?")
    if not (out / record.REPORT).is_file():  # it was broken off before its report
        result.finish(task, asked, out, settings, time.time(), print)
    report = record.read_report(out)
    report |= result.of_results(task, asked, results)
    report["scorer"] = f.scorer or "not said; give --scorer"
    record.write(out, report)
    return said(report, out)


def kept_settings(out: pathlib.Path) -> dict:
    """The settings of the result in a folder. Raises UsageError where there is none."""
    path = out / provenance.SETTINGS
    if not path.is_file():
        raise UsageError(f"--out={out}: no result there; draw or answer first, without this flag")
    found = read_json(path)
    if "asked_sha256" not in found or "model" not in found:
        raise UsageError(f"{path}: not what janus-jax eval wrote; give another --out")
    return found
