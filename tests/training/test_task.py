"""Every task defines what the loop asks of one."""

import dataclasses
import functools
import inspect

import jax
import pytest
from support.configs import checked
from support.mesh import on_mesh
from support.paths import CONFIGS

from janus_jax.config.read import read
from janus_jax.model import sharding as sh
from janus_jax.training import task
from janus_jax.training.stage_plan import StagePlan

FUNCTIONS = {
    name: f for name, f in vars(task.Task).items() if inspect.isfunction(f) and name[0] != "_"
}


def test_the_files_of_the_tasks_are_their_names():
    assert {"janus", "vq"} <= set(task.NAMES)
    assert {"problems", "init_state", "step", "batches", "export"} <= FUNCTIONS.keys()


@pytest.mark.parametrize("name", task.NAMES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_task_defines_every_function_with_its_parameters(name, function):
    ours = inspect.signature(getattr(task.load(name), function))
    assert list(ours.parameters) == list(inspect.signature(FUNCTIONS[function]).parameters)


@pytest.mark.parametrize("name", task.NAMES)
def test_the_options_of_a_task_are_numbers_and_words_with_defaults(name):
    options = task.load(name).OPTIONS.values()
    assert all(isinstance(value, str) or value >= 0 for value in options)


def test_a_stages_options_stand_above_the_defaults_of_its_task():
    stage = dataclasses.replace(checked().stages["stage0"], options={"entropy": 0.5})
    defaults = task.load("vq").OPTIONS
    assert task.options(stage) == {**defaults, "entropy": 0.5} != defaults


@pytest.mark.parametrize("stage", checked().stages)
def test_a_stages_traced_state_is_that_of_its_task(stage):
    plan = StagePlan.of(checked(), stage)
    facts = lambda state: jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), state)
    with sh.traced_on(1, 4, 2, 8):
        init = functools.partial(
            plan.task.init_state,
            model=plan.model,
            tx=plan.tx,
            trainable=plan.stage.trainable,
            without=plan.without,
        )
        asked = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))
        assert facts(plan.traced_state()) == facts(asked)


@pytest.mark.parametrize("name", task.NAMES)
def test_a_step_takes_the_batch_that_its_task_tells(name):
    packs = task.load(name).PACKS
    as_lora = {"stages.stage1.task": "lora"} if name == "lora" else {}
    if name in ("dpo_lora", "grpo_lora"):
        stage = f"stages.{name.removesuffix('_lora')}"
        as_lora = {f"{stage}.task": name, f"{stage}.trainable": "()"}
    path = f"{CONFIGS}/miniature.py:{'A' if packs else name}"
    of_pairs = "quickstart_dpo.py"
    own = {
        "kl": "quickstart_diffusion.py", "grpo": "quickstart_grpo.py", "grpo_lora": "quickstart_grpo.py",
        "dpo": of_pairs, "dpo_lora": of_pairs,
    }  # fmt: skip
    path = f"{CONFIGS}/{own[name]}" if name in own else path
    experiment, _ = read(path, as_lora)
    plan = StagePlan.of(experiment, next(iter(experiment.stages)))
    assert plan.stage.task == name
    with on_mesh(1, 8, 1):
        _, metrics = jax.eval_shape(
            plan.task.step(plan), plan.state(), plan.task.batch_shapes(plan)
        )
    assert (metrics["loss"].shape, metrics["loss"].dtype) == ((), "float32")
