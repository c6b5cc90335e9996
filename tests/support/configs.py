"""The quick start's config with overrides, and what it is refused with."""

import pathlib

import pytest

import janus_jax
from janus_jax.config import read as read_
from janus_jax.config import schema as experiment
from janus_jax.training import check_config, preflight_weights

ROOT = pathlib.Path(janus_jax.__file__).parent
QUICKSTART = str(ROOT.parent / "configs" / "quickstart.py")


# Where a config has no target of its own: one to try it with.
CHOSEN = {"ablations.py": "B", "miniature.py": "A", "vq_emoji.py": "gan"}


def shipped() -> list[str]:
    """The paths of all shipped configs, of those that must have a target with one."""
    paths = sorted((ROOT.parent / "configs").glob("*.py"))
    return [f"{path}:{CHOSEN[path.name]}" if path.name in CHOSEN else str(path) for path in paths]


def checked(overrides=None, devices=8, files=False, path=QUICKSTART):
    """The quick start's config with overrides, read and checked as main does."""
    built, wrong = read_.read(path, overrides)
    if files:
        wrong = [*wrong, *preflight_weights.file_problems(built, built.stages)]
    return check_config.check(built, devices, known=wrong)


def refusal(overrides=None, **options):
    """The problems that a config is refused with, one line each."""
    with pytest.raises(experiment.ConfigError) as error:
        checked(overrides, **options)
    title, *lines = str(error.value).split("\n")
    assert title == f"{len(lines)} problem(s) in the config:"
    return [line.removeprefix("  - ") for line in lines]
