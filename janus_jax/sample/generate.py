"""Words to pictures: `janus_jax.generate`, and the command

python -m janus_jax.sample.generate --model=DIR --prompt="a red circle" --out=DIR
"""

import functools
import importlib.metadata
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from PIL.PngImagePlugin import PngInfo

from janus_jax import sharding as sh
from janus_jax.data.images import contact_sheet, to_pil
from janus_jax.data.messages import check_text
from janus_jax.sample import decode, memory, options, terminal

AT_ONCE = 16  # pictures that the command draws together; more would only take more memory


def generate_ids(
    model, processor, prompts, *, cfg_scale=None, temperature=None, seed=0, images_per_prompt=1,
    progress=None,
) -> np.ndarray:  # fmt: skip
    """The image ids of `generate`: int32 [len(prompts) * images_per_prompt, N], row-major by prompt.

    The draw of picture k of a prompt depends on its seed, k and the prompt only, not on its neighbours.
    seed: one number, or one a prompt. Raises ValueError that lists the options or prompts that cannot be used.
    """
    prompts = list(prompts) if isinstance(prompts, list | tuple) else [prompts]
    cfg_scale, temperature = settings(processor, cfg_scale, temperature)
    options.check(cfg_scale=cfg_scale, temperature=temperature, images_per_prompt=images_per_prompt)
    if not prompts:
        raise ValueError("prompts: 0 prompts were given; give at least one")
    asked, problems = [], []
    for i, prompt in enumerate(prompts):
        try:
            asked.append(processor.request(prompt, f"prompts[{i}]"))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    rows = [ids for ids in asked for _ in range(images_per_prompt)]
    keys = [
        jax.random.fold_in(jax.random.key(number), k)
        for number in options.seeds(seed, len(prompts), "prompts")
        for k in range(images_per_prompt)
    ]
    sh.ensure_mesh()
    count = decode.padded_rows(len(rows))
    pad, steps = processor.tokenizer.pad, processor.generation_tokens
    conditional, starts = decode.left_pad(rows, pad, count)
    unconditional, _ = decode.left_pad([processor.unconditional(row) for row in rows], pad, count)
    keys = jnp.stack([*keys, *[keys[-1]] * (count - len(rows))])
    ids = decode.image_ids(
        model, conditional, unconditional, starts, keys, cfg_scale, temperature, steps,
        progress and (lambda done: progress(done, steps)),
    )  # fmt: skip
    return ids[: len(rows)]


def generate(
    model, processor, prompts, *, cfg_scale=None, temperature=None, seed=0, images_per_prompt=1,
    progress=None,
) -> list:  # fmt: skip
    """Draws `images_per_prompt` pictures for each prompt: a list of PIL images, row-major by prompt.

    cfg_scale: classifier-free guidance, 1 is the conditional branch alone, 0 the unconditional; temperature: 0
    takes the likeliest id each time. By default both are what the weights directory says its model draws best
    with: 5.0 and 1.0 (paper section 3.4) unless its config said otherwise. progress(done, total) is called as
    image tokens are drawn. See `generate_ids` for seeds and errors.
    """
    ids = generate_ids(
        model, processor, prompts, cfg_scale=cfg_scale, temperature=temperature, seed=seed,
        images_per_prompt=images_per_prompt, progress=progress,
    )  # fmt: skip
    return to_pil(decode_ids(model, ids))


def settings(processor, cfg_scale, temperature) -> tuple:
    """Guidance and temperature, the processor's where None."""
    return (
        processor.cfg_scale if cfg_scale is None else cfg_scale,
        processor.temperature if temperature is None else temperature,
    )


def decode_ids(model, ids: np.ndarray) -> np.ndarray:
    """Image ids [B, N] to float32 pixels [B, H, W, 3], through the VQ decoder."""
    sh.ensure_mesh()
    grid, count = model.config.generation_encoder.grid, decode.padded_rows(len(ids))
    padded = np.concatenate([ids, np.repeat(ids[-1:], count - len(ids), 0)])
    return np.asarray(_render(model.generation_encoder, jax.device_put(padded, sh.BATCH), grid))[: len(ids)]


@functools.partial(jax.jit, static_argnums=2)
def _render(encoder, ids, grid):
    return encoder.decode(ids, grid)


def save(picture, folder, name: str, **facts) -> pathlib.Path:
    """Writes a picture as FOLDER/`name`.png, the `facts` about it inside as PNG text; the path."""
    folder, told = pathlib.Path(folder), PngInfo()
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in (facts | {"janus_jax": version()}).items():
        told.add_itxt(key, str(value))
    path = folder / f"{name}.png"
    picture.save(path, pnginfo=told)
    return path


def file_name(prompt: str) -> str:
    return re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60] or "picture"


def version() -> str:
    try:
        return importlib.metadata.version("janus_jax")
    except importlib.metadata.PackageNotFoundError:
        return "not installed, run from its source"


def read_prompts(path) -> list[str]:
    """One prompt a line of a UTF-8 text file; empty lines, BOM, CR and NUL are dropped. Raises ValueError."""
    raw = pathlib.Path(path).read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        check_text(raw, str(path))
        raise
    prompts = [line.strip("\0\r\t ") for line in text.split("\n")]
    return [prompt for prompt in prompts if prompt]


def main(_):
    from absl import flags

    from janus_jax.convert.source import open_source
    from janus_jax.weights import load

    f = flags.FLAGS
    prompts = [*(f.prompt or []), *(read_prompts(f.prompts_file) if f.prompts_file else [])]
    if not prompts:
        raise ValueError("no prompt: give --prompt, or --prompts_file with a prompt a line")
    given = {"cfg_scale": f.cfg_scale, "temperature": f.temperature}
    options.check(
        **{name: x for name, x in given.items() if x is not None}, images_per_prompt=f.n, seed=f.seed
    )
    source, count = open_source(f.model, allow_pickle=f.allow_pickle), len(prompts) * f.n
    step = max(1, AT_ONCE // f.n)
    slices = [prompts[i : i + step] for i in range(0, len(prompts), step)]
    drawings = len(slices[0]) * f.n
    rows = drawings if f.cfg_scale in (0, 1) else 2 * drawings  # guidance runs each picture twice
    work = dict(rows=rows, pictures=0, drawings=drawings)
    memory.announce(f.model, source, f.dtype, text=max(map(len, prompts)) // 3 + 32, **work)
    model, processor = load(f.model, dtype=f.dtype, allow_pickle=f.allow_pickle)
    pictures, given = [], given | dict(seed=f.seed, images_per_prompt=f.n)
    with terminal.Progress(count) as bar:
        for i, some in enumerate(slices):
            tell = lambda done, total, i=i: bar(i * total + done, len(slices) * total)
            pictures += generate(model, processor, some, progress=tell, **given)
    cfg_scale, temperature = settings(processor, f.cfg_scale, f.temperature)
    facts = dict(cfg_scale=cfg_scale, temperature=temperature, seed=f.seed, model=f.model)
    captions, names = [prompt for prompt in prompts for _ in range(f.n)], list(map(file_name, prompts))
    for i, (picture, caption) in enumerate(zip(pictures, captions)):
        row, k = divmod(i, f.n)
        name = names[row] if len(set(names)) == len(names) else f"{names[row]}-{row}"
        path = save(picture, f.out, f"{name}-{k}", prompt=caption, index=k, **facts)
        print(f"{path}  {caption!r}, {picture.width} x {picture.height}")
    columns, scale = min(len(pictures), max(f.n, 6)), max(1, 192 // pictures[0].width)
    contact_sheet(pictures, captions, columns=columns, scale=scale).save(pathlib.Path(f.out) / "sheet.png")
    print(pathlib.Path(f.out) / "sheet.png")


def define_flags():
    from absl import flags

    flags.DEFINE_string(
        "model", None, "A weights directory or hub id, such as runs/quickstart/stage3.", required=True
    )
    flags.DEFINE_multi_string("prompt", None, "What to draw; may be given several times.")
    flags.DEFINE_string("prompts_file", None, "A text file with a prompt a line.")
    flags.DEFINE_string("out", "pictures", "Folder for the PNG files.")
    flags.DEFINE_string("dtype", None, "float32, bfloat16 or int8; by default as the weights are stored.")
    flags.DEFINE_bool("allow_pickle", False, "Read PyTorch's .bin files, tensors only.")
    flags.DEFINE_integer("n", 1, "Pictures per prompt.")
    flags.DEFINE_float("cfg_scale", None, "Classifier-free guidance; by default what the weights suggest.")
    flags.DEFINE_float("temperature", None, "0 takes the likeliest id; by default what the weights suggest.")
    flags.DEFINE_integer("seed", 0, "Same seed, same pictures.")


if __name__ == "__main__":
    from absl import app

    define_flags()
    app.run(lambda argv: terminal.plainly(main, argv))
