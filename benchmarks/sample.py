"""Drawing and answering: ours beside transformers' Janus, the same random weights at the true 1.3B
shapes, alternating in one process, one process a dtype.

    python benchmarks/sample.py --checkpoint=/tmp/random-1.3b --out=benchmarks/results/sample-cpu

The checkpoint is in transformers' layout (`make_checkpoint.py --layout=transformers` makes one).
Times are minima over the repetitions; image tokens are timed in the middle of a picture (ours from
position 352 to 384, theirs from 321 to 329), where our cache is as long as on average. Theirs:
`generate` itself, with its default (static) cache of a whole picture, and with a dynamic cache.
Ratios stand beside how far the two sides' logits lie from float32's.
"""

import dataclasses
import gc
import inspect
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import jax
import machine
import numpy as np
import torch
import transformers
from absl import app, flags

import janus_jax
from janus_jax.model import sharding as sh
from janus_jax.model.serving import cache_dtype
from janus_jax.sample import decode
from janus_jax.sample.cache import put
from janus_jax.sample.generate import decode_ids
from janus_jax.sample.reading import Prompt

BOS, PAD, BOI = 1, 3, 4  # any ids do: the weights are random


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the jobs, by default those of Janus-1.3B.

    prompt: tokens before the timed ones.
    drawn: how many of those.
    asked: of a question.
    seen: how many tokens of it are a picture.
    picture: how many tokens a drawing has.
    middle: places of a whole picture's cache behind a prompt of 32.
    side: of a picture.
    codes: of the codebook.
    compared: positions whose logits are compared.
    """

    prompt: int = 320
    drawn: int = 32
    asked: int = 600
    seen: int = 576
    picture: int = 576
    middle: int = 608
    side: int = 384
    codes: int = 16384
    compared: int = 64


SHAPE = Shape()


def inputs(picture_id: int, shape: Shape = SHAPE) -> dict:
    rng = np.random.default_rng(0)
    drawing = rng.integers(100, 400, (1, shape.prompt)).astype(np.int32)
    drawing[0, 0], drawing[0, -1] = BOS, BOI
    unconditional = np.full_like(drawing, PAD)
    unconditional[0, 0], unconditional[0, -1] = BOS, BOI
    asking = rng.integers(100, 400, (1, shape.asked)).astype(np.int32)
    asking[0, 0], asking[0, 4 : 4 + shape.seen] = BOS, picture_id
    return {
        "drawing": drawing, "unconditional": unconditional, "asking": asking,
        "pixels": rng.uniform(-1, 1, (1, shape.side, shape.side, 3)).astype(np.float32),
        "forced": rng.integers(0, shape.codes, (1, shape.compared)).astype(np.int32),
    }  # fmt: skip


class Ours:
    """janus_jax in the dtype that the model was loaded with."""

    def __init__(self, model, shape: Shape = SHAPE):
        jax.set_mesh(sh.make_mesh(1, 1, 1, jax.devices()[:1]))
        self.model, self.shape = model, shape

    @classmethod
    def load(cls, checkpoint: str, dtype: str, shape: Shape = SHAPE):
        return cls(janus_jax.load(checkpoint, dtype=dtype)[0], shape)

    def draw(self, data, tokens: int, images: int = 1, temperature: float = 1.0):
        pair = Prompt(data["drawing"][0]), Prompt(data["unconditional"][0])
        seeds, numbers = [0] * images, list(range(images))
        pairs = [pair] * images
        return decode.image_ids(self.model, pairs, seeds, numbers, 5.0, temperature, tokens)

    def answer(self, data, tokens: int):
        found = decode.features(self.model, data["pixels"])[0]
        places = np.arange(self.shape.asked)
        is_shown = (places >= 4) & (places < 4 + self.shape.seen)
        seen = np.zeros((self.shape.asked, found.shape[1]), found.dtype)
        seen[is_shown] = found
        prompt = Prompt(data["asking"][0], seen, is_shown)
        return np.stack(decode.text_ids(self.model, [prompt], [0], -1, 0.0, 1.0, tokens))

    def pixels(self, data, images: int = 1):
        return decode_ids(self.model, np.resize(data["forced"], (images, self.shape.picture)))

    def logits(self, data) -> dict:
        @jax.jit
        def run(model, tokens, ids):
            x = jax.numpy.concatenate([model.text_embedding(tokens), model.embed_image_ids(ids)], 1)
            at = jax.numpy.arange(x.shape[1])
            hidden = model.transformer(x, at[None], jax.numpy.ones(x.shape[:2], int))
            hidden = hidden[:, -self.shape.compared :]
            return model.image_head(hidden), model.text_head(hidden)

        image, text = run(self.model, put(data["drawing"]), put(data["forced"]))
        return {"image": np.asarray(image, np.float32), "text": np.asarray(text, np.float32)}

    def read_per_token(self, length: int, images: int = 1) -> float:
        """Bytes that drawing a token must read: layers, image head, adaptor, and the filled
        cache."""
        m = self.model
        c, weights = m.transformer.config, (m.transformer, m.image_head, m.generation_adaptor)
        size = cache_dtype(m.transformer.dtype).itemsize
        cache = 2 * images * 2 * c.layers * length * c.width * size
        return sum(x.nbytes for x in jax.tree.leaves(weights)) + cache


class Theirs:
    """transformers' JanusForConditionalGeneration in one dtype."""

    def __init__(self, checkpoint: str, dtype: str, shape: Shape = SHAPE):
        self.shape = shape
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        kind = torch.float32 if dtype == "float32" else torch.bfloat16
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        cls = transformers.JanusForConditionalGeneration
        self.model = cls.from_pretrained(checkpoint, dtype=kind).to(self.device).eval()
        self.model.generation_config.update(bos_token_id=BOS, pad_token_id=PAD, eos_token_id=None)
        self.model.generation_config.generation_kwargs = {"boi_token_id": BOI}

    def tensor(self, x):
        return torch.from_numpy(np.asarray(x)).to(self.device)

    @torch.inference_mode()
    def draw(self, data, tokens: int, images: int = 1, cache: str = "static"):
        self.model.model.vision_model.config.num_image_tokens = tokens
        named = inspect.signature(self.model.forward).parameters
        name = "cache" if "cache" in named else "past_key_values"  # before transformers 5.24
        more = {name: transformers.DynamicCache()} if cache == "dynamic" else {}
        ids = self.tensor(data["drawing"]).long().repeat(images, 1)
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_mode="image", do_sample=True,
            guidance_scale=5.0, max_length=self.shape.middle, **more,
        )  # fmt: skip
        self.model.model.vision_model.config.num_image_tokens = self.shape.picture
        return out.cpu()

    @torch.inference_mode()
    def answer(self, data, tokens: int):
        ids = self.tensor(data["asking"]).long()
        return self.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_mode="text", do_sample=False,
            pixel_values=self.tensor(data["pixels"]).permute(0, 3, 1, 2).to(self.model.dtype),
            max_new_tokens=tokens, min_new_tokens=tokens,
        ).cpu()  # fmt: skip

    @torch.inference_mode()
    def pixels(self, data, images: int = 1):
        ids = self.tensor(np.resize(data["forced"], (images, self.shape.picture))).long()
        return self.model.decode_image_tokens(ids).float().cpu()

    @torch.inference_mode()
    def logits(self, data) -> dict:
        m = self.model
        x = torch.cat([
            m.get_input_embeddings()(self.tensor(data["drawing"]).long()),
            m.prepare_embeddings_for_image_generation(self.tensor(data["forced"]).long()),
        ], 1)  # fmt: skip
        hidden = m.model.language_model(inputs_embeds=x).last_hidden_state
        hidden = hidden[:, -self.shape.compared :]
        image, text = m.model.generation_head(hidden), m.lm_head(hidden)
        return {"image": image.float().cpu().numpy(), "text": text.float().cpu().numpy()}


def bandwidth() -> float:
    """Bytes a second of reading memory: the sum of 2 GB, best of 7."""
    if torch.cuda.is_available():
        x, done = torch.ones(1 << 29, device="cuda"), torch.cuda.synchronize
    elif jax.default_backend() != "cpu":
        x, total = jax.numpy.ones(1 << 29), jax.jit(lambda x: x.sum())
        return max(4 * x.size / seconds(lambda: total(x).block_until_ready()) for _ in range(7))
    else:
        x, done = torch.ones(1 << 29), lambda: None
    return max(4 * x.numel() / seconds(lambda: (x.sum(), done())) for _ in range(7))


def seconds(f) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def jobs(ours: Ours | None, theirs: Theirs | None, data, counts: list[int]) -> dict:
    """name -> what is timed, of the sides that there are. A job's marginal cost is that of `drawn`,
    8 or 16 more tokens, so that prefill and host work fall out."""
    out = {}
    few = ours.shape.drawn if ours else 0
    for n in counts:
        if ours:
            out[f"draw {n} ours less"] = lambda n=n: ours.draw(data, few, n)
            out[f"draw {n} ours more"] = lambda n=n: ours.draw(data, 2 * few, n)
            out[f"pixels {n} ours"] = lambda n=n: ours.pixels(data, n)
        if theirs:
            for cache in ("static", "dynamic"):
                out[f"draw {n} {cache} less"] = lambda n=n, c=cache: theirs.draw(data, 1, n, c)
                out[f"draw {n} {cache} more"] = lambda n=n, c=cache: theirs.draw(data, 9, n, c)
            out[f"pixels {n} theirs"] = lambda n=n: theirs.pixels(data, n)
    if ours:
        out["answer ours less"] = lambda: ours.answer(data, 16)
        out["answer ours more"] = lambda: ours.answer(data, 32)
        out["first ours"] = lambda: ours.answer(data, 1)
    if theirs:
        out["first theirs"] = lambda: theirs.answer(data, 1)
        out["answer theirs more"] = lambda: theirs.answer(data, 9)
    return out


def time_all(ours: Ours, theirs: Theirs | None, data, repeats: int, counts: list[int]) -> dict:
    """Minimum seconds of each job, the sides taking turns."""
    found = jobs(ours, theirs, data, counts)
    for job in found.values():
        job()  # compiles, and touches the weights
    times = {name: [] for name in found}
    for i in range(repeats):
        for name, job in found.items():
            times[name].append(seconds(job))
        print(
            f"  repetition {i + 1} of {repeats}, load {os.getloadavg()[0]:.1f}",
            file=sys.stderr,
            flush=True,
        )
    return {name: min(took) for name, took in times.items()}


def child(
    checkpoint: str,
    dtype: str,
    repeats: int,
    counts: list[int],
    reference: str,
    shape: Shape = SHAPE,
) -> dict:
    """Both sides in one dtype (int8: theirs in bfloat16). float32's logits are left in
    `reference`."""
    config = json.loads((pathlib.Path(checkpoint) / "config.json").read_text())
    data = inputs(config["image_token_id"], shape)
    theirs = (
        Theirs(checkpoint, dtype, shape)
        if torch.cuda.is_available() or jax.default_backend() == "cpu"
        else None
    )
    ours = Ours.load(checkpoint, dtype, shape)
    sides = {"ours": ours} | ({"theirs": theirs} if theirs else {})
    logits = {side: it.logits(data) for side, it in sides.items()}
    if dtype == "float32":
        np.savez(reference, **logits["theirs" if theirs else "ours"])
    want = np.load(reference)
    agreement = {
        side: {
            head: {
                "relative error": float(
                    np.linalg.norm(x - want[head]) / np.linalg.norm(want[head])
                ),
                "same likeliest id": float((x.argmax(-1) == want[head].argmax(-1)).mean()),
            }
            for head, x in found.items()
        }
        for side, found in logits.items()
    }
    del logits, want
    gc.collect()
    found = time_all(ours, theirs, data, repeats, counts)
    read = {n: ours.read_per_token(shape.prompt + 2 * shape.drawn, n) for n in counts}
    return {"agreement": agreement, "seconds": found, "bytes": read, "bandwidth": bandwidth()}


def memory(side: str, checkpoint: str, dtype: str, shape: Shape = SHAPE) -> dict:
    """Peak memory of one side alone: load, draw, answer, decode. GB of this process (or of the
    device)."""
    config = json.loads((pathlib.Path(checkpoint) / "config.json").read_text())
    data = inputs(config["image_token_id"], shape)
    it = {"ours": Ours.load, "theirs": Theirs}[side](checkpoint, dtype, shape)
    for job in (lambda: it.draw(data, 2), lambda: it.answer(data, 2), lambda: it.pixels(data)):
        job()
    anonymous = next(
        x for x in pathlib.Path("/proc/self/status").read_text().splitlines() if "RssAnon" in x
    )
    stats = jax.local_devices()[0].memory_stats() or {}
    return {
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "held": int(anonymous.split()[1]) / 1e6,
        "device": stats.get("peak_bytes_in_use", 0) / 1e9,
    }


def table(results: dict, shape: Shape = SHAPE) -> str:
    """One row a measure and dtype: ours, theirs, the ratio (above 1: ours is better)."""
    lines = [
        "| dtype | measure | ours | transformers | ratio | logit error ours / theirs |",
        "|---|---|---|---|---|---|",
    ]

    def row(dtype, measure, ours, theirs, higher_is_better, agreement="", digits=2):
        ratio = (ours / theirs if higher_is_better else theirs / ours) if theirs else None
        show = lambda x: "-" if x is None else f"{x:.{digits}f}"
        lines.append(
            f"| {dtype} | {measure} | {show(ours)} | {show(theirs)} | "
            f"{'-' if ratio is None else f'{ratio:.2f}x'} | {agreement} |"
        )

    for dtype, r in results["dtypes"].items():
        t, a = r["seconds"], r["agreement"]
        errors = {
            head: " / ".join(f"{side[head]['relative error']:.1e}" for side in a.values())
            for head in ("image", "text")
        }
        for n in results["images"]:
            ours = n * shape.drawn / (t[f"draw {n} ours more"] - t[f"draw {n} ours less"])
            for cache, name in (("static", "default (static) cache"), ("dynamic", "dynamic cache")):
                theirs = None
                if f"draw {n} {cache} more" in t:
                    theirs = n * 8 / (t[f"draw {n} {cache} more"] - t[f"draw {n} {cache} less"])
                row(
                    dtype, f"image tokens/s, {n} image, {name}", ours, theirs, True, errors["image"]
                )
            share = r["bytes"][n] * ours / n / r["bandwidth"]
            gigabytes = r["bytes"][n] / 1e9
            lines.append(
                f"| {dtype} | bytes read a step, {n} image | {gigabytes:.2f} GB, {share:.0%} of "
                f"{r['bandwidth'] / 1e9:.1f} GB/s | | | |"
            )
            row(
                dtype,
                f"VQ decode s, {n} image",
                t[f"pixels {n} ours"],
                t.get(f"pixels {n} theirs"),
                False,
            )
        first, theirs = t["first ours"], t.get("first theirs")
        row(
            dtype,
            f"first token of a {shape.asked}-token picture prompt, s",
            first,
            theirs,
            False,
            errors["text"],
        )
        ours = 16 / (t["answer ours more"] - t["answer ours less"])
        theirs = 8 / (t["answer theirs more"] - theirs) if theirs else None
        row(dtype, "text tokens/s", ours, theirs, True, errors["text"])
        for kind in ("peak", "held"):
            sides = [r["memory"].get(side, {}).get(kind) for side in ("ours", "theirs")]
            row(dtype, f"{kind} memory GB", *sides, False)
        agree = ", ".join(f"{head} {x['same likeliest id']:.2f}" for head, x in a["ours"].items())
        lines.append(f"| {dtype} | ours: same likeliest id as float32 | {agree} | | | |")
    return "\n".join(lines)


def run_child(*arguments: str) -> dict:
    """This script in a process of its own, so that one dtype's memory is gone before the next."""
    command = [sys.executable, __file__, f"--checkpoint={FLAGS.checkpoint}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


FLAGS = flags.FLAGS


def main(_):
    counts = FLAGS.images or (["1"] if jax.default_backend() == "cpu" else ["1", "16"])
    counts = [int(n) for n in counts]
    if FLAGS.part and ":" in FLAGS.part:
        print(
            json.dumps(memory(FLAGS.part.split(":")[0], FLAGS.checkpoint, FLAGS.part.split(":")[1]))
        )
        return
    if FLAGS.part:
        print(
            json.dumps(child(FLAGS.checkpoint, FLAGS.part, FLAGS.repeats, counts, FLAGS.reference))
        )
        return
    if FLAGS.dtypes[0] != "float32":
        raise ValueError(
            f"--dtypes={','.join(FLAGS.dtypes)}: float32 comes first, the others are measured by it"
        )
    results = {"images": counts, "repeats": FLAGS.repeats, "dtypes": {}}
    results["machine"] = machine.name(jax.devices()[0])
    results["versions"] = {m.__name__: m.__version__ for m in (jax, torch, transformers)}
    reference = pathlib.Path(tempfile.mkdtemp()) / "logits.npz"
    images = "--images=" + ",".join(map(str, counts))
    for dtype in FLAGS.dtypes:
        print(f"{dtype}: times", file=sys.stderr, flush=True)
        found = run_child(
            f"--part={dtype}", images, f"--repeats={FLAGS.repeats}", f"--reference={reference}"
        )
        found["bytes"] = {int(n): x for n, x in found["bytes"].items()}
        print(f"{dtype}: memory", file=sys.stderr, flush=True)
        sides = ["ours"] + (["theirs"] if "theirs" in found["agreement"] else [])
        found["memory"] = {side: run_child(f"--part={side}:{dtype}") for side in sides}
        results["dtypes"][dtype] = found
    shutil.rmtree(reference.parent)
    text = f"{results['machine']}; {results['versions']}\n\n{table(results)}\n"
    print(text)
    if FLAGS.out:
        out = pathlib.Path(FLAGS.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".json").write_text(json.dumps(results, indent=1))
        out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", None, "A Janus in transformers' layout.", required=True)
    flags.DEFINE_list(
        "dtypes", ["float32", "bfloat16", "int8"], "float32 must come first: it is the measure."
    )
    flags.DEFINE_list("images", None, "Images drawn at once; by default 1, with a GPU 1 and 16.")
    flags.DEFINE_integer("repeats", 5, "Each job's time is the least of so many.")
    flags.DEFINE_string("out", None, "Where the .json and .md go, without suffix.")
    flags.DEFINE_string("part", None, "For the script itself: DTYPE, or SIDE:DTYPE for memory.")
    flags.DEFINE_string("reference", None, "For the script itself: where float32's logits are.")
    app.run(main)
