"""What training makes of the first records of data sets: `python -m janus_jax.data show
--config=configs/stage1.py`, or `--kind=generation --path=captions.jsonl --images=pictures`.

Prints the tokens of each example as text. <control strings> are ids of their own, [576 x image] are
the slots that an image fills, and what the model learns to predict stands in «guillemets». Then the
first packed row of each stage. --out: the same as a page, FILE.html, with every id and position,
or as a picture, FILE.png.
"""

import dataclasses
import pathlib
import sys

from janus_jax.common import cli, outputs
from janus_jax.config.schema import KINDS
from janus_jax.data.editing import are_captions, are_edits
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.sources import SourceError
from janus_jax.data.tools import check, command
from janus_jax.data.tools.drawn_page import drawn_pages
from janus_jax.data.tools.first_row import first_rows, packed_row, row_lines
from janus_jax.data.tools.page import View, page
from janus_jax.data.tools.sheet import title
from janus_jax.data.tools.view import as_text, look, visible

FILES = (".html", ".png")


def show(name: str, line, source, encoders: dict, experiment, count: int) -> list[View]:
    """Prints the first `count` records of a data set that can be used, as each stage sees them.
    Returns what goes on the page.

    name, line: of the data set, as in a config.
    source: its records.
    encoders: example_encoder.ExampleEncoder by stage.
    experiment: the config, or None.
    """
    views = []
    for stages, encoder in alike(line.kind, encoders):
        shown, _, bad = look(line, source, encoder, count)
        facts = told(line, source, encoder, experiment, stages)
        views.append(View(title(name, line), facts, shown, bad))
        print(f"\n{title(name, line)}: {facts}")
        for why in bad:
            print(f"\n{visible(why)}")
        for example in shown:
            print(f"\n{visible(example.where)}: {example.told}\n{as_text(example.pieces)}")
            for k, (_, how) in enumerate(example.pictures, 1):
                print(f"  picture {k}: {how}")
    return views


def alike(kind: str, encoders: dict) -> list[tuple]:
    """(the stages, an encoder of theirs) for all that see records of a kind alike."""
    groups = {}
    for stage, encoder in encoders.items():
        # Of a picture to draw the ids alone are predicted, and only captions are cut to a sentence.
        unread = {"supervise": "all"} if kind == "generation" else {"first": 0.0}
        groups.setdefault(dataclasses.replace(encoder, **unread), []).append(stage)
    return [(stages, encoders[stages[0]]) for stages in groups.values()]


def told(line, source, encoder, experiment, stages: list[str]) -> str:
    """How stages see a data set, in words."""
    stage = experiment.stages.get(stages[0]) if experiment else None
    seen = f"as {', '.join(stages)} see{'s' if len(stages) == 1 else ''} them, " if stage else ""
    if experiment and not stage:
        seen = "which no stage packs into rows, as the released models would see them, "
    t = encoder.processor.template
    roles = f", {t.user!r} and {t.assistant!r}" if encoder.form == "chat" else ""
    learned = "all that is said"
    if encoder.supervise == "answers":
        learned = "answers alone" + (", and documents whole" if line.kind == "text" else "")
    if line.kind == "generation":
        learned = "the image"
        if stage and are_edits(source):
            shares = [x * (stage.condition_dropout > 0) for x in line.edit_dropout]
            learned += "; words, pictures and both are blanked in {:.0%}, {:.0%} and {:.0%}".format(
                *shares
            )
        elif not are_captions(source):
            learned = "answers, the images in them"
        elif stage:
            learned += (
                f"; {stage.condition_dropout:.0%} of the prompts are blanked when they are drawn"
            )
    elif roles and t.system:
        roles += f", system text {t.system!r}"
    return (
        f"{len(source):,} records, {seen}in rows of {encoder.rows.length} tokens; form "
        f"{encoder.form}{roles}; to predict: {learned}"
    )


def packed(lines: dict, sources: dict, experiment, stages: list[str], processor):
    """(the first packed row of each stage, why some have none); without a config a row of the data
    set that the flags name."""
    if experiment:
        return first_rows(experiment, stages, sources, processor)
    rows = []
    told = []
    for name, source in sources.items():
        line = lines[name]
        (encoder,) = check.encoders_of(line, None, [], processor).values()
        alone = Entry(name, line.kind, source, form=encoder.form, continues=line.continues)
        try:
            mixture = Mixture([alone], {kind: int(kind == line.kind) for kind in KINDS}, 0, 1)
            rows.append(packed_row("a row", mixture, encoder))
        except SourceError as error:
            told.append(f"no packed row: {error}")
    return rows, told


def define_flags(into):
    check.define_view(into)
    define = cli.Definer(into)
    define.whole("n", 3, "Records of each data set.", 1)
    define.output("out", None, "A page, FILE.html, or a picture of it, FILE.png.")


def _run(f, overrides: dict[str, str]) -> int:
    """The command; returns its exit code."""
    lines, experiment, stages = check.chosen_stages(f, overrides)
    if f.out:
        if not f.out.endswith(FILES):
            raise command.CommandError(
                f"--out={f.out}: must end with .html, a page, or .png, a picture of it"
            )
        command.writable(pathlib.Path(f.out).parent)
    sources, closed = check.open_all(lines, experiment)
    processor, note = check.processor_of(experiment, sources, f.tokenizer)
    notes = [note] if sources else []
    views = []
    print(*notes, sep="\n")
    for name, source in sources.items():
        encoders = check.encoders_of(lines[name], experiment, stages, processor)
        views += show(name, lines[name], source, encoders, experiment, f.n)
    rows, untold = packed(lines, sources, experiment, stages, processor)
    for text in untold:
        notes.append(text)
        print(f"\n{text}")
    if f.dataset and rows:
        notes.append(f"Packed rows are of {f.dataset} alone: --dataset leaves out the others.")
        print(f"\n{notes[-1]}")
    for row in rows:
        print("\n" + "\n".join(row_lines(row)))
    without = ", and packed rows are without it" if rows else ""
    for name, why in closed.items():
        notes.append(f"{name}: CANNOT BE OPENED{without}: {why}")
        print(f"\n{name}: CANNOT BE OPENED{without}\n  {visible(why)}")
    if f.out:
        _write(pathlib.Path(f.out), f.config or lines["data"].path, notes, views, rows)
    seen = {view.title for view in views if view.shown}
    none = [view.title for view in views if view.title not in seen]
    return command.UNUSABLE if closed or none else 0


def _write(out: pathlib.Path, of: str, notes: list, views: list, rows: list):
    print()
    if out.name.endswith(".html"):
        made = {out.name: page(f"What the model sees of {of}", notes, views, rows)}
    else:
        made = drawn_pages(notes, views, rows, out.name)
    for name, content in made.items():
        kept = outputs.replace(out.with_name(name), content)
        print(f"the page is {out.with_name(name)}{kept and f'; {kept}'}")


COMMAND = command.command(
    "python -m janus_jax.data show",
    "What training makes of the first records: every token, what is predicted, the images as they "
    "are resized, what is cut, and a packed row.",
    "python -m janus_jax.data show --kind=generation --path=captions.jsonl --images=pictures "
    "--out=shown.html",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.data show`."""
    return command.start(COMMAND, _run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
