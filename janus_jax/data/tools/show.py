"""What training makes of the first records of data sets: `python -m janus_jax.data show
--config=configs/stage1.py`, or `--kind=generation --path=captions.jsonl --images=pictures`.

Prints the tokens of each example as text. <control strings> are ids of their own, [576 x image] are
the slots that an image fills, and what the model learns to predict stands in «guillemets». --out: a
PNG of the images as the encoders get them.
"""

import itertools
import pathlib
import sys

from janus_jax.common import cli, outputs
from janus_jax.data.row_stream import BAD
from janus_jax.data.tools import check, command, survey
from janus_jax.data.tools.sheet import Band, sheets, title
from janus_jax.model import batch as bt


def as_text(example: dict, tokenizer) -> str:
    """An example's tokens, image slots and targets as one text."""
    roles = example["role"].tolist()
    supervised = example["supervised"].tolist()
    out = ""
    keys = zip(roles, supervised)
    at = 0
    for (role, predicted), span in itertools.groupby(keys):
        n = len(list(span))
        if role == bt.TEXT:
            ids = example["tokens"][at : at + n].tolist()
            part = tokenizer.backend.decode(ids, skip_special_tokens=False)
        else:
            part = f"[{n} x image]"
        out += f"«{part}»" if predicted else part
        at += n
    return out


def show(name: str, line, source, encoder, count: int) -> Band | None:
    """Prints the first `count` records of a data set that can be used; what goes on the sheet, or
    None."""
    print(f"\n{title(name, line)}, {len(source):,} records")
    used = []
    for i in range(len(source)):
        if len(used) == count:
            break
        try:
            record = source[i]
            examples = list(survey.parts(encoder, line, record, i))
            encoder.pixels(line.kind, source, i, record, examples[0])
        except BAD as error:
            print(f"\n{source.where(i)} cannot be used: {error}")
            continue
        used.append(i)
        for k, example in enumerate(examples):
            part = f" (part {k + 1} of {len(examples)})" if len(examples) > 1 else ""
            predicted = int(example["supervised"].sum())
            told = f"{len(example['tokens'])} tokens, {predicted} to predict"
            print(f"\n{source.where(i)}{part}: {told}")
            print(as_text(example, encoder.processor.tokenizer))
    return Band(title(name, line), line.kind, source, encoder, used) if used else None


def define_flags(into):
    check.define_view(into)
    define = cli.Definer(into)
    define.whole("count", 5, "Records of each data set.", 1)
    define.output("out", None, "A PNG file for the images.")


def _run(f, overrides: dict[str, str]) -> int:
    """The command; returns its exit code."""
    lines, experiment, stages = check.chosen_stages(f, overrides)
    if f.out:
        if not f.out.endswith(".png"):
            raise command.CommandError(f"--out={f.out}: must end with .png; it is a PNG file")
        command.writable(pathlib.Path(f.out).parent)
    sources, closed = check.open_all(lines, experiment)
    processor, note = check.processor_of(experiment, sources, f.tokenizer)
    if sources:
        print(note)
    bands = []
    for name, source in sources.items():
        encoders = check.encoders_of(lines[name], experiment, stages, processor)
        for encoder in itertools.islice(encoders.values(), 1):  # the first stage that draws it
            bands.append(show(name, lines[name], source, encoder, f.count))
    for name, why in closed.items():
        print(f"\n{name}: CANNOT BE OPENED\n  {why}")
    bands = [band for band in bands if band]
    if f.out and bands:
        out = pathlib.Path(f.out)
        print()
        for name, content in sheets(bands, out.name).items():
            kept = outputs.replace(out.with_name(name), content)
            print(f"the images are in {out.with_name(name)}{kept and f'; {kept}'}")
    return command.UNUSABLE if closed else 0


COMMAND = command.command(
    "python -m janus_jax.data show",
    "What training makes of the first records: tokens as text, what is predicted, and the images.",
    "python -m janus_jax.data show --kind=generation --path=captions.jsonl --images=pictures "
    "--out=shown.png",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.data show`."""
    return command.start(COMMAND, _run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
