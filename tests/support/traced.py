"""Steps that are traced once, in tests that run stages again and again."""

import contextlib

import pytest


@contextlib.contextmanager
def once(task):
    """Stages of a task (a module) share their step and their validation, each of which is traced for
    seconds, where they are alike in what these read: not in their data, what they begin with and
    probes beside the step."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("step", "validate"):
            patch.setattr(task, name, _shared(getattr(task, name)))
        yield


def _shared(make):
    made = {}

    def shared(plan):
        stage = plan.stage
        options = {name: x for name, x in plan.options.items() if name != "probe_every"}
        key = plan.model, stage.trainable, stage.steps, stage.optim, stage.accumulate, options
        made[repr(key)] = made.get(repr(key)) or make(plan)
        return made[repr(key)]

    return shared
