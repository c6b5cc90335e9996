"""The server under load, beside the same model one request at a time and transformers' Janus in the
same bare loop: random weights at scaled-down true shapes, the same requests, float32.

    python benchmarks/serve.py --out=benchmarks/results/serve-cpu
    python benchmarks/serve.py --soak=30 --out=benchmarks/results/serve-soak
    python benchmarks/serve.py --identity=200

Each server is a process of its own, one at a time, warmed by requests of every shape. `--soak` loads
the server for so many minutes with good, bad and broken requests, watches its memory and ends it under
load. `--identity` asks so many random things at once and compares with generate and understand.
"""

import asyncio
import importlib.metadata
import json
import pathlib
import shlex
import signal
import sys
import tempfile

import jax
import machine
import make_checkpoint
import serve_client as sc
import serve_identity
import serve_load
import serve_report
import serve_soak
from absl import app, flags, logging

import janus_jax
from janus_jax.model import config as sizes

SIDES = {"ours": "the server", "one": "one at a time", "transformers": "transformers"}
PACKAGES = ("jax", "torch", "transformers", "fastapi", "uvicorn", "openai")
NEAR = 2  # levels of 255 between the two sides' VQ decoders


def scaled(toy: bool = False) -> sizes.JanusConfig:
    """Janus-1.3B with heads, strides and patches of its own size, and less of everything else."""
    width, layers, side = (256, 2, 32) if toy else (1024, 4, 96)
    return sizes.JanusConfig(
        sizes.UnderstandingEncoderConfig(
            image_size=side, width=width // 4, mlp_width=width, layers=layers, heads=4
        ),
        sizes.GenerationEncoderConfig(image_size=side, channels=32, z_channels=64),
        sizes.TransformerConfig(
            width=width, mlp_width=width * 11 // 4, layers=layers, heads=width // 128,
            vocabulary=12800,
        ),
        image_head_width=width, dtype="float32",
    )  # fmt: skip


def command(side: str, checkpoint: str, rows: int, *more: str) -> list[str]:
    if side != "ours":
        return [str(sc.HERE / "serve_peers.py"), f"--side={side}", f"--checkpoint={checkpoint}"]
    how = [f"--model={checkpoint}", "--dtype=float32", f"--rows={rows}", *more]
    return ["-m", "janus_jax.serve", *how]


async def warmed(url: str, requests: list[sc.Request], at_once: int) -> list[sc.Reply]:
    """A request of every shape, then `at_once` together; and what is the same on every side:
    drawings of the likeliest ids, and answers."""
    serve_load.measured(await serve_load.closed(url, requests[:4], 1))
    serve_load.measured(await serve_load.closed(url, requests[:at_once], at_once))
    likeliest = [serve_load.drawing(x.body["prompt"], 0.0) for x in requests[:4:2]]
    return await serve_load.closed(url, [*likeliest, *requests[1:4:2]], 1)


def measure(side: str, server: sc.Server, requests: list[sc.Request], f) -> dict:
    """All figures of one side, and its replies."""
    run = lambda work: asyncio.run(work)
    at_once = max(map(int, f.clients)) if side == "ours" else 1  # the others run one at a time
    likeliest = run(warmed(server.url, requests, at_once))
    found, replies = {"closed": {}}, []
    for clients in map(int, f.clients):
        family = machine.family(server.process.pid)
        others, used = machine.Others(family), machine.used_by_family(server.process.pid)
        some = requests[: max(f.least, f.each * clients)]
        got = run(serve_load.closed(server.url, some, clients))
        spent = machine.used_by_family(server.process.pid) - used
        busy = {"others": others.cores(), "CPU s": spent}
        found["closed"][clients] = serve_load.measured(got) | busy
        replies += got
    if f.rate:
        got = run(serve_load.opened(server.url, requests[: f.open], f.rate))
        found["open"] = serve_load.measured(got)
    count = f.short if side == "ours" else max(f.short // 4, 1)  # the others' wait for each drawing
    alone, running = run(serve_load.beside(server.url, count, f.drawers))
    found["short"] = {
        "alone": serve_load.percentiles(x.ended - x.begun for x in alone),
        "beside": serve_load.percentiles(x.ended - x.begun for x in running),
    }
    found["memory"] = server.memory()
    return found | {"replies": replies, "likeliest": likeliest}


def agreement(ours: dict, theirs: dict) -> dict:
    return {
        "likeliest": serve_load.alike(ours["likeliest"], theirs["likeliest"], NEAR),
        "sampled": serve_load.alike(ours["replies"], theirs["replies"]),
    }


def compare(f, checkpoint: str, side: int) -> dict:
    most = max(max(f.least, f.each * int(clients)) for clients in f.clients)
    requests = serve_load.mix(max(most, f.open), side)
    found = {}
    for name in f.sides:
        print(f"{SIDES[name]}", file=sys.stderr, flush=True)
        log = pathlib.Path(tempfile.gettempdir()) / f"serve-{name}.log"
        with sc.running(command(name, checkpoint, f.rows), log) as server:
            found[name] = measure(name, server, requests, f)
    ours = found.get("ours")
    same = {name: agreement(ours, it) for name, it in found.items() if ours and name != "ours"}
    # other kinds of random numbers: only what is not sampled can be compared
    for name in set(same) - {"one"}:
        del same[name]["sampled"]
    for one in found.values():
        del one["replies"], one["likeliest"]
    return {"sides": found, "alike": same}


def about() -> dict:
    return {
        "command": shlex.join(["python", "benchmarks/serve.py", *sys.argv[1:]]),
        "processor": machine.name(jax.devices()[0]),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def write(found: dict, page: str):
    print(page)
    if flags.FLAGS.out:
        out = pathlib.Path(flags.FLAGS.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        out.with_suffix(".md").write_text(page, "utf-8")


def checkpoint(folder: str, toy: bool) -> str:
    make_checkpoint.make(
        scaled(toy), make_checkpoint.janus_hf.KIND, folder, pro=False, vocabulary=8000
    )
    return folder


def compared(f):
    with tempfile.TemporaryDirectory() as folder:
        place = f.checkpoint or checkpoint(f"{folder}/random", f.toy)
        config = janus_jax.load(place)[0].config
        side = config.understanding_encoder.image_size
        found = about() | {
            "shape": serve_report.shape(config),
            "rate": f.rate,
            "drawers": f.drawers,
        }
        found |= compare(f, place, side)
    write(found, serve_report.page(found))


def soaked(f):
    log = pathlib.Path(tempfile.gettempdir()) / "serve-soak.log"
    with sc.running(command("ours", f.checkpoint or "quickstart", f.rows), log) as server:
        found = about() | asyncio.run(serve_soak.soak(server, f.soak, f.soakers))
    write(found, serve_soak.page(found))
    if f.out:
        serve_soak.chart(found, pathlib.Path(f.out).with_suffix(".png"))
    if found["wrong"]:
        raise SystemExit("not as it should be:\n" + "\n".join(found["wrong"]))


def identical(f):
    place = f.checkpoint or "quickstart"
    log = pathlib.Path(tempfile.gettempdir()) / "serve-identity.log"
    more = [f"--queue={2 * f.identity}"]  # all at once, up to two pictures each
    with sc.running(command("ours", place, f.rows, *more), log) as server:
        pair = janus_jax.load(place, dtype="float32")
        print(serve_identity.run(server.url, f.identity, *pair))


def main(_):
    f = flags.FLAGS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    logging.set_verbosity(logging.WARNING)  # the client's has a line for each request
    (soaked if f.soak else identical if f.identity else compared)(f)


if __name__ == "__main__":
    flags.DEFINE_string(
        "checkpoint", None, "A Janus; by default a random one of scaled-down shapes."
    )
    flags.DEFINE_string("out", None, "Where the .json, .md and .png go, without suffix.")
    flags.DEFINE_list("sides", list(SIDES), "Which servers: ours, one, transformers.")
    flags.DEFINE_list("clients", ["1", "4", "8", "16"], "How many ask at once in a closed loop.")
    flags.DEFINE_integer("each", 2, "Requests of each client.")
    flags.DEFINE_integer("least", 6, "Requests of a load at least.")
    flags.DEFINE_float("rate", 0.0, "Requests a second of the open loop; 0 leaves it out.")
    flags.DEFINE_integer("open", 24, "Requests of the open loop.")
    flags.DEFINE_integer("short", 20, "Short answers that are timed alone and beside drawings.")
    flags.DEFINE_integer("drawers", 3, "Clients that draw beside them.")
    flags.DEFINE_integer("rows", 16, "Rows of the server's engine.")
    flags.DEFINE_float("soak", 0.0, "Minutes of mixed load instead.")
    flags.DEFINE_integer("soakers", 8, "Clients of --soak.")
    flags.DEFINE_integer("identity", 0, "So many random requests instead, compared one by one.")
    flags.DEFINE_bool("toy", False, "Tiny shapes, to try the script.")
    app.run(main)
