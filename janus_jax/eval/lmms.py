"""A plug-in of lmms-eval: `lmms-eval --model janus_jax --model_args model=DIR --tasks pope`

Read from lmms-eval 0.7.3 (lmms_eval/models/registry_v2.py, api/model.py, api/task.py,
models/simple/bagel.py): it finds the entry point `lmms_eval.models` of pyproject.toml, which gives a
manifest, and the manifest names a subclass of `lmms` that takes chat messages. A request's arguments
are (context, doc_to_messages, generation options, number of the document, task, split). An answer is
a string; a drawing is the string {"text": "", "images": ["/where/it/lies.png"]}.

lmms_eval is imported when it asks, and torch by it alone.
"""

import collections
import functools
import json
import logging
import os
import pathlib
import re
import typing
from collections.abc import Mapping

from janus_jax.common import files
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.progress import Progress
from janus_jax.common.text import listed, near, short

MODES = ("understanding", "generate")  # as BAGEL's are called there
KNOWN = ("model", "mode", "dtype", "cfg_scale", "temperature", "seed", "out")
OPTIONS = {"max_new_tokens", "temperature", "top_p", "do_sample", "num_beams", "until"}  # of tasks
_log = logging.getLogger(__name__)


def manifest():
    """What the entry point gives."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("janus_jax", chat_class_path=f"{__name__}.JanusJax")


def __getattr__(name: str):
    if name != "JanusJax":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _model_class()


@functools.cache
def _model_class():
    from lmms_eval.api.model import lmms

    class JanusJax(Adapter, lmms):
        is_simple = False

    return JanusJax


class Adapter:
    """Janus as lmms-eval asks it."""

    def __init__(
        self, model: str = "", mode: str = "understanding", dtype: str | None = None,
        cfg_scale: float | None = None, temperature: float | None = None, seed: int = 0,
        out: str = "", batch_size=1, max_batch_size=None, device: str | None = None, **others,
    ):  # fmt: skip
        """What `--model_args` may say, and what the harness adds.

        Args:
            model: what `load` takes: a weights directory or a hub id.
            mode: "understanding" answers, "generate" draws. A request does not say which it is.
            dtype: of `load`.
            cfg_scale, temperature: of drawings; by default what the weights say. How answers are
                drawn is the task's to say.
            seed: of drawings and of answers that are sampled.
            out: the folder of drawings; needed where mode is "generate".
            batch_size: requests at once, from `--batch_size`.
            max_batch_size: for batch sizes that the harness finds itself; of no use here.
            device: JAX chooses it.
        """
        super().__init__()
        self.batch = _whole(batch_size)
        problems = [f"{name}: not known{near(name, KNOWN)}" for name in others]
        if not model:
            problems.append("model: missing; --model_args model=DIR names the weights")
        if mode not in MODES:
            problems.append(f"mode={mode}: must be one of {', '.join(MODES)}")
        if mode == "generate" and not out:
            problems.append("out: missing; --model_args out=DIR says where drawings go")
        if not self.batch:
            problems.append(f"--batch_size={batch_size}: must be a whole number, at least 1")
        if device:
            problems.append(f"device={device}: JAX chooses it; set JAX_PLATFORMS=cpu for the CPU")
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            problems.append("WORLD_SIZE is above 1: run one process, without accelerate's launcher")
        if problems:
            raise UsageError(f"--model_args of janus_jax:{listed(problems)}")
        from janus_jax.weights.load import load

        self.model, self.processor = load(model, dtype)
        self.mode = mode
        self.guidance = dict(cfg_scale=cfg_scale, temperature=temperature)
        self.seed = seed
        self.out = pathlib.Path(out).expanduser().absolute()

    def generate_until(self, requests: list) -> list[str]:
        """An answer, or where a drawing lies, for each request, in their order. Raises UsageError
        that names the task and the document of what cannot be used."""
        draws = self.mode == "generate"
        jobs = _jobs(requests)
        ignored = {name for request in requests for name in request.args[2]} - OPTIONS
        if ignored and not draws:
            _log.warning("no use for these options of the task: %s", ", ".join(sorted(ignored)))
        results = [""] * len(jobs)
        with Progress("lmms-eval", len(jobs), "requests") as progress:
            for batch in _batches(jobs, self.batch, draws):
                for job, result in zip(batch, (self._drawn if draws else self._answered)(batch)):
                    results[job.position] = result
                progress(len(batch))
        return results

    def _answered(self, batch: list) -> list[str]:
        from janus_jax.sample.understand import understand_batch

        chats = [self._chat(job.request) for job in batch]
        if not any(map(_pictures, chats)):
            _say_once(
                f"{batch[0].request.args[4]}: its requests show no picture; a task whose answers are "
                f"drawings needs --model_args mode=generate"
            )
        found = understand_batch(
            self.model, self.processor, self._full(chats), return_exceptions=True,
            seed=self._full([self.seed + job.repeat for job in batch]),
            **_sampling(batch[0].request.args[2]),
        )  # fmt: skip
        return _usable(batch, found)

    def _drawn(self, batch: list) -> list[str]:
        from janus_jax.sample.generate import generate

        prompts = _usable(batch, [_prompt(self._chat(job.request)) for job in batch])
        drawn = generate(
            self.model, self.processor, self._full(prompts), return_exceptions=True,
            seed=self.seed, first=batch[0].repeat, **self.guidance,
        )  # fmt: skip
        return [self._saved(job, picture) for job, picture in zip(batch, _usable(batch, drawn))]

    def _full(self, rows: list) -> list:
        """As many rows as a batch has, so that one shape is compiled."""
        return rows + rows[-1:] * (self.batch - len(rows))

    def _saved(self, job, picture) -> str:
        _, _, _, document, task, _ = job.request.args
        folder = self.out / re.sub(r"[^\w.-]", "_", str(task))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{document}-{job.repeat}.png"
        files.write(path, lambda file: picture.save(file, "PNG"))
        return json.dumps({"text": "", "images": [str(path)]})

    def _chat(self, request) -> list[dict]:
        """The messages of a request, in our form."""
        _, doc_to_messages, _, document, task, split = request.args
        messages = doc_to_messages(self.task_dict[task][split][document])
        return [{**message, "content": _content(message["content"])} for message in messages]

    def loglikelihood(self, requests):
        """Raises NotImplementedError."""
        raise NotImplementedError(
            "janus_jax answers and draws, and gives lmms-eval no log-probabilities: tasks of "
            "output_type loglikelihood and multiple_choice cannot be run; choose the variant of the "
            "task whose output_type is generate_until"
        )

    def generate_until_multi_round(self, requests):
        """Raises NotImplementedError."""
        raise NotImplementedError(
            "janus_jax takes no tasks of several rounds (output_type generate_until_multi_round); "
            "choose one whose output_type is generate_until"
        )


class Job(typing.NamedTuple):
    """position: of the result. repeat: how often the same request came before."""

    position: int
    request: typing.Any
    repeat: int


def _jobs(requests: list) -> list[Job]:
    count = collections.Counter()
    jobs = []
    for position, request in enumerate(requests):
        name = repr(request.args[3:])  # document, task, split
        jobs.append(Job(position, request, count[name]))
        count[name] += 1
    return jobs


def _batches(jobs: list[Job], size: int, draws: bool):
    """Requests that can be served at once, those of like length together."""
    groups = collections.defaultdict(list)
    for job in jobs:
        options = job.repeat if draws else sorted(_sampling(job.request.args[2]).items())
        groups[repr(options)].append(job)
    for group in groups.values():
        group.sort(key=lambda job: len(str(job.request.args[0])))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _sampling(options: Mapping) -> dict:
    """A task's generation options as `understand` takes them; do_sample false is greedy. Raises
    UsageError for beams."""
    if options.get("num_beams", 1) not in (1, None):
        raise UsageError(f"num_beams={options['num_beams']}: janus_jax has no beam search; take 1")
    sampled = options.get("do_sample")
    heat = options.get("temperature")
    if heat is None:
        heat = 1.0 if sampled else 0.0
    heat = 0.0 if sampled is False else heat
    until = options.get("until") or ()
    until = (until,) if isinstance(until, str) else until
    return {
        "max_new_tokens": options.get("max_new_tokens") or 512,
        "temperature": heat,
        "top_p": (options.get("top_p") or 1.0) if heat else 1.0,
        "stop": tuple(text for text in until if text),
    }


def _content(content):
    """A message's content: the harness's parts have what they show under "url", a picture or a
    path. Kinds that Janus does not take are left to `understand` to refuse."""
    if isinstance(content, str):
        return content
    return [
        {"type": "image", "image": part["url"]} if part["type"] == "image" else part
        for part in content
    ]


def _pictures(chat: list[dict]) -> int:
    parts = (
        p for message in chat if not isinstance(message["content"], str) for p in message["content"]
    )
    return sum(part["type"] == "image" for part in parts)


def _prompt(chat: list[dict]):
    """The words to draw, or the ValueError that says why there are none."""
    if len(chat) != 1 or _pictures(chat):
        return ValueError(
            "Janus draws from the words of one message, and here are "
            f"{len(chat)} messages with {_pictures(chat)} pictures; mode=understanding answers them"
        )
    content = chat[0]["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content)


def _usable(batch: list[Job], found: list) -> list:
    """What was found for a batch. Raises UsageError for what cannot be used: a harness would count
    an empty answer as wrong and say nothing."""
    found = found[: len(batch)]
    wrong = [
        f"task {job.request.args[4]}, document {job.request.args[3]}: {short(x, 500)}"
        for job, x in zip(batch, found)
        if isinstance(x, ValueError)
    ]
    if wrong:
        raise UsageError(f"requests that cannot be used:{listed(wrong)}")
    return found


@functools.cache
def _say_once(text: str):
    _log.warning("%s", text)


def _whole(x) -> int:
    """A whole number from 1 on; 0 for anything else, as "auto"."""
    return int(x) if str(x).isdecimal() else 0
