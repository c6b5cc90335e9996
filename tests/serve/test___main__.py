"""The command as a user types it."""

import subprocess
import sys

import pytest
from support.servers import get

import janus_jax
from janus_jax.common import cli
from janus_jax.common.exit_codes import UsageError
from janus_jax.sample.generate import generate_ids
from janus_jax.serve import __main__ as command
from janus_jax.serve.__main__ import COMMAND, loaded, main, settings_of
from janus_jax.serve.process import address, listening


def settings(*flags, model="quickstart"):
    return settings_of(cli.parse(COMMAND, [f"--model={model}", *flags])[0])


def test_flags_become_settings(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("one\r\n\n  two\n", "utf-8-sig")
    found = settings(
        f"--api_key_file={keys}", "--allow_urls=a.org, b.org", "--cors=https://C.org,*", "--max_body_mb=1.5",
        "--max_picture_mp=2", "--name=janus",
    )  # fmt: skip
    assert found.api_keys == ("one", "two") and found.model == "janus"
    assert found.allow_urls == ("a.org", "b.org") and found.cors == ("https://c.org", "*")
    assert found.max_body == 1_500_000 and found.max_picture == 2_000_000
    plain = settings()
    assert plain.model == "quickstart" and not (plain.api_keys or plain.allow_urls or plain.cors)


def test_flags_that_cannot_be_are_all_told(tmp_path):
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(UsageError, match="multiple of 4"):
        settings("--rows=6", "--share_rows=2")
    with pytest.raises(UsageError) as error:
        settings(
            "--rows=3",
            f"--api_key_file={empty}",
            "--cors=example.org,https://a.org/,https://b.org/x",
        )
    for words in (
        "--rows=3: must be a multiple of 2",
        "holds no key",
        "--cors=example.org",
        "--cors=https://a.org/:",
        "--cors=https://b.org/x",
    ):
        assert words in str(error.value)


def test_a_line_of_the_keys_that_is_no_key_is_told_by_its_number_alone(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("good\n# Alice\nsecret of Bob\n")
    with pytest.raises(UsageError) as error:
        settings(f"--api_key_file={keys}")
    assert "line 2 is no key" in str(error.value) and "line 3 is no key" in str(error.value)
    assert "line 1" not in str(error.value)
    assert "Alice" not in str(error.value) and "secret" not in str(error.value)


def test_a_path_is_no_name_of_a_model(tmp_path, monkeypatch):
    (tmp_path / "secret" / "weights").mkdir(parents=True)
    for path in (tmp_path / "secret" / "weights", f"{tmp_path}/secret/weights/"):
        assert settings(model=path).model == "weights"
    monkeypatch.chdir(tmp_path / "secret")
    assert settings(model=".").model == "secret"
    assert settings(model="owner/janus").model == "owner/janus"
    assert settings("--name=mine", model=tmp_path).model == "mine"


def test_the_port_answers_before_the_model_is_looked_at(monkeypatch):
    """As a hub's file may take minutes to come."""
    seen = []
    with listening("127.0.0.1", 0) as free:
        url = address(free)

    def announce(_):
        seen.extend(get(url, path).status_code for path in ("/health", "/ready"))
        raise UsageError("seen")

    monkeypatch.setattr(command, "announce", announce)
    assert main(["--model=quickstart", f"--port={url.rpartition(':')[2]}"]) == 2
    assert seen == [200, 503]


@pytest.mark.processes
def test_sigterm_before_the_server_runs_is_heard():
    """In a container this is the first process, to which the system's own way does nothing."""
    program = (
        "import os, signal, sys\n"
        "from janus_jax.common import cli\n"
        "cli.run = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from janus_jax.serve.__main__ import main\n"
        "sys.exit(main([]) or 5)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model=nowhere/at/all", "--port=0"], "nowhere/at/all"),
        (["--model=quickstart", "--port=0", "--host=203.0.113.1"], "cannot be listened on"),
        (["--model=quickstart", "--port=70000"], "port"),
        (["--port=0"], "model"),
        (["--model=quickstart", "--drain=-1"], "drain"),
        (
            ["--model=quickstart", "--port=0", "--share_layers=9"],
            "--share_layers=9: 9 devices, 8 are here",
        ),
    ],
)
def test_what_cannot_be_served_is_one_line_and_code_2(flags, words, capfd):
    try:
        code = main(flags)
    except SystemExit as end:
        code = end.code
    err = capfd.readouterr().err
    assert code == 2 and words in err and "Traceback" not in err


@pytest.mark.slow
def test_the_devices_of_a_mesh_draw_what_one_draws(one_device):
    flags = [
        "--model=quickstart",
        "--dtype=float32",
        "--rows=8",
        "--share_rows=2",
        "--share_layers=2",
    ]
    engine = loaded(cli.parse(COMMAND, flags)[0])
    drawn = engine.draw("a red circle", seed=3).result()
    engine.close()
    assert len(engine.model.text_embedding.table[...].devices()) == 4
    one = janus_jax.load("quickstart", dtype="float32")
    assert drawn.ids.tolist() == generate_ids(*one, "a red circle", seed=3)[0].tolist()
