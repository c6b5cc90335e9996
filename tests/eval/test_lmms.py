"""The plug-in of lmms-eval: over a stub of its modules, and in the harness itself where it is
installed."""

import abc
import importlib
import json
import logging
import pathlib
import sys
import tomllib
import types

import numpy as np
import pytest
from PIL import Image
from support import lmms_tasks, paths, sampling, tiny
from support.mesh import on_mesh

from janus_jax import generate
from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy import shapes
from janus_jax.eval import lmms
from janus_jax.sample.understand import understand_batch
from janus_jax.weights import load

GREEDY = {"max_new_tokens": 6, "temperature": 0, "top_p": 0, "num_beams": 1, "do_sample": False}


class Lmms(abc.ABC):  # noqa: B024
    """What api/model.py of lmms-eval 0.7.3 asks of a model."""

    is_simple = True

    def __init__(self):
        self.task_dict = {}

    loglikelihood = abc.abstractmethod(lambda self, requests: None)
    generate_until = abc.abstractmethod(lambda self, requests: None)
    generate_until_multi_round = abc.abstractmethod(lambda self, requests: None)

    @classmethod
    def create_from_arg_string(cls, text: str, more: dict):
        args = dict(pair.split("=", 1) for pair in text.split(","))
        return cls(**args, **{name: x for name, x in more.items() if x is not None})


class ModelManifest:
    def __init__(self, model_id, simple_class_path=None, chat_class_path=None, aliases=()):
        self.model_id = model_id
        self.path = chat_class_path


@pytest.fixture
def harness(monkeypatch):
    """The model class as the registry finds it: entry point, manifest, class path."""
    tree = {
        "lmms_eval": {}, "lmms_eval.api": {}, "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.models": {}, "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }  # fmt: skip
    for name, content in tree.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    lmms._model_class.cache_clear()
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    module, _, payload = project["entry-points"]["lmms_eval.models"]["janus_jax"].partition(":")
    manifest = getattr(importlib.import_module(module), payload)()
    assert manifest.model_id == "janus_jax"
    module, name = manifest.path.rsplit(".", 1)
    found = getattr(importlib.import_module(module), name)
    assert issubclass(found, Lmms) and found.is_simple is False
    yield found
    lmms._model_class.cache_clear()


@pytest.fixture(scope="module")
def loaded():
    with on_mesh():
        yield sampling.make(), tiny.processor()


@pytest.fixture
def asked(harness, monkeypatch, loaded):
    """(make(args, batch), model, processor): the plug-in over a tiny model."""
    model, processor = loaded
    monkeypatch.setattr(load, "load", lambda path, dtype: (model, processor))
    more = {"max_batch_size": None, "device": None}

    def make(args: str = "model=tiny", batch="2"):
        return harness.create_from_arg_string(args, {"batch_size": batch, **more})

    return make, model, processor


def understand(model, processor, chat, **options) -> str:
    """Its answer in the company of itself, a shape that is compiled already."""
    return understand_batch(model, processor, [chat, chat], **options)[0]


def request(plugin, task: str, document: int, text: str, *pictures, **options):
    """As ConfigurableMessagesTask.construct_requests of api/task.py makes it."""
    content = [{"type": "image", "url": picture} for picture in pictures]
    content.append({"type": "text", "text": text})
    documents = plugin.task_dict.setdefault(task, {}).setdefault("test", {})
    documents[document] = [{"role": "user", "content": content}]
    options = GREEDY | options
    args = (text, lambda doc: doc, options, document, task, "test")
    return types.SimpleNamespace(args=args)


def test_answers_come_in_the_order_of_requests_and_are_those_of_understand(asked):
    make, model, processor = asked
    plugin = make()
    words = ["which one is blue?", sampling.PROMPTS[1], "is it red?", "a cross?", "how many?"]
    pictures = [sampling.picture(k) for k in range(5)]
    requests = [request(plugin, "t", k, *pair) for k, pair in enumerate(zip(words, pictures))]
    requests[2].args[2]["max_new_tokens"] = 3
    got = plugin.generate_until(requests)
    want = [
        understand(model, processor, sampling.said(text, picture), max_new_tokens=n)
        for text, picture, n in zip(words, pictures, (6, 6, 3, 6, 6))
    ]
    assert got == want and len(set(want)) == 5


def test_options_of_a_task_are_understands(asked):
    make, model, processor = asked
    plugin = make()
    plugin.seed = 7
    hot = dict(do_sample=True, temperature=1.0, top_p=0.9)
    same = request(plugin, "t", 0, "what?", sampling.picture(0), **hot)
    first, second = plugin.generate_until([same, same])  # as `repeats` asks
    want = dict(max_new_tokens=6, temperature=1.0, top_p=0.9)
    chat = sampling.said("what?", sampling.picture(0))
    assert first == understand(model, processor, chat, seed=7, **want)
    assert second == understand(model, processor, chat, seed=8, **want) != first
    stop = first[2:4]
    (stopped,) = plugin.generate_until(
        [request(plugin, "t", 1, "what?", sampling.picture(0), until=[stop, ""], **hot)]
    )
    assert stopped == first.partition(stop)[0].strip()
    with pytest.raises(UsageError, match="num_beams=3: janus_jax has no beam search"):
        plugin.generate_until([request(plugin, "t", 1, "what?", num_beams=3)])


def test_options_and_tasks_of_no_use_are_said(asked, caplog):
    make, _, _ = asked
    plugin = make()
    with caplog.at_level(logging.WARNING):
        plugin.generate_until(
            [request(plugin, "words alone", 0, "what?", image_aspect_ratio="pad")]
        )
    said = " | ".join(record.getMessage() for record in caplog.records)
    assert "no use for these options of the task: image_aspect_ratio" in said
    assert "words alone: its requests show no picture; a task whose answers are drawings" in said


def test_drawings_are_files_and_those_of_generate(asked, tmp_path):
    make, model, processor = asked
    plugin = make(f"model=tiny,mode=generate,out={tmp_path / 'out'}")
    requests = [request(plugin, "WISE/x", k, text) for k, text in enumerate(sampling.PROMPTS[:3])]
    got = [json.loads(answer) for answer in plugin.generate_until([*requests, requests[0]])]
    assert all(answer["text"] == "" for answer in got)
    files = [pathlib.Path(answer["images"][0]) for answer in got]
    assert [file.relative_to(tmp_path / "out").as_posix() for file in files] == [
        "WISE_x/0-0.png", "WISE_x/1-0.png", "WISE_x/2-0.png", "WISE_x/0-1.png",
    ]  # fmt: skip
    alone = lambda k, first: generate(model, processor, [sampling.PROMPTS[k]] * 2, first=first)[0]
    for file, picture in zip(files, [alone(0, 0), alone(1, 0), alone(2, 0), alone(0, 1)]):
        assert np.array_equal(Image.open(file), picture)


def test_what_a_harness_would_count_as_a_wrong_answer_ends_the_run(asked, tmp_path):
    make, _, _ = asked
    plugin = make()
    bad = [request(plugin, "t", 4, "what?", "no such.png"), request(plugin, "t", 5, "what?")]
    with pytest.raises(UsageError, match=r"task t, document 4: .*no such\.png"):
        plugin.generate_until(bad)
    film = request(plugin, "t", 6, "what?")
    plugin.task_dict["t"]["test"][6][0]["content"].append({"type": "video", "url": "a.mp4"})
    with pytest.raises(UsageError, match=r"task t, document 6: .*video"):
        plugin.generate_until([film])
    drawing = make(f"model=tiny,mode=generate,out={tmp_path}")
    with pytest.raises(UsageError, match=r"document 4: Janus draws from the words of one message"):
        drawing.generate_until([request(drawing, "t", 4, "more blue", sampling.picture(0))])
    for method in (plugin.loglikelihood, plugin.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="output_type"):
            method([])


def test_all_faults_of_the_models_arguments_are_told_at_once(asked, monkeypatch):
    make, _, _ = asked
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError) as raised:
        make("mode=generate,cfgscale=3,device=cuda:0", "auto")
    told = str(raised.value)
    for part in (
        "cfgscale: not known; did you mean 'cfg_scale'?", "model: missing", "out: missing",
        "--batch_size=auto: must be a whole number", "device=cuda:0: JAX chooses it", "WORLD_SIZE",
    ):  # fmt: skip
        assert part in told
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        lmms.Other  # noqa: B018


@pytest.mark.slow
def test_the_harness_itself_asks_and_scores(tmp_path, monkeypatch, loaded):
    """lmms-eval over local files: what it says was answered is what `understand` answers."""
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed (CONTRIBUTING.md)")
    import datasets
    from lmms_eval import evaluator, tasks

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    lmms_tasks.make(tmp_path / "tasks", per_answer=1, per_task=1)
    model, processor = loaded
    monkeypatch.setattr(load, "load", lambda path, dtype: (model, processor))

    def run(task: str, args: str):
        return evaluator.simple_evaluate(
            model="janus_jax", model_args=args, tasks=[task], batch_size=2, log_samples=True,
            task_manager=tasks.TaskManager(include_path=str(tmp_path / "tasks"), model_name="janus_jax"),
        )  # fmt: skip

    found = run("shapes_answers", "model=tiny")
    asked = shapes.evaluation_questions(1, 1000)
    samples = {x["doc_id"]: x["resps"][0][0] for x in found["samples"]["shapes_answers"]}
    want = [
        understand(model, processor, sampling.said(q, Image.fromarray(p)), max_new_tokens=8)
        for _, p, q, _ in asked
    ]
    assert [samples[k] for k in range(len(asked))] == want
    right = np.mean([answer == a for answer, (*_, a) in zip(want, asked)])
    assert found["results"]["shapes_answers"]["exact_match,none"] == pytest.approx(right)
    found = run("shapes_draw", f"model=tiny,mode=generate,out={tmp_path / 'out'}")
    assert len(list((tmp_path / "out" / "shapes_draw").iterdir())) == len(shapes.TASKS)
    assert "drawn_right,none" in found["results"]["shapes_draw"]
