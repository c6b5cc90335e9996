"""benchmarks/device.py: its list of parts, and what is left when one of them dies."""

import ast
import json
import sys
import time

import pytest
from support.paths import BENCHMARKS


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def functions(script: str) -> set[str]:
    """The keys that a script of parts hands to `device_report.child`."""
    calls = [
        x for x in ast.walk(ast.parse((BENCHMARKS / script).read_text())) if isinstance(x, ast.Call)
    ]
    (call,) = (x for x in calls if ast.unparse(x.func) == "device_report.child")
    return {key.value for key in call.args[0].keys}


def test_every_part_is_a_function_of_a_script_and_comes_behind_what_it_needs():
    import device

    names = [part.name for part in device.PARTS]
    assert len(set(names)) == len(names)
    for i, part in enumerate(device.PARTS):
        assert part.function in functions(part.script), part.name
        assert not part.needs or part.needs in names[:i], part.name
        assert device.LEAST < part.limit <= device.SECONDS, part.name


def test_a_part_brings_along_what_it_needs_and_an_unknown_one_is_refused():
    import device

    found = [part.name for part in device.chosen("draw, transformers; ids")]
    assert found == ["machine", "checkpoint", "ids", "draw, transformers"]
    with pytest.raises(SystemExit, match="there is no 'idz'; known: machine; "):
        device.chosen("idz")


def test_a_cut_line_is_passed_over_and_a_row_told_again_replaces_the_first(tmp_path):
    import device_report

    lines = device_report.Lines(tmp_path)
    lines.add("it", row="a", right=False, values={"x": 1})
    lines.add("it", row="a", right=True, values={"x": 2})
    with open(lines.path, "a") as file:
        file.write('{"part": "it", "row": "b", "val')
    assert lines.rows("it") == {"a": {"x": 2}}
    assert [x["right"] for x in device_report.last_rows(lines.read())] == [True]


@pytest.mark.processes
def test_a_part_that_dies_or_overruns_is_named_and_the_others_go_on(tmp_path):
    import device
    import device_report

    tell = "import json; line = {'part': NAME, 'row': 'half', 'right': RIGHT, 'values': {'n': 7}}; "
    tell += "print(json.dumps(line), file=open(OUT, 'a'))"
    say = lambda name, right: (
        tell.replace("NAME", repr(name))
        .replace("RIGHT", right)
        .replace("OUT", repr(str(tmp_path / "device.jsonl")))
    )
    programs = {
        "good": say("good", "True"),
        "segfault": f"import os; {say('segfault', 'True')}; os.kill(os.getpid(), 11)",
        "raises": "raise ValueError('no kernel | here')",
        "slow": f"import subprocess, time; {say('slow', 'None')}; subprocess.Popen(['sleep', '60']); time.sleep(60)",
        "wrong": say("wrong", "False"),
    }  # fmt: skip
    make = lambda name, limit=20, **more: device.Part(
        name, "", "", "", f"What {name} finds.", limit, **more
    )
    parts = (
        make("beside", beside="cpu"), make("good", needs="beside"), make("segfault"), make("raises"),
        make("after", needs="segfault"), make("slow", 1), make("elsewhere", on=("gpu",)), make("wrong"),
    )  # fmt: skip
    command = lambda part: [sys.executable, "-S", "-c", programs.get(part.name, "")]
    begin = time.monotonic()
    run = device.Run(parts, command, tmp_path, 60, "the command")
    assert not run.go() and time.monotonic() - begin < 20
    states = device_report.states(run.lines.read())
    assert (
        states["beside"]["state"] == states["good"]["state"] == states["wrong"]["state"] == "done"
    )
    assert states["segfault"]["state"].startswith("killed by SIGSEGV")
    assert states["raises"]["state"] == "failed (1): ValueError: no kernel | here"
    assert states["slow"]["state"] == "killed at its limit of 1 s"
    assert states["after"]["state"].startswith("not begun: it needs segfault (killed by SIGSEGV")
    assert states["elsewhere"]["state"] == "not for None"
    text = (tmp_path / "device.md").read_text()
    assert (
        "| slow | killed at its limit of 1 s |" in text and "ValueError: no kernel / here" in text
    )
    assert text.count("| half | 7 |") == 4 and "| half | 7 | NO |" in text
    assert run.lines.rows("segfault") == {"half": {"n": 7}}
    assert all(json.loads(line) for line in run.lines.path.read_text().splitlines())
    alone = [x for x in run.lines.read() if x["part"] == "good"]
    assert device_report.all_well(alone, parts[1:2]) and not device_report.all_well(
        alone, parts[1:3]
    )


def test_wheels_are_what_we_ask_for_less_what_is_there():
    import device_wheels

    found = device_wheels.missing()
    assert {"grain", "ml-collections", "tensorboardx", "pillow"} <= found.keys()
    assert not {"jax", "jaxlib", "numpy", "scipy", "torch", "tokenizers"} & found.keys()
