"""`janus-jax eval tokenizer`: what is left of pictures that go through a VQ tokenizer and back.

Of a folder, or of a data set's pictures: originals/ and reconstructions/, whose Fréchet distance
`janus-jax eval distance` takes (rFID); PSNR, SSIM, LPIPS; how the codebook is used; a sheet.
"""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import time

from janus_jax.common import cli, provenance
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.outputs import require_writable
from janus_jax.common.text import differences, listed
from janus_jax.config.schema import Experiment
from janus_jax.data import image_ids
from janus_jax.data.catalog import open_dataset
from janus_jax.data.tools import command
from janus_jax.distributed import compile_cache, initialize, processes, shares
from janus_jax.distributed.platform import require_devices
from janus_jax.eval import record
from janus_jax.eval.intervals import bootstrap, total
from janus_jax.eval.reconstruct import Reconstructor, usage
from janus_jax.eval.reconstructions import PARTS, Pairs, fill_pairs, gather_pairs, pairs_sheet
from janus_jax.model.config import GenerationEncoderConfig, to_dict
from janus_jax.training.perceptual import lpips_files, read_lpips
from janus_jax.training.tokenize_images import chosen
from janus_jax.weights import run_checkpoint
from janus_jax.weights import table as tb
from janus_jax.weights.own import sizes as config_sizes
from janus_jax.weights.source import open_source
from janus_jax.weights.vq_parts import vq_sizes


def define_flags(into):
    """The command's own flags; those of the data set are command.define_flags's."""
    define = cli.Definer(into)
    whole = functools.partial(define.whole, lower_bound=0)
    about = "Whose tokenizer: any weights that have one, as in a stage's init."
    define.path("weights", None, about, required=True)
    define.output(
        "out", None, "The folder of the result; the same command goes on there.", required=True
    )
    whole("size", 0, "Pixels a side; 0: as the model or the config says.")
    whole("limit", 0, "So many pictures, from the first on; 0: all.")
    about = "LPIPS's weights: VGG16 and the heads, two files separated by a comma, or one."
    define.text("lpips", "", about)
    whole("batch", 0, "Pictures that a device takes at once; 0: 16, or 4 on CPU.")
    whole("threads", 0, "Threads that read and write pictures; 0: one a core.")
    define.switch("allow_pickle", False, "--weights may be PyTorch's .pt; tensors only.")


def tokenizer_command(f, overrides: dict[str, str]) -> int:
    """The command; returns its exit code."""
    logging.getLogger("jax").setLevel(logging.WARNING)  # of backends that are not there
    out = pathlib.Path(f.out)
    require_writable(out, "--out")
    initialize.initialize()
    require_devices()
    compile_cache.keep()
    begun = time.time()
    _, line, experiment = chosen(f, overrides)
    source = open_source(f.weights, allow_pickle=f.allow_pickle).require()
    sizes = sizes_of(f, source, experiment)
    pictures = open_dataset(line, sizes.image_size, experiment.seed if experiment else 0, bare=True)
    count = min(f.limit or len(pictures), len(pictures))
    pairs = Pairs(pictures, count, sizes.image_size, out)
    weights = read_lpips(f.lpips) if f.lpips else None
    settings = settings_of_pairs(f, source, sizes, pairs)
    processes.require_equal({"the settings of this result": provenance.settings_mark(settings)})
    processes.all_or_none(lambda: processes.is_lead() and begin(out, settings))
    initialize.require_shared(out, "--out")
    loaded = functools.cache(lambda: Reconstructor(source, sizes, weights, f.batch))
    made = any(processes.all_gather(fill_pairs(pairs, loaded, f.threads or os.cpu_count())))

    def report():
        if not made and (out / record.REPORT).is_file():
            found = record.read_report(out)
        else:
            found = write_report(pairs, sizes, settings, begun)
        told = ", ".join(f"{name} {one['value']:.4g}" for name, one in found["scores"].items())
        print(f"{out}: {count:,} pictures: {told}")
        print(f"rFID: janus-jax eval distance {out} {out}/originals --inception=FILE")

    processes.all_or_none(lambda: processes.is_lead() and report())
    return 0


def begin(out: pathlib.Path, settings: dict):
    """The folder of a result, made or found again. Raises UsageError where it is another's."""
    provenance.begin(out, settings)
    shares.forget(out / PARTS)


def sizes_of(f, source, experiment: Experiment | None) -> GenerationEncoderConfig:
    """The sizes of the tokenizer, with the pictures' as image_size. Raises UsageError where they
    are not known, are not those of the config, or do not go with --size."""
    model = experiment.model if experiment else source.config
    if model is None and source.kind == tb.CHECKPOINT:  # of a stage that trains a tokenizer alone
        model = config_sizes(run_checkpoint.run_config(source.path).get("model"), source.path)
    shapes = {name: shape for name, (shape, _) in source.leaves.items()}
    try:
        sizes = vq_sizes(shapes, (tb.unshaped(model) if model else {}) | source.unshaped)
    except ValueError as error:
        raise UsageError(
            f"--weights={f.weights}: {error}; it is {source.kind}; take weights with a tokenizer, or "
            "name the --config whose model it is"
        ) from None
    if model:
        told = dataclasses.asdict(model.generation_encoder)
        sizes = dataclasses.replace(sizes, image_size=told["image_size"])
        if wrong := differences(told, dataclasses.asdict(sizes), "generation_encoder."):
            raise UsageError(
                f"--weights={f.weights}: its tokenizer is not that of the config; config -> weights:"
                f"{listed(wrong)}\nname the --config whose model it is"
            )
    elif not f.size:
        raise UsageError(
            "--size: missing; a tokenizer alone does not say for which pictures it is (LlamaGen's "
            "ImageNet figures are of 256 pixels, Janus takes 384)"
        )
    side = f.size or sizes.image_size
    if side % sizes.stride or side < max(16, sizes.stride):
        raise UsageError(
            f"--size={side}: must be a multiple of the tokenizer's stride of {sizes.stride}, and 16 at "
            "least, which LPIPS and SSIM need"
        )
    return dataclasses.replace(sizes, image_size=side)


def settings_of_pairs(f, source, sizes: GenerationEncoderConfig, pairs: Pairs) -> dict:
    """All that changes the result."""
    given = pathlib.Path(f.weights)
    hashed = given if given.is_file() else source.path
    return {
        "benchmark": "tokenizer",
        "protocol": "reconstruction",
        "model": {
            "name": f.weights, "sha256": provenance.weights_hash(hashed), "layout": source.kind,
            **to_dict(sizes), "multipliers": list(sizes.multipliers),
        },
        "pictures": {
            "source": repr(pairs.source), "fingerprint": image_ids.pictures_of(pairs.source), "count": pairs.count,
            "preprocessing": "upright RGB, short side and centre square in one bicubic pass",
        },
        "reconstruction": "clip(127.5 x + 128), whole numbers",
        "lpips": {file.name: provenance.digest(file) for file in lpips_files(f.lpips)},
    }  # fmt: skip


def write_report(
    pairs: Pairs, sizes: GenerationEncoderConfig, settings: dict, begun: float
) -> dict:
    """Scores, report.json, report.md and sheet.png of a folder that is filled; returns the report.

    Intervals are of pictures drawn again. The codebook's figures have none: a draw of the same
    pictures repeats codes, so it would always show fewer.
    """
    measured, counts = gather_pairs(pairs, sizes.codebook_size)
    units = [dict(zip(measured, map(float, row))) | {"n": 1.0} for row in zip(*measured.values())]
    means = lambda sums: {name: sums[name] / sums["n"] for name in measured}
    intervals = bootstrap(units, means)
    scores = means(total(units)) | usage(counts)
    report = {
        "settings": settings,
        "environment": record.environment(),
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(time.time() - begun, 1),
        "headline": "psnr",
        "reported": [],
        "counts": {
            "asked": pairs.count, "made": pairs.count, "missing": 0, "codes": int(counts.sum()),
            "codes_used": int((counts > 0).sum()),
        },
        "scores": {
            name: {"value": value, "interval": intervals.get(name), "chance": None, "of": pairs.count}
            for name, value in scores.items()
        },
        "scorer": "janus_jax",
    }  # fmt: skip
    pairs_sheet(pairs, measured).save(pairs.folder / "sheet.png")
    record.write(pairs.folder, json.loads(json.dumps(report)))  # the last: it stands for all
    return report


COMMAND = command.command(
    "python -m janus_jax.eval tokenizer",
    "A VQ tokenizer's reconstructions of pictures: PSNR, SSIM, LPIPS, the use of its codebook, and the "
    "folders whose Fréchet distance is the rFID.",
    "python -m janus_jax.eval tokenizer --weights=VQ-16.pt --allow_pickle --size=256 --path=imagenet/val "
    "--out=scores/vq16",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words after `tokenizer`."""
    return command.start(COMMAND, tokenizer_command, argv)
