"""The command `python -m janus_jax.serve`: a model behind OpenAI's forms."""

import contextlib
import os
import pathlib
import re
import signal
import sys

from janus_jax.common import cli, exit_codes
from janus_jax.common.text import listed


def define_flags(into):
    """The command's flags, in absl's `into`."""
    define = cli.Definer(into)
    about = "A weights directory or hub id; `quickstart` comes with the package."
    define.path("model", None, about, required=True)
    define.text("name", None, "What requests call it; by default --model, of a path its last part.")
    define.choice("dtype", None, ("float32", "bfloat16", "int8"), "By default as stored.")
    define.base()
    define.switch("allow_pickle", False, "Read PyTorch's .bin files, tensors only.")
    define.text("host", "127.0.0.1", "Where it listens: this machine alone; 0.0.0.0: for all.")
    define.whole("port", 8000, "0 takes one that is free.", 0, 65535)
    about = "Rows of the batch, even: a guided picture takes two, an answer one."
    define.whole("rows", 16, about, lower_bound=2)
    define.whole("share_rows", 1, "Devices that share the rows.", lower_bound=1)
    define.whole(
        "share_layers", 1, "Devices that share each layer: for a model that one does not hold.", 1
    )
    define.whole("queue", 64, "Drawings and answers that may wait; others get 429.", 1)
    define.path("api_key_file", None, "A file of keys, one a line; any of them opens the door.")
    define.text("allow_urls", "", "HOST,HOST: pictures may be named by addresses at these hosts.")
    define.text("cors", "", "ORIGIN,ORIGIN: other sites' pages that may ask; * is all.")
    define.number("max_body_mb", 20.0, "Most megabytes of a request.", 0.001)
    define.number("max_picture_mp", 25.0, "Most millions of pixels of a picture.", 0.001)
    define.whole("max_pictures", 8, "Most pictures of a request.", 0)
    define.whole("max_n", 8, "Most answers or pictures that one request asks for.", 1)
    define.number("request_timeout", 600.0, "Seconds that a request may wait and run.", 0.001)
    define.number("body_timeout", 30.0, "Seconds in which a request must have come.", 0.001)
    define.number("drain", 30.0, "Seconds that running requests have after SIGTERM.", 0.0)


def serve_command(f, _):
    """The command."""
    cli.log_to_stderr("warning")
    settings = settings_of(f)
    from janus_jax.serve import process
    from janus_jax.serve.app import make_app

    with process.listening(f.host, f.port) as listener:
        address = process.address(listener)
        if not f.api_key_file and f.host not in ("127.0.0.1", "::1", "localhost"):
            print(
                f"WARNING: whoever reaches {address} may use it; --api_key_file asks for a key",
                file=sys.stderr, flush=True,
            )  # fmt: skip

        def load():
            announce(f)
            engine = loaded(f)
            print(
                f"{settings.model} is served at {address} (the page) and {address}/v1 (the API): "
                f"{engine.rows} rows, a queue of {engine.waiting}; Ctrl-C ends it",
                flush=True,
            )
            return engine

        process.Server(make_app(None, settings), f.drain).run_with(listener, load)


def settings_of(f):
    """The Settings that the flags give. Raises UsageError that lists what cannot be."""
    from janus_jax.serve.remote_pictures import check_hosts
    from janus_jax.serve.settings import Settings

    faults = []
    if f.rows % (2 * f.share_rows):
        faults.append(
            f"--rows={f.rows}: must be a multiple of {2 * f.share_rows}: a guided picture takes two, of one "
            "device"
        )
    words = lambda text: tuple(word.strip() for word in text.split(",") if word.strip())
    origins = words(f.cors.lower())  # as browsers send them
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/?#@\s]+", origin):
            faults.append(f"--cors={origin}: write an origin as https://example.org, or * for all")
    try:
        check_hosts(words(f.allow_urls))
    except ValueError as error:
        faults.append(f"--{error}")
    keys = ()
    if f.api_key_file:
        try:
            lines = pathlib.Path(f.api_key_file).read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            faults.append(f"--api_key_file={f.api_key_file}: cannot be read ({error})")
        else:
            keys = tuple(line.strip() for line in lines if line.strip())
            faults += [
                f"--api_key_file={f.api_key_file}: line {i} is no key: it begins with # or has white "
                "space within; a line is one key and nothing else"
                for i, line in enumerate(lines, 1)
                if line.strip().startswith("#") or len(line.split()) > 1
            ]
            if not keys:
                faults.append(f"--api_key_file={f.api_key_file}: holds no key; write one a line")
    if faults:
        raise exit_codes.UsageError(faults[0] if len(faults) == 1 else listed(faults))
    return Settings(
        model=f.name or public_name(f.model), api_keys=keys, allow_urls=words(f.allow_urls), cors=origins,
        max_body=int(f.max_body_mb * 1e6), max_picture=int(f.max_picture_mp * 1e6),
        max_pictures=f.max_pictures, max_n=f.max_n, request_timeout=f.request_timeout,
        body_timeout=f.body_timeout,
    )  # fmt: skip


def public_name(model: str) -> str:
    """What clients call --model: of a path its last part, for where it lies is not theirs to know."""
    path = os.path.abspath(model)
    return os.path.basename(path) or model if os.path.exists(path) else model


def announce(f):
    """Says what --model will take, before minutes of loading. Raises ValueError where that is more
    than is free, and UsageError where it or its devices are not there."""
    import jax

    from janus_jax.distributed import compile_cache
    from janus_jax.distributed.platform import require_devices
    from janus_jax.sample import memory
    from janus_jax.serve.engine import KEPT
    from janus_jax.weights.source import open_source

    require_devices()
    have = jax.local_device_count()
    devices = f.share_rows * f.share_layers
    if devices > have:
        raise exit_codes.UsageError(
            f"--share_rows={f.share_rows} --share_layers={f.share_layers}: {devices} devices, {have} are "
            "here; give fewer"
        )
    compile_cache.keep()
    source = open_source(f.model, allow_pickle=f.allow_pickle, base=f.base)
    if source.config is None:
        raise exit_codes.UsageError(f"--model={f.model}: no whole model but parts of one")
    if devices > 1:
        print(
            f"loading {f.model} on {f.share_rows} x {f.share_layers} devices; what each needs is not counted",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return
    room = source.processor().context - source.config.generation_encoder.tokens
    work = dict(rows=f.rows, text=room, pictures=0, drawings=1, kept=KEPT)
    memory.announce(f.model, source, f.dtype, **work)


def loaded(f):
    """The engine of --model, all compiled that a first request needs."""
    import jax

    from janus_jax.model import sharding as sh
    from janus_jax.sample.stopwatch import measured
    from janus_jax.serve.engine import Engine
    from janus_jax.serve.process import warm
    from janus_jax.weights.load import load

    devices = jax.local_devices()[: f.share_rows * f.share_layers]
    with measured() as watch:
        with sh.mesh_context(sh.make_mesh(f.share_rows, 1, f.share_layers, devices)):
            model, processor = load(
                f.model, dtype=f.dtype, allow_pickle=f.allow_pickle, base=f.base
            )
        watch.tell("loaded")
        engine = Engine(model, processor, rows=f.rows, waiting=f.queue)
        warm(engine)
        watch.tell("tried")
    return engine


PROGRAM = "python -m janus_jax.serve"
COMMAND = cli.Command(
    PROGRAM,
    "Serves a model in OpenAI's forms: chats with pictures, drawings, a page; docs/serving.md.",
    f"{PROGRAM} --model=quickstart",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.serve`."""
    with ending_on_sigterm():
        return cli.run(COMMAND, serve_command, argv)


@contextlib.contextmanager
def ending_on_sigterm():
    """SIGTERM ends the process with 0, until the server has a way of its own: as the first process
    of a container it would not hear the signal at all, elsewhere launchers take -15 for a crash."""
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(exit_codes.DONE))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
