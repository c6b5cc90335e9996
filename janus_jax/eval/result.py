"""One benchmark of one model: read, drawn or answered, scored, and recorded in a folder."""

import csv
import dataclasses
import functools
import json
import pathlib
import time
from collections import Counter
from collections.abc import Callable

from janus_jax.common import files
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import listed
from janus_jax.eval import answering, benchmark, drawing, record, trees
from janus_jax.eval.drawn_size import size_of_pictures
from janus_jax.eval.intervals import bootstrap, over_seeds, total
from janus_jax.eval.judge import Judge, judged
from janus_jax.eval.reported import figures
from janus_jax.eval.sheet import correct, sheet

TREE = "pictures"  # the folder of a result that a scorer reads


@dataclasses.dataclass(frozen=True)
class Task:
    """What is asked of a model.

    Args:
        half: "understanding" or "generation".
        name: of the benchmark.
        data: the file, or whatever else the benchmark's `read` takes.
        images: the folder of its pictures, or empty.
        protocol: one of the benchmark's; empty: its first.
        limit: how many records or prompts of the file, from its first on; 0: all.
        pictures: how many of each prompt; 0: as the benchmark's protocol says.
        seed: of drawings.
        cfg_scale, temperature: of drawings; None: the weights' own.
        max_new_tokens: of an answer; 0: as the benchmark says.
        size: "WxH" of drawings, of a model that draws several; empty: its square.
    """

    half: str
    name: str
    data: str
    images: str = ""
    protocol: str = ""
    limit: int = 0
    pictures: int = 0
    seed: int = 0
    cfg_scale: float | None = None
    temperature: float | None = None
    max_new_tokens: int = 0
    size: str = ""

    def __post_init__(self):
        known = self.module.PROTOCOLS
        if self.protocol and self.protocol not in known:
            raise UsageError(
                f"protocol {self.protocol!r}: {self.name} has {', '.join(map(repr, known))}"
            )

    @property
    def module(self):
        return benchmark.load(self.half, self.name)

    @property
    def form(self) -> str:
        return self.protocol or self.module.PROTOCOLS[0]

    @property
    def each(self) -> int:
        """Pictures of a prompt."""
        return self.pictures or self.module.PICTURES

    def read(self, say=print) -> list:
        """The records, or the items. Raises UsageError."""
        try:
            if self.half == "understanding":
                found = self.module.read(self.data, self.images, say)
            else:
                found = self.module.read(self.data, self.each, self.form)
        except (AttributeError, TypeError, KeyError, csv.Error) as error:
            raise UsageError(
                f"{self.data}: not in the form of {self.name} ({type(error).__name__}: {error}); "
                "get the benchmark's file again"
            ) from error
        return found[: self.limit] if self.limit else found

    def settings(self, asked: list, model: dict, processor) -> dict:
        """All that changes the result. asked: what `read` gave; model: `provenance.of_model`."""
        told = {
            "benchmark": self.name,
            "protocol": self.form,
            "data": pathlib.Path(self.data).name,
            "asked_sha256": record.asked_hash(asked),
            "limit": self.limit or "none",
            "model": model,
        }
        own = {}
        if hasattr(self.module, "own_settings"):
            own = self.module.own_settings(asked)
        if "?" in self.data:  # what is known by its sha256 may lie anywhere
            world, _, query = self.data.partition("?")
            named = [x for x in query.split("&") if f"{x.partition('=')[0]}_sha256" not in own]
            told["data"] = "?".join([world, "&".join(named)]) if named else world
        told |= own
        if self.half == "understanding":
            return told | {
                "temperature": 0.0,
                "max_new_tokens": self.max_new_tokens or self.module.MAX_NEW_TOKENS,
                "batch": answering.AT_ONCE,
            }
        given = lambda asked, own: own if asked is None else asked
        if self.size:
            told["size"] = self.size
        return told | {
            "cfg_scale": given(self.cfg_scale, processor.cfg_scale),
            "temperature": given(self.temperature, processor.temperature),
            "seed": self.seed,
            "seed_policy": f"{drawing.PER_SEED} x seed + number of the prompt; then by picture",
            "pictures_a_prompt": self.each,
            "batch": drawing.AT_ONCE,
        }


def fill(
    task: Task, asked: list, folder: pathlib.Path, settings: dict, loaded: Callable, share
) -> bool:
    """Draws or answers what is missing in a folder. Returns whether anything was.

    asked: what `task.read` gave.
    settings: of the task, kept by `provenance.begin`.
    loaded: gives what draws (prompts -> pictures, `sample.generate.generate` of a model), what
        answers (conversations -> answers, `sample.understand.understand_batch` of it), and its
        processor; called only where something is missing.
    share: (which process this is, of how many); each fills its own.
    """
    if task.half == "understanding":
        lacking = answering.unanswered(folder, asked)
        if lacking:
            _, answer, _ = loaded()
            answering.answer_all(
                answer, asked, folder, lambda one: task.module.ask(one, task.form),
                max_new_tokens=settings["max_new_tokens"], share=share,
            )  # fmt: skip
        return bool(lacking)
    tree = folder / TREE
    lacking = not all((tree / file).exists() for item in asked for file in item.files)
    if lacking:
        draw, _, processor = loaded()
        names = ("cfg_scale", "temperature", "size")
        how = {name: settings[name] for name in names if name in settings}
        drawing.draw_tree(
            functools.partial(draw, **how), processor, asked, tree, task.module.compose,
            pictures=task.each, seed=task.seed, share=share,
        )  # fmt: skip
    return lacking


def finish(
    task: Task, asked: list, folder: pathlib.Path, settings: dict, begun: float, say,
    judge: Judge | pathlib.Path | None = None,
) -> dict:  # fmt: skip
    """Scores what lies in a folder, once it is filled, and writes its report, which is returned.

    begun: when that was, by time.time().
    judge: of a benchmark whose answers one has to judge, or the file of its own evaluator; what it
        says is added to the report that is there, of where the answers were made.
    """
    earlier = record.read_report(folder) if judge and (folder / record.REPORT).is_file() else {}
    report = {
        "settings": settings,
        "environment": record.environment(),
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(time.time() - begun, 1),
        "headline": task.module.HEADLINE,
        "reported": figures(task.name),
    }
    report |= {
        name: earlier[name] for name in ("environment", "made", "seconds") if name in earlier
    }
    if task.half == "understanding":
        report |= answered(task, asked, folder, say, judge)
    else:
        report |= drawn(task, asked, folder, settings)
    record.write(folder, report)
    return report


def answered(task: Task, asked: list, folder: pathlib.Path, say, judge) -> dict:
    """Counts and scores of answers; each answer's mark is written beside it."""
    told = answering.gather(folder, asked)
    kept = [(one, t["answer"]) for one, t in zip(asked, told) if "answer" in t]
    missing = [f"{one.index}: {t['error']}" for one, t in zip(asked, told) if "error" in t]
    if missing:
        say(f"WARNING: {len(missing)} of {len(asked)} have no answer:{listed(missing)}")
    records = [one for one, _ in kept]
    marks = [task.module.mark(one, answer, task.form) for one, answer in kept]
    counts = {"asked": len(asked), "made": len(kept), "missing": len(missing)}
    found = {"counts": counts, "scorer": "janus_jax"}
    if hasattr(task.module, "to_judge"):
        found |= judge_marks(task, kept, marks, folder, say, judge)
        counts["unjudged"] = sum(mark["right"] is None for mark in marks)
    lines = [json.dumps({"index": one.index, **m}, default=str) for one, m in zip(records, marks)]
    files.write(folder / "marks.jsonl", "".join(f"{line}\n" for line in lines))
    if (missing and not kept) or counts.get("unjudged"):
        return found | {"scores": {}}
    units = task.module.tally(records, marks, task.form)
    return found | {"scores": scored(task, units, asked)}


def judge_marks(
    task: Task, kept: list, marks: list[dict], folder: pathlib.Path, say, judge
) -> dict:
    """Fills the marks in by what a judge says of the answers, or by the file that the benchmark's
    own evaluator wrote; without either, writes what that evaluator reads. Returns what the report
    says of it."""
    if isinstance(judge, pathlib.Path):
        values = task.module.judge_results(str(judge), [one for one, _ in kept])
        for (one, _), mark in zip(kept, marks):
            mark["right"] = values[one.index]
        return {"scorer": f"the benchmark's own evaluator ({judge.name})"}
    if judge is None:
        file = folder / f"{task.name}.json"
        answers = [answer for _, answer in kept]
        files.write(file, task.module.judge_file([one for one, _ in kept], answers))
        return {"scorer": "none yet", "next": task.module.judge_advice(str(file))}
    asked = {one.index: task.module.to_judge(one, answer) for one, answer in kept}
    verdicts = judged(judge, asked, task.module.verdict, folder / "judge.jsonl", say)
    for (one, _), mark in zip(kept, marks):
        mark["right"] = verdicts.values.get(one.index)
    told = {"model": judge.model, "replied_as": verdicts.models, "dates": verdicts.dates}
    if verdicts.warning:
        say(f"WARNING: {verdicts.warning}")
    return {"scorer": told, "next": verdicts.warning}


def drawn(task: Task, asked: list, folder: pathlib.Path, settings: dict) -> dict:
    """Counts of a tree, with the files that its scorer reads, and its scores where it can be scored
    here."""
    tree = folder / TREE
    for name, content in task.module.beside(asked, tree).items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        files.write(tree / name, content)
    side = settings["model"]["native_size"]
    wrong = trees.faults(task.module, tree, asked, size_of_pictures(settings))
    trees.refuse(tree, "not what the scorer needs", wrong)
    made = sum(len(item.files) for item in asked)
    counts = {"asked": made, "made": made, "missing": 0, "prompts": len(asked)}
    right = {}
    if hasattr(task.module, "grade"):
        results = folder / "results.jsonl"
        graded = task.module.grade(tree, asked)
        files.write(results, graded)
        right = correct(graded)
    sheet(task.module, asked, tree, right).save(folder / "sheet.png")
    if not right:
        command = task.module.command(tree, side, task.form)
        return {"counts": counts, "scores": {}, "scorer": "not run yet", "command": command}
    found = of_results(task, asked, results)
    if hasattr(task.module, "fixed_scores"):
        for name, value in task.module.fixed_scores(tree, asked).items():
            found["scores"][name] = {"value": value, "interval": None, "chance": None, "of": made}
    return {"counts": counts, **found, "scorer": "janus_jax"}


def of_results(task: Task, asked: list, path: pathlib.Path) -> dict:
    """Scores by what a scorer wrote."""
    units = task.module.results(path, asked, task.form)
    found = {"scores": scored(task, units, asked)}
    sums = total(units)
    alone = [trees.of_picture(sums, k) for k in range(task.each)] if task.each > 1 else []
    if alone and all(alone):
        each = [task.module.scores(one, task.form) for one in alone]
        found["by_picture"] = {
            name: over_seeds([one[name] for one in each if name in one]) for name in each[0]
        }
    return found


def scored(task: Task, units: list[dict], asked: list) -> dict[str, dict]:
    """Score -> its value, its interval, and its chance level where the benchmark knows one."""
    scores = lambda sums: task.module.scores(sums, task.form)
    found = scores(total(units))
    between = bootstrap(units, scores)
    chance = getattr(task.module, "chance", lambda asked: {})(asked)
    of = Counter(one.category for one in asked)
    return {
        name: {
            "value": value,
            "interval": between.get(name),
            "chance": chance.get(name),
            "of": len(asked) if name == task.module.HEADLINE else of.get(name),
        }
        for name, value in found.items()
    }
