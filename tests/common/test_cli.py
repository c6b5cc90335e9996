"""The frame of the commands: flags, --help, errors and their codes, and the command of commands."""

import ast
import subprocess
import sys
import time

import pytest
from absl import flags
from support.paths import ROOT

from janus_jax import main
from janus_jax.common import cli, exit_codes
from janus_jax.common.cli import split_flags


def define(into):
    cli.Definer(into).path("path", None, "Where from.", required=True)
    flags.DEFINE_enum("kind", "text", ("text", "image"), "Of what.", flag_values=into)
    flags.DEFINE_multi_string("prompt", [], "To ask.", flag_values=into)
    flags.DEFINE_integer("records", 5, "How many.", lower_bound=0, flag_values=into)
    flags.DEFINE_bool("deep", False, "All of it.", flag_values=into)


COMMAND = cli.Command("do it", "Does it.", "do it --path=a", define, lambda: ["a.  b=NUMBER (1)"])


def run(main, *words) -> int:
    return cli.run(COMMAND, main, list(words))


def test_a_command_gets_its_flags_and_the_overrides_of_its_config():
    def work(f, overrides):
        assert (f.path, f.prompt, f.records, f.deep) == ("x", ["a", "b"], 5, True)
        assert overrides == {"a.b": "2"}

    given = ["--path=x", "--prompt=a", "--prompt=b", "--deep", "--config.a.b=2"]
    given += ["--path=x", "--deep", "--config.a.b=2"]  # said again is nothing else
    assert run(work, *given) == 0
    assert run(lambda *_: 3, "--path=x") == 3


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "Flag --path must have a value"),
        (["--path=a", "--kind=txt"], "--kind=txt: value should be one of <text|image>"),
        (["--path=a", "--pth=a"], "there is no flag --pth; did you mean 'path'?"),
        (["--path=a", "--records=-1"], "--records=-1"),
        (["--path=a", "more"], "unknown arguments: more"),
        (
            ["--prompt=a", "red", "circle", "--path=a"],
            "arguments: red circle; no flag took them: quote",
        ),
        (
            ["--path=a", "config.a=7"],
            "arguments: config.a=7; a flag begins with two plain dashes: --config.a=",
        ),
        (["--path=a", "\N{EN DASH}records=7"], "two plain dashes: --records="),
        (["--path=a", "--" + "z" * 3000], "there is no flag --zz"),
        (["--path=a", "--records=" + "z" * 3000], "--records=zz"),
        (["--path=" + "z" * 3000], "too long for a path"),
        (["--path=$NO_SUCH/a"], "the variable NO_SUCH is not set"),
        (["--path=~nobody-here/a"], "no home directory of ~nobody-here is known"),
        (["--path=a", "--config.a"], "--config.a has no value"),
        (["--path="], "--path=: is empty"),
        (["--path=a", "--path=b"], "--path is given twice, a and b; give it once"),
        (["--path=a", "--records=1", "--records=2"], "--records is given twice, 1 and 2"),
        (["--path=a", "--deep", "--nodeep"], "--deep is given twice, True and False"),
    ],
)
def test_flags_that_are_refused_end_with_2_and_one_line(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        run(pytest.fail, *words)
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("UsageError: ") and said in told and "--help lists the flags" in told
    assert len(told) < 700


def test_help_lists_every_flag_with_type_default_and_an_example(capsys):
    with pytest.raises(SystemExit) as end:
        run(pytest.fail, "--nonsense", "--help")
    assert end.value.code == 0
    told = capsys.readouterr().out
    for words in (
        "Does it.", "--path=TEXT\n      Where from. Required.", "--kind=text|image\n      Of what. Default: text.",
        "--prompt=TEXT\n      To ask. May be repeated.", "--records=NUMBER\n      How many. Default: 5.",
        "--[no]deep\n      All of it. Default: false.", "--config.FIELD=VALUE", "  a.  b=NUMBER (1)",
        "example:\n  do it --path=a",
    ):  # fmt: skip
        assert words in told, told


class Own(Exception):
    exit_code = 74


@pytest.mark.parametrize(
    "error, code, trace",
    [
        (exit_codes.UsageError("x"), 2, False),
        (ValueError("x"), 2, False),
        (FileNotFoundError("x"), 2, False),
        (OSError("x"), 1, False),
        (ImportError("x"), 1, False),
        (Own("x"), 74, False),
        (RuntimeError("x"), 1, True),
    ],
    ids=repr,
)
def test_what_a_user_can_mend_is_one_line_and_a_fault_of_the_program_a_trace(
    error, code, trace, capsys
):
    def work(*_):
        raise error

    assert run(work, "--path=a") == code
    told = capsys.readouterr().err
    assert ("Traceback" in told) == trace and f"{type(error).__name__}: x" in told


def test_ctrl_c_ends_with_130(capsys):
    def work(*_):
        raise KeyboardInterrupt

    assert run(work, "--path=a") == 130
    assert capsys.readouterr().err == "\nstopped\n"


# janus-jax


def test_help_that_nobody_reads_to_its_end_is_no_fault():
    words = [sys.executable, "-m", "janus_jax.data", "--help"]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 0


def janus_jax(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["janus-jax", *words])
    return main.cli()


def test_the_command_lists_its_subcommands_and_their_examples(monkeypatch, capsys):
    assert janus_jax(monkeypatch, "--help") == 0
    told = capsys.readouterr().out
    for name in ["train", "plan", "generate", "understand", "chat", "convert", "data", "eval"]:
        assert f"\n  {name} " in told and f"janus-jax {name} --" in told.replace(
            "data check", "data"
        )
    assert janus_jax(monkeypatch) == 2  # nothing to do
    assert janus_jax(monkeypatch, "--version") == 0
    assert "janus_jax" in capsys.readouterr().out


def test_an_unknown_subcommand_ends_with_2_and_the_nearest_name(monkeypatch, capsys):
    assert janus_jax(monkeypatch, "genrate") == 2
    assert "no command 'genrate'; did you mean 'generate'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "plan", "generate", "understand", "chat", "convert"])
def test_a_subcommand_has_help_with_an_example(monkeypatch, capsys, name):
    with pytest.raises(SystemExit) as end:
        janus_jax(monkeypatch, name, "--help")
    assert end.value.code == 0
    told = capsys.readouterr().out
    command = told.split("usage: ")[1].split(" [--flag=value")[0]
    assert f"example:\n  {command} --" in told and "Required." in told
    with pytest.raises(SystemExit) as end:
        janus_jax(monkeypatch, name, "--nonsense=1")
    assert end.value.code == 2 and "nonsense" in capsys.readouterr().err


@pytest.mark.processes
def test_the_first_line_comes_at_once():
    """Before JAX, the config's schema or absl are imported."""
    program = (
        "import builtins, sys\n"
        "from janus_jax import main\n"
        "def show(*words, **_):\n"
        "    builtins.print(*words, *(name for name in ('jax', 'numpy', 'absl', 'grain') if name "
        "in sys.modules))\n    sys.exit(0)\n"
        "main.print = show\n"
        "sys.argv = ['janus-jax', 'train', '--config=a.py', '--workdir=b']\n"
        "main.cli()\n"
    )
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "janus_jax: reading the config\n"
    assert time.monotonic() - begin < 5  # 0.1 s where nothing else runs


def test_flags_of_the_config_are_taken_out(capsys):
    rest, overrides = split_flags(
        [
            "main",
            "--config=a.py",
            "--config.a.b=1",
            "--workdir",
            "w",
            "--config.c",
            "x=y",
            "--config.d=e=f",
        ]
    )
    assert rest == ["main", "--config=a.py", "--workdir", "w"]
    assert overrides == {"a.b": "1", "c": "x=y", "d": "e=f"}
    assert split_flags(["-config.a=1", "--config.b="]) == ([], {"a": "1", "b": ""})
    assert split_flags(["--config.a=1", "--config.a=2"]) == ([], {"a": "2"})
    assert "--config.a is given twice: 2, the last, counts" in capsys.readouterr().err
    for words in (["--config.a"], ["--config.a", "--workdir=w"]):
        with pytest.raises(exit_codes.UsageError, match="has no value"):
            split_flags(words)


def test_command_line_is_split():
    argv = [
        "main",
        "--config=a.py",
        "--config.seed=3",
        "--workdir",
        "w",
        "--config.stages.one.supervise",
        "answers",
    ]
    rest, overrides = cli.split_flags(argv)
    assert rest == ["main", "--config=a.py", "--workdir", "w"]
    assert overrides == {"seed": "3", "stages.one.supervise": "answers"}


@pytest.mark.parametrize(
    "words, flag",
    [
        (["train"], "workdir"), (["eval"], "workdir"), (["eval"], "out"), (["plan"], "json"), (["generate"], "out"),
        (["chat"], "out"), (["convert"], "target"), (["data", "check"], "out"), (["data", "convert"], "out"),
        (["data", "tokenize"], "out"), (["data", "show"], "out"),
    ],
    ids=str,
)  # fmt: skip
def test_no_command_writes_to_an_address(monkeypatch, capsys, words, flag):
    for value, said in (("gs://bucket/x", "an address, and files are"), ("", "is empty")):
        with pytest.raises(SystemExit) as end:
            janus_jax(monkeypatch, *words, f"--{flag}={value}")
        told = capsys.readouterr().err
        assert end.value.code == 2 and f"--{flag}={value}: {said}" in told and told.count("\n") == 1


def test_a_command_that_opens_a_model_gives_it_the_base_that_was_named():
    """Wherever it opens or loads it: --base would be taken and not heeded."""
    given = {}
    for path in (ROOT / "janus_jax").rglob("*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text if "f.allow_pickle" in text else "")):
            if isinstance(node, ast.Call) and node.args:
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                model = ast.unparse(node.args[0]) in ("f.model", "f.source")
                if model and "allow_pickle" in words:
                    given[f"{path.relative_to(ROOT)}:{node.lineno}"] = words.get("base")
    assert len(given) >= 9 and set(given.values()) == {"f.base"}, given
