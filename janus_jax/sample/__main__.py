"""The commands that sample: `python -m janus_jax.sample generate|edit|understand|respond|chat`."""

import functools
import importlib
import itertools
import sys

from janus_jax.common import cli, exit_codes
from janus_jax.sample.loading import announced, look_at, opened

CHAT_LENGTH = 2000  # characters that a chat is expected to grow to


def generate_command(f, _):
    """The command `generate`."""
    from janus_jax.common.outputs import require_writable
    from janus_jax.sample import options, prompts
    from janus_jax.sample.drawing import Job
    from janus_jax.sample.stopwatch import measured

    cli.log_to_stderr("warning")
    asked = [*f.prompt, *(prompts.read_prompts(f.prompts_file) if f.prompts_file else [])]
    if not asked:
        raise exit_codes.UsageError(
            "no prompt: give --prompt, or --prompts_file with a prompt a line"
        )
    given = {"cfg_scale": f.cfg_scale, "temperature": f.temperature}
    known = {name: x for name, x in given.items() if x is not None}
    options.check(**known, images_per_prompt=f.n, seed=f.seed)
    require_writable(f.out, "--out")
    with measured() as watch:
        source = opened(f)
        job = Job(f, source, asked)
        if not job.todo:
            print(f"all {job.count:,} pictures are in {f.out}, drawn alike")
            return
        rows = job.at_once if f.cfg_scale in (0, 1) else 2 * job.at_once  # guidance runs each twice
        text = max(map(len, asked)) // 3 + 32
        model, processor = announced(
            f, source, watch, rows=rows, text=text, pictures=0, drawings=job.at_once
        )
        job.draw(model, processor)
        watch.tell("drew")


def _numbers(f) -> dict:
    return dict(
        max_new_tokens=f.max_new_tokens, temperature=f.temperature, top_p=f.top_p, seed=f.seed
    )


def edit_command(f, _):
    """The command `edit`."""
    from janus_jax.common.outputs import require_writable
    from janus_jax.sample import options
    from janus_jax.sample.stopwatch import measured

    cli.log_to_stderr("warning")
    numbers = {"cfg_scale": f.cfg_scale, "temperature": f.temperature}
    options.check(**numbers, image_cfg_scale=f.image_cfg_scale, images_per_prompt=f.n, seed=f.seed)
    look_at(f.image)
    require_writable(f.out, "--out")
    with measured() as watch:
        source = opened(f)
        edited = importlib.import_module("janus_jax.sample.edited")
        edited.draw(f, source, functools.partial(announced, f, source, watch))
        watch.tell("drew")


def understand_command(f, _):
    """The command `understand`: one answer."""
    from janus_jax.sample import options
    from janus_jax.sample.stopwatch import measured
    from janus_jax.sample.understand import understand

    cli.log_to_stderr("warning")
    options.check(**_numbers(f))
    look_at(f.image)
    text = len(f.prompt) // 3 + 64 + f.max_new_tokens
    parts = [{"type": "image", "image": path} for path in f.image]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": f.prompt}]}]
    stream = lambda text: print(text, end="", flush=True)
    with measured() as watch:
        source = opened(f)
        source.processor().question(messages)  # whether the context has room
        model, processor = announced(
            f, source, watch, rows=1, text=text, pictures=max(1, len(f.image)), drawings=0
        )
        understand(model, processor, messages, stream=stream, **_numbers(f))
        print()
        watch.tell("answered")


def respond_command(f, _):
    """The command `respond`: one answer of words and pictures."""
    from janus_jax.common.outputs import require_writable
    from janus_jax.sample import options
    from janus_jax.sample.stopwatch import measured

    cli.log_to_stderr("warning")
    options.check(**_numbers(f))
    look_at(f.image)
    require_writable(f.out, "--out")
    with measured() as watch:
        source = opened(f)
        responded = importlib.import_module("janus_jax.sample.responded")
        responded.answer(f, source, functools.partial(announced, f, source, watch))
        watch.tell("answered")


def chat_command(f, _):
    """The command `chat`: a conversation in the terminal."""
    from janus_jax.common.outputs import require_writable
    from janus_jax.sample import batches, chat, drawing, edit, edit_prompts, files, options
    from janus_jax.sample.generate import generate
    from janus_jax.sample.stopwatch import measured
    from janus_jax.sample.understand import understand

    cli.log_to_stderr("warning")
    options.check(**_numbers(f))
    look_at(f.image)
    require_writable(f.out, "--out")
    text = CHAT_LENGTH // 3 + 64 + f.max_new_tokens
    drawn = itertools.count()
    responded = importlib.import_module("janus_jax.sample.responded") if f.max_images else None

    def ask(messages, stream):
        if f.max_images:
            return responded.tell(model, processor, messages, gallery, stream, f)
        return understand(model, processor, messages, stream=stream, **_numbers(f))

    def draw(text):
        seed = f.seed + next(drawn)  # asked again, it draws another
        with batches.Drawing(1) as bar:
            (picture,) = generate(model, processor, text, seed=seed, progress=bar.tell)
        return picture, gallery.add(picture, text, 0, seed=seed)

    def redraw(pictures, text):
        seed = f.seed + next(drawn)
        with batches.Drawing(1) as bar:
            (picture,) = edit.edit(model, processor, pictures, text, seed=seed, progress=bar.tell)
        return picture, gallery.add(
            picture, text, 0, seed=seed, images=edit_prompts.marks(pictures)
        )

    with measured() as watch:
        source = opened(f)
        if responded:
            responded.require_between(source.config)
        model, processor = announced(
            f, source, watch, rows=2, text=text, pictures=max(1, len(f.image)), drawings=1
        )
        facts = drawing.facts(f, source, processor.cfg_scale, processor.temperature)
        gallery = files.Gallery(f.out, **facts)
        chat.converse(ask, draw, redraw, f.image)


def _define_model(into):
    define = cli.Definer(into)
    define.path("model", None, "A weights directory or hub id.", required=True)
    dtypes = ("float32", "bfloat16", "int8")
    define.choice("dtype", None, dtypes, "By default as the weights are stored.")
    define.base()
    define.switch("allow_pickle", False, "Read PyTorch's .bin files, tensors only.")
    return define


def _define_drawings(into):
    define = _define_model(into)
    suggested = "by default what the weights suggest."
    define.output("out", "pictures", "Folder for the PNG files; nothing there is replaced.")
    define.whole("n", 1, "Pictures per prompt.")
    define.number("cfg_scale", None, f"Classifier-free guidance; {suggested}")
    define.number("temperature", None, f"0 takes the likeliest id; {suggested}")
    define.whole("seed", 0, "Same seed, same pictures.")
    return define


def define_generate(into):
    """The flags of `generate`."""
    define = _define_drawings(into)
    define.texts("prompt", [], "What to draw.")
    about = "A text file, a prompt a line; or JSON, JSON lines, CSV, TSV with a field `prompt`."
    define.path("prompts_file", None, about)
    about = "Passes a picture, of a model that draws masked (docs/extensions.md); 0: 12."
    define.whole("steps", 0, about)
    define.text("size", "", "WxH in pixels, of those that the model draws; by default its square.")


def define_edit(into):
    """The flags of `edit`."""
    define = _define_drawings(into)
    define.pictures("image", [], "A picture to edit.")
    define.text("prompt", None, "What to do with it.", required=True)
    define.number("image_cfg_scale", 1.0, "Guidance by the pictures; 1 is none.")
    define.switch("source_ids", True, "Whether the pictures are given as VQ ids too.")


def _define_answers(into):
    define = _define_model(into)
    define.pictures("image", [], "A picture.")
    define.whole("max_new_tokens", 512, "Longest answer.")
    define.number("temperature", 0.0, "0 takes the likeliest token each time.")
    define.number("top_p", 1.0, "Sample from the likeliest tokens of this mass.")
    define.whole("seed", 0, "Same seed, same answer.")
    return define


def define_understand(into):
    """The flags of `understand`."""
    _define_answers(into).text("prompt", None, "The question.", required=True)


def define_respond(into):
    """The flags of `respond`."""
    define = _define_answers(into)
    define.text("prompt", None, "What to answer.", required=True)
    define.output("out", "pictures", "Folder for the PNG files; nothing there is replaced.")
    define.whole("max_images", 4, "The answer ends where it would begin one more picture.")
    define.number("cfg_scale", None, "Of pictures; by default what the weights suggest.")
    define.number("image_temperature", None, "Of pictures; by default what the weights suggest.")


def define_chat(into):
    """The flags of `chat`."""
    define = _define_answers(into)
    define.output("out", "pictures", "Folder for what is drawn.")
    define.whole("max_images", 0, "Pictures in an answer, of a model that draws between words.")


PROGRAM = "python -m janus_jax.sample"
COMMANDS = {
    "generate": (
        generate_command,
        cli.Command(
            f"{PROGRAM} generate",
            "Draws pictures for prompts, as PNG files and sheets of all; the same command goes on where it "
            "was stopped.",
            f'{PROGRAM} generate --model=runs/quickstart/stage3 --prompt="a red circle" --n=4',
            define_generate,
        ),
    ),
    "edit": (
        edit_command,
        cli.Command(
            f"{PROGRAM} edit",
            "Draws what an instruction makes of pictures, as PNG files.",
            f'{PROGRAM} edit --model=runs/edit_shapes/edit --image=a.png --prompt="make it red"',
            define_edit,
        ),
    ),
    "understand": (
        understand_command,
        cli.Command(
            f"{PROGRAM} understand",
            "Answers a question about pictures, or without any.",
            f'{PROGRAM} understand --model=runs/quickstart/stage3 --image=a.png --prompt="what?"',
            define_understand,
        ),
    ),
    "respond": (
        respond_command,
        cli.Command(
            f"{PROGRAM} respond",
            "Answers with words and pictures, of a model that has learned to draw between words.",
            f'{PROGRAM} respond --model=runs/interleaved_shapes/interleaved --prompt="a circle"',
            define_respond,
        ),
    ),
    "chat": (
        chat_command,
        cli.Command(
            f"{PROGRAM} chat",
            "A conversation in the terminal: words, pictures, and drawings.",
            f"{PROGRAM} chat --model=deepseek-ai/Janus-1.3B",
            define_chat,
        ),
    ),
}
ENTRIES = {
    name: cli.Entry(
        "janus_jax.sample.__main__:run_command", command.about, command.example, (name,)
    )
    for name, (_, command) in COMMANDS.items()
}


def run_command(argv: list[str]) -> int:
    """Runs the command that the first word names; its exit code."""
    main, command = COMMANDS[argv[0]]
    return cli.run(command, main, argv[1:])


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.sample`."""
    return cli.dispatch(PROGRAM, "Samples from a model.", ENTRIES, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
