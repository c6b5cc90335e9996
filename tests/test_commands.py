"""The two commands as a user types them, the chat, and what they say on the way."""

import io
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from conftest import on_mesh
from flax import nnx
from PIL import Image

from janus_jax import weights
from janus_jax.convert.source import open_source
from janus_jax.model import config as sizes
from janus_jax.sample import chat, memory, terminal
from janus_jax.sample.generate import generate

ROOT = pathlib.Path(weights.__file__).parents[1]
PARAMETERS = "127,011"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A weights directory of random weights."""
    path = tmp_path_factory.mktemp("weights") / "model"
    with on_mesh():
        params = nnx.to_pure_dict(nnx.split(tiny.make_model())[1])
        weights.export(path, params, tiny.CONFIG, tiny.processor())
    return path


def command(name: str, *flags, lines=()) -> subprocess.CompletedProcess:
    program = [sys.executable, "-m", f"janus_jax.sample.{name}", *map(str, flags)]
    return subprocess.run(
        program, input="\n".join(lines), capture_output=True, text=True, cwd=ROOT, check=False
    )  # fmt: skip


def test_generate_writes_pictures_that_tell_how_they_were_drawn(folder, tmp_path, one_device):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("A red circle!\n\na red circle\n", "utf-8")
    out = tmp_path / "out"
    flags = [f"--model={folder}", f"--prompts_file={prompts}", f"--out={out}"]
    done = command("generate", *flags, "--prompt=日本 ø", "--n=2", "--seed=3", "--cfg_scale=2")
    assert done.returncode == 0, done.stderr
    rows = ("日本-ø-0", "a-red-circle-1", "a-red-circle-2")  # two prompts make one name, so all are numbered
    names = [f"{row}-{k}" for row in rows for k in (0, 1)]
    assert sorted(p.name for p in out.iterdir()) == sorted([*(f"{name}.png" for name in names), "sheet.png"])
    assert all(str(out / f"{name}.png") in done.stdout for name in names)
    model, processor = weights.load(folder)
    want = generate(model, processor, "日本 ø", seed=3, cfg_scale=2.0, images_per_prompt=2)[1]
    with Image.open(out / "日本-ø-0-1.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(want))
        told = picture.text
    version = told.pop("janus_jax")
    assert version and told == {
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
    assert done.stderr.count("images/min") == 1, "one line where stderr is no terminal and it is quick"


def test_understand_answers_and_without_a_prompt_it_chats(folder, tmp_path):
    picture = tmp_path / "p.png"
    Image.new("RGB", (30, 20), "red").save(picture)
    flags = [f"--model={folder}", "--max_new_tokens=4", f"--out={tmp_path / 'out'}"]
    done = command("understand", *flags, f"--image={picture}", "--prompt=what is it?")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    lines = [
        "/image no.png",
        f"/image {picture}",
        "what is it?",
        "/draw a cat",
        "what?",
        "/quit",
        "never read",
    ]
    talk = command("understand", *flags, lines=lines)
    assert talk.returncode == 0 and "Traceback" not in talk.stderr, talk.stderr
    assert "no.png: no such file" in talk.stdout and (tmp_path / "out" / "a-cat-0.png").is_file()
    assert done.stdout.strip() in talk.stdout


@pytest.mark.parametrize(
    "name, flags, words",
    [
        ("understand", ["--model={folder}", "--prompt=hi", "--top_p=0"], ["top_p is 0.0", "(0, 1]"]),
        ("understand", ["--model=no/such", "--prompt=hi", "--image=no.png"], ["--image: no.png: no such file"]),
        ("generate", ["--model=no/such", "--prompt=hi"], ["no/such"]),
        ("generate", ["--model={folder}", "--n=0", "--cfg_scale=-1", "--prompt=a"], ["cfg_scale is -1", "per_prompt"]),
        ("generate", ["--model={folder}", "--dtype=int4", "--prompt=a"], ["dtype is 'int4'", "bfloat16"]),
        ("generate", ["--model={folder}"], ["--prompt", "--prompts_file"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_user_can_mend_is_a_message_and_exit_code_1(folder, name, flags, words):
    done = command(name, *(flag.format(folder=folder) for flag in flags))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


class Terminal:
    """What the chat wrote, and the lines it will read."""

    def __init__(self, *lines):
        self.lines, self.said, self.asked = list(lines), "", []

    def read(self, prompt):
        if not self.lines:
            raise EOFError
        line = self.lines.pop(0)
        if isinstance(line, type):
            raise line
        return line

    def write(self, text="", end="\n", flush=False):
        self.said += text + end

    def ask(self, messages, stream):
        self.asked.append(messages)
        if "fail" in messages[-1]["content"][-1]["text"]:
            raise ValueError("too long:\n by a word")
        stream("I ")
        stream("see")
        return "I see"

    def draw(self, text):
        if not text:
            raise ValueError("prompts[0] is ''")
        return f"picture of {text}", f"out/{text}.png"

    def run(self, **options):
        chat.run(self.ask, self.draw, read=self.read, write=self.write, **options)
        return self


def texts(messages) -> list:
    content = lambda m: m["content"] if isinstance(m["content"], str) else m["content"][-1]["text"]
    return [content(m) for m in messages]


def pictures(message) -> list:
    return [p["image"] for p in message["content"] if p["type"] == "image"]


def test_chat_remembers_and_shows_drawings_next():
    t = Terminal("hi", "/draw a cat", "what?", "more", "/reset", "again").run()
    assert [texts(m) for m in t.asked] == [
        ["hi"], ["hi", "I see", "what?"], ["hi", "I see", "what?", "I see", "more"], ["again"],
    ]  # fmt: skip
    assert pictures(t.asked[1][-1]) == ["picture of a cat"] and pictures(t.asked[2][-1]) == []
    assert pictures(t.asked[2][2]) == ["picture of a cat"]
    assert "I see\n" in t.said and "out/a cat.png" in t.said


def test_chat_goes_on_after_what_it_cannot_use(tmp_path):
    picture = tmp_path / "p q.png"
    Image.new("RGB", (3, 2), "red").save(picture)
    t = Terminal(
        "/image no.png", "/nonsense", "/draw", f"/image {picture}", "fail", "", "then", "/help"
    ).run()
    for words in ("no.png: no such file", "/nonsense", "prompts[0] is ''", "too long:; by a word", "/reset"):
        assert words in t.said
    assert [texts(m) for m in t.asked] == [["fail"], ["then"]]
    assert [p.size for p in pictures(t.asked[1][-1])] == [(3, 2)], "still waiting after a turn that failed"


@pytest.mark.parametrize("leave", ["/quit", EOFError, KeyboardInterrupt])
def test_chat_is_left_cleanly(leave):
    t = Terminal("hi", leave, "never").run()
    assert t.lines == ["never"] and len(t.asked) == 1


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal_and_a_line_every_ten_seconds_elsewhere():
    for out, count in ((Screen(), 9), (io.StringIO(), 3)):
        with terminal.Progress(8, out, iter(range(0, 99, 4)).__next__) as bar:
            for done in range(64, 577, 64):
                bar(done, 576)
        assert out.getvalue().count("images/min") == count
        assert "576/576 steps  13.3 images/min  0 s left" in out.getvalue()  # 8 in 36 s


def test_memory_is_what_arrays_take(folder, one_device):
    source = open_source(folder)
    plan = memory.Plan.of(source, None, rows=3, text=6, pictures=1, drawings=1)
    need, (model, _) = plan.needs(), weights.load(folder)
    assert need["weights"] == sum(x.nbytes for x in jax.tree.leaves(nnx.state(model)))
    places = 6 + (16 + 2) + 16
    assert need["cache"] == 2 * tiny.CONFIG.transformer.layers * 3 * places * 32 * 4
    assert plan.dtypes == ("float32", "float32")
    half = memory.Plan.of(source, "bfloat16", rows=3, text=6, pictures=1, drawings=1)
    loaded, _ = weights.load(folder, dtype="bfloat16")
    assert half.weights == sum(x.nbytes for x in jax.tree.leaves(nnx.state(loaded)))
    assert half.needs()["cache"] == need["cache"], "float32 on CPU"
    eighth = memory.Plan.of(source, "int8", rows=3, text=6, pictures=1, drawings=1)
    loaded, _ = weights.load(folder, dtype="int8")
    scales = sum(
        x.nbytes for path, x in jax.tree.leaves_with_path(nnx.state(loaded)) if "scale" in str(path[-2:])
    )
    held = sum(x.nbytes for x in jax.tree.leaves(nnx.state(loaded)))
    assert held - scales <= eighth.weights <= held
    full = memory.Plan(
        sizes.janus_1_3b(), 0, ("bfloat16", "bfloat16"), rows=2, text=64, pictures=0, drawings=1
    )
    cache = 2 * 24 * 2 * 640 * 2048 * 4
    assert full.needs() == {"weights": 0, "cache": cache, "temporaries": cache + 3 * 4 * 384 * 384 * 128}


def test_too_little_memory_is_refused_or_warned_about_with_the_numbers(folder, one_device, monkeypatch):
    source, work = open_source(folder), dict(rows=2, text=400, pictures=1, drawings=1)
    need, out = memory.Plan.of(source, None, **work).needs(), io.StringIO()
    monkeypatch.setattr(memory, "free", lambda device: need["weights"])
    with pytest.raises(
        ValueError, match=r"memory: weights and cache take .* kB, 508 kB are free on cpu; use"
    ):
        memory.announce("m", source, None, out, **work)
    monkeypatch.setattr(memory, "free", lambda device: sum(need.values()) - 1)
    memory.announce("m", source, None, out, **work)
    assert "WARNING: that may not fit" in out.getvalue()
    monkeypatch.undo()
    assert memory.free(jax.devices()[0]) > 1e6
