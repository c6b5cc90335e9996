"""The commands as a user types them, and what they say on the way."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT

from janus_jax.sample.__main__ import main
from janus_jax.sample.edit import edit
from janus_jax.sample.generate import generate
from janus_jax.sample.respond import respond
from janus_jax.weights import load

PARAMETERS = "127,011"


def command(name: str, *flags, lines=()) -> subprocess.CompletedProcess:
    program = [sys.executable, "-m", "janus_jax.sample", name, *map(str, flags)]
    return subprocess.run(
        program, input="\n".join(lines), capture_output=True, text=True, cwd=ROOT, check=False,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


@pytest.mark.processes
def test_generate_writes_pictures_that_tell_how_they_were_drawn(folder, tmp_path, one_device):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("A red circle!\n\na red circle\n", "utf-8")
    out = tmp_path / "out"
    flags = [f"--model={folder}", f"--prompts_file={prompts}", f"--out={out}"]
    done = command("generate", *flags, "--prompt=日本 ø", "--n=2", "--seed=3", "--cfg_scale=2")
    assert done.returncode == 0, done.stderr
    rows = ("日本-ø", "a-red-circle", "a-red-circle-2")  # two prompts make one name
    names = [f"{row}-seed3-{k}" for row in rows for k in (0, 1)]
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [*(f"{name}.png" for name in names), "sheet.png"]
    )
    assert all(str(out / f"{name}.png") in done.stdout for name in names)
    model, processor = load.load(folder)
    want = generate(model, processor, "日本 ø", seed=3, cfg_scale=2.0, images_per_prompt=2)[1]
    with Image.open(out / "日本-ø-seed3-1.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(want))
        told = picture.text
    assert told.pop("janus_jax") and told.pop("weights")
    assert told == {
        "prompt": "日本 ø", "index": "1", "seed": "3", "cfg_scale": "2.0", "temperature": "1.0",
        "model": str(folder),
    }  # fmt: skip
    for words in (
        f"loading {folder}: {PARAMETERS} parameters",
        "on cpu",
        "in float32",
        "memory: weights",
        "free",
    ):
        assert words in done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"loaded in \S+ s, compiled in \S+ s, drew in \S+ s", last)
    assert done.stderr.count("images/min") == 1, (
        "one line where stderr is no terminal and it is quick"
    )


def test_edit_writes_what_it_drew_and_of_what(folder, tmp_path, one_device, capsys):
    picture = tmp_path / "p.png"
    Image.new("RGB", (30, 20), "red").save(picture)
    flags = [f"--model={folder}", f"--image={picture}", "--prompt=make it blue"]
    flags += [f"--out={tmp_path / 'out'}", "--image_cfg_scale=2", "--cfg_scale=2", "--nosource_ids"]
    assert main(["edit", *flags]) == 0
    path = tmp_path / "out" / "make-it-blue-0.png"
    assert f"{path}  'make it blue', 16 x 16" in capsys.readouterr().out
    model, processor = load.load(folder)
    how = dict(cfg_scale=2, image_cfg_scale=2, source_ids=False)
    (want,) = edit(model, processor, picture, "make it blue", **how)
    with Image.open(path) as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(want))
        told = drawn.text
    assert (told["image_cfg_scale"], told["source_ids"], told["cfg_scale"]) == (
        "2.0",
        "False",
        "2.0",
    )
    Image.new("RGB", (30, 20), "green").save(picture)
    assert main(["edit", *flags]) == 0, "another picture of this name is another drawing"
    assert (tmp_path / "out" / "make-it-blue-2-0.png").is_file()


def test_respond_prints_what_it_says(folder, tmp_path, one_device, capsys):
    flags = [f"--model={folder}", f"--out={tmp_path / 'out'}", "--max_new_tokens=4"]
    assert main(["respond", *flags, "--prompt=what is it?"]) == 0
    model, processor = load.load(folder)
    asked = [{"role": "user", "content": "what is it?"}]
    (words,) = respond(model, processor, asked, max_new_tokens=4)
    assert capsys.readouterr().out == f"{words}\n"


@pytest.mark.processes
def test_understand_answers_and_chat_goes_on(folder, tmp_path, one_device, capsys):
    picture = tmp_path / "p.png"
    Image.new("RGB", (30, 20), "red").save(picture)
    flags = [f"--model={folder}", "--max_new_tokens=4"]
    assert main(["understand", *flags, f"--image={picture}", "--prompt=what is it?"]) == 0
    answer = capsys.readouterr().out.strip()
    assert answer
    lines = [
        "/image no.png",
        f"/image {picture}",
        "what is it?",
        "/draw a cat",
        "/edit make it blue",
        "what?",
        "/quit",
        "never read",
    ]
    talk = command("chat", *flags, f"--out={tmp_path / 'out'}", lines=lines)
    assert talk.returncode == 0 and "Traceback" not in talk.stderr, talk.stderr
    assert (tmp_path / "out" / "make-it-blue-seed1-0.png").is_file(), talk.stdout
    assert "no.png: no such file" in talk.stdout and (tmp_path / "out" / "a-cat-0.png").is_file()
    assert answer in talk.stdout


@pytest.mark.parametrize(
    "name, flags, words",
    [
        ("understand", ["--model={folder}", "--prompt=hi", "--top_p=0"], ["top_p is 0.0", "(0, 1]"]),
        ("understand", ["--model=no/such", "--prompt=hi", "--image=no.png"], ["--image: no.png: no such file"]),
        ("generate", ["--model=no/such", "--prompt=hi"], ["no/such"]),
        ("edit", ["--model={folder}", "--prompt=hi"], ["images: 0 pictures were given; give one to edit"]),
        ("respond", ["--model={folder}", "--prompt=hi", "--max_images=-1"], ["max_images is -1: must be a whole"]),
        ("respond", ["--model={folder}", "--prompt=hi", "--image=no.png"], ["--image: no.png: no such file"]),
        ("edit", ["--model=no/such", "--prompt=hi", "--image=no.png"], ["--image: no.png: no such file"]),
        ("edit", ["--model={folder}", "--prompt=hi", "--image_cfg_scale=nan"], ["image_cfg_scale is nan"]),
        ("generate", ["--model={folder}", "--n=0", "--cfg_scale=-1", "--prompt=a"], ["cfg_scale is -1", "per_prompt"]),
        ("generate", ["--model={folder}", "--dtype=int4", "--prompt=a"], ["--dtype=int4", "bfloat16"]),
        ("generate", ["--model={folder}"], ["--prompt", "--prompts_file"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_user_can_mend_is_a_message_and_exit_code_2(folder, capsys, name, flags, words):
    try:
        code = main([name, *(flag.format(folder=folder) for flag in flags)])
    except SystemExit as end:
        code = end.code
    told = capsys.readouterr().err
    assert code == 2 and "Traceback" not in told
    assert all(word in told for word in words), told
