"""Data sets from flags or a config."""

import pytest
from support.planted import start

from janus_jax.config.schema import Dataset
from janus_jax.data.tools import command


@pytest.mark.processes
def test_flags_that_contradict_each_other_end_with_code_2():
    def parsed(*given):
        from absl import flags

        values = flags.FlagValues()
        command.define_flags(values)
        values(["test", *given])
        return values

    lines, experiment = command.chosen(
        parsed("--kind=text", "--path=a.txt", "--prompt=a", "--prompt=b"), {}
    )
    assert lines == {"data": Dataset("text", "a.txt", prompt=("a", "b"))} and experiment is None
    for given, why in (
        (("--kind=text",), "--path"), (("--dataset=a",), "--config"),
        (("--config=configs/stage1.py", "--path=a"), "--path: a config describes"),
    ):  # fmt: skip
        with pytest.raises(command.CommandError, match=why):
            command.chosen(parsed(*given), {})
    done = start("check", "--kind=txt", "--path=a")
    assert "UsageError: flag --kind=txt" in done.communicate()[1] and done.returncode == 2
