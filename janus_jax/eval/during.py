"""What a stage has learned so far, to look at: a sheet of drawings and answers at each evaluation.

The prompts and questions are the user's own and those of held-out records, the same every time.
"""

import dataclasses
import functools
import importlib
import io
from contextlib import contextmanager, nullcontext

import jax
import numpy as np
from flax import nnx
from PIL import Image

from janus_jax.common import files
from janus_jax.common.contact_sheet import contact_sheet
from janus_jax.data.image_files import ImageError
from janus_jax.data.images import generation_image, understanding_image
from janus_jax.data.sources import RecordError
from janus_jax.distributed import arrays, processes
from janus_jax.eval.during_asked import NOTHING, conversation, read_asked
from janus_jax.model import batch as bt
from janus_jax.model import low_rank_layers
from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax
from janus_jax.model.serving import serving
from janus_jax.sample.generate import generate, to_pil
from janus_jax.sample.understand import understand_batch
from janus_jax.training import tokenizer_loss
from janus_jax.training.log import Log
from janus_jax.training.stage_mixture import entries_of
from janus_jax.training.stage_plan import StagePlan
from janus_jax.weights import table

COUNT = 8  # of drawings, and of answers
TRIED = 100  # records of each data set that are looked at for as many
WIDE = 144  # pixels of a picture on the sheet, about, where it has fewer
MOST = 256  # and where it has more
WORDS = 32  # tokens of an answer, at most
DIGITS = 7  # of a step in a sheet's name: a run that gets more steps keeps their order
FOLDER = "sheets"  # in a work directory: a folder for each stage, a picture for each step


class Sheet:
    """Of one stage. All processes call it alike; the first draws, on its own devices.

    Args:
        open_scores: opens the benchmarks that are scored then, as `during_scores.Scores` does.
        plan: the stage.
        sources: the data sets, opened, by name.
        processor: the tokenizer and template.
        workdir: WORKDIR/sheets/<stage>/<step>.png.
        log: shows the sheets too.

    Raises ConfigError for what `evaluation` asks for and this model cannot be asked.
    """

    def __init__(self, open_scores, plan: StagePlan, sources: dict, processor, workdir, log: Log):
        self.plan = plan
        self.sources = sources
        self.processor = processor
        self.folder = workdir / FOLDER / plan.name
        self.log = log
        self.scores = None
        own = lambda: read_asked(plan.experiment, processor) if plan.task.PACKS else NOTHING
        self.asked = processes.all_or_none(lambda: processes.is_lead() and own())
        if plan.experiment.evaluation.benchmarks and plan.task.PACKS:
            read = lambda: open_scores(plan.experiment, plan.name, workdir, log.say)
            self.scores = processes.all_or_none(lambda: processes.is_lead() and read())

    def __call__(self, step: int, state, aside: dict) -> dict[str, float]:
        """Draws and answers with the weights of a step. Returns the benchmarks' scores, on the
        first process. aside: host arrays of the children that the state is without."""
        params = gathered(state.params) | aside
        if not processes.is_lead():
            return {}
        here = nullcontext()
        if jax.process_count() > 1:  # the others take no part: what they hold of the mesh cannot
            here = sh.mesh_context(sh.make_mesh(1, -1, 1, jax.local_devices()))
        scores = {}
        with here, self.full(f"no sheet and no scores of step {step}"):
            model = self.model(params)
            with self.full(f"no sheet of step {step}"):
                rows, text = self.rows(step, model)
                if rows:  # else the stage learns from texts alone
                    sheet = [contact_sheet(*row, columns=len(row[0]), scale=1) for row in rows]
                    self.write(step, stacked(sheet))
                    self.log.sheet(step, stacked(sheet), text)
            if self.scores:
                scores = self.scores(step, model, self.processor)
        return scores

    @contextmanager
    def full(self, missing: str):
        """Where the devices' memory is full, it is said what is missing, and training goes on."""
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            self.log.say(f"ERROR: {missing}: the devices' memory is full")

    @functools.cached_property
    def like(self):
        """The shapes of the stage's whole model, on the mesh that draws."""
        return StagePlan.of(self.plan.experiment, self.plan.name).state(without=())

    @functools.cached_property
    def prompts(self) -> list[tuple]:
        """(caption, its picture, uint8 [S, S, 3]) to draw."""
        side = self.plan.model.generation_encoder.image_size

        def use(source, i):
            caption = "held out"  # of pictures that are learned without their words
            if self.plan.task.PACKS:
                if source[i].keys() & {"sources", "messages"}:  # of `edits`; no prompt alone
                    return None
                caption = source[i]["captions"][0]
                self.processor.request(caption, "caption")  # ValueError: it is no prompt
            return caption, generation_image(source.image(i), side)

        return held_out(self.plan, self.sources, "generation", use)

    @functools.cached_property
    def edits(self) -> list[tuple]:
        """See `during_edits.use`."""
        use = edits_module().use(self.plan, self.processor)
        return held_out(self.plan, self.sources, "generation", use)

    @functools.cached_property
    def questions(self) -> list[tuple]:
        """(the conversation up to the first question about a picture, the right answer, the
        picture) to answer."""
        side = self.plan.model.understanding_encoder.image_size

        def use(source, i):
            if "senses" in source[i]:
                return None
            turns = source[i].get("messages", [])
            at = next((k for k, turn in enumerate(turns[:-1]) if turn.count_pictures), None)
            if at is None:
                return None
            pictures = [source.image(i, k) for k in range(turns[at].count_pictures)]
            asked = [*turns[:at], dataclasses.replace(turns[at], pictures=pictures)]
            self.processor.question(asked)  # ValueError: it cannot be asked
            right = " ".join(turns[at + 1].texts)
            return asked, right, understanding_image(pictures[0], side)

        return held_out(self.plan, self.sources, "understanding", use)

    def model(self, params: dict):
        """What draws and answers, or the VQ tokenizer in training, with these arrays."""
        put = lambda x, to: x if isinstance(x, jax.Array) else arrays.put(x, to.sharding)
        params = jax.tree.map(put, params, self.like.params)
        model = low_rank_layers.whole(nnx.merge(self.like.graphdef, params))
        if not hasattr(model, "transformer"):
            return model
        with own_jax(model):
            return serving(model)

    def rows(self, step: int, model) -> tuple[list, str]:
        """([(pictures, captions), ...] of the sheet, all of it in words)."""
        rows = []
        lines = []
        draws = hasattr(model, "transformer")
        if draws:
            rows, lines = self.own_rows(model)
        if self.prompts and (draws or hasattr(model, "generation_encoder")):
            captions, true = map(list, zip(*self.prompts, strict=True))
            if draws:
                seeds = list(range(len(captions)))
                drawn = generate(model, self.processor, captions, seed=seeds)
            else:
                drawn = redrawn(model, np.stack(true))
            named = f"{'drawn' if draws else 'encoded and decoded'} at step {step}"
            rows += [(fitted(true), captions), (fitted(drawn), [named] * len(drawn))]
            lines += [f"* {caption}" for caption in captions]
        if draws and self.edits:
            more = edits_module().rows(self.edits, model, self.processor, step)
            rows += [(fitted(pictures), told) for pictures, told in more]
            lines += [f"* {words}" for words, _, _ in self.edits]
        if self.questions and draws:
            asked, right, shown = map(list, zip(*self.questions, strict=True))
            answers = understand_batch(model, self.processor, asked, max_new_tokens=WORDS)
            told = [
                (" ".join(turns[-1].texts), answer.strip() or "(nothing)", truth)
                for turns, answer, truth in zip(asked, answers, right, strict=True)
            ]
            rows.append((fitted(shown), [f"{q} {a} (truth: {truth})" for q, a, truth in told]))
            lines += [f"* {q} **{a}** (truth: {truth})" for q, a, truth in told]
        return rows, "\n".join(lines)

    def own_rows(self, model) -> tuple[list, list[str]]:
        """`rows` of what the user asks, the text as lines."""
        rows = []
        lines = []
        for begin in range(0, len(self.asked.prompts), COUNT):
            captions = self.asked.prompts[begin : begin + COUNT]
            seeds = list(range(begin, begin + len(captions)))
            rows.append((fitted(generate(model, self.processor, captions, seed=seeds)), captions))
            lines += [f"* {caption}" for caption in captions]
        side = self.plan.model.understanding_encoder.image_size
        for begin in range(0, len(self.asked.questions), COUNT):
            pairs = self.asked.questions[begin : begin + COUNT]
            turns = [conversation(*pair) for pair in pairs]
            answers = understand_batch(model, self.processor, turns, max_new_tokens=WORDS)
            told = [(q, a.strip() or "(nothing)") for (_, q), a in zip(pairs, answers, strict=True)]
            shown = [understanding_image(picture, side) for picture, _ in pairs]
            rows.append((fitted(shown), [f"{q} {a}" for q, a in told]))
            lines += [f"* {q} **{a}**" for q, a in told]
        return rows, lines

    def write(self, step: int, sheet: Image.Image):
        drawn = io.BytesIO()
        sheet.save(drawn, "PNG")
        path = self.folder / f"{step:0{DIGITS}}.png"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write(path, drawn.getvalue())
        except OSError as error:  # a full disk does not stop training
            self.log.say(f"ERROR: {path} cannot be written ({error.strerror})")


def held_out(plan: StagePlan, sources: dict, kind: str, use) -> list:
    """COUNT held-out records of a kind that the stage learns from, of its data sets in turn: what
    `use(source, index)` makes of each. Passed over is what it has nothing for, or cannot read."""
    if kind not in plan.keeps:
        return []
    names = plan.experiment.draws(plan.name)
    entries = [e for e in entries_of(plan.on_held_out(), sources) if e.name in names]
    entries = [e for e in entries if e.kind == kind]
    found = []
    for i in range(TRIED):
        for e in entries:
            if i >= len(e.source) or len(found) == COUNT:
                continue
            try:
                made = use(e.source, i)
            except (RecordError, ImageError, ValueError):
                continue
            found += [made] if made else []
    return found


def gathered(params: dict) -> dict:
    """Global arrays as they are where this process holds all of each; else as numpy arrays on the
    first process, which the others give their parts of."""
    if jax.process_count() == 1:
        return params

    def whole(path, x):
        name = ".".join(str(key.key) for key in path)
        stacked = table.stacked(name)
        pieces = [piece if processes.is_lead() else None for piece in arrays.pieces(x, stacked)]
        if not processes.is_lead():
            return None
        return np.stack(pieces) if stacked else pieces[0]

    return jax.tree.map_with_path(whole, params)


def redrawn(tokenizer, pictures: np.ndarray) -> list:
    """Pictures, uint8 [B, S, S, 3], encoded and decoded again, as PIL pictures."""
    graphdef, params = nnx.split(tokenizer.generation_encoder)
    return to_pil(_through(graphdef, params, bt.pixels(pictures)))


@functools.partial(jax.jit, static_argnums=0)
def _through(graphdef, params, images):
    encoder = nnx.merge(graphdef, params)
    if not hasattr(encoder, "codebook"):  # of latents, by their means
        return encoder.render(encoder.moments(images)[0])
    return tokenizer_loss.redrawn(encoder, images)[1]


def edits_module():
    return importlib.import_module("janus_jax.eval.during_edits")


def fitted(pictures: list) -> list:
    """Square pictures, PIL or uint8 [S, S, 3], as PIL pictures about WIDE to MOST wide; small ones
    keep hard pixels."""
    pictures = [p if isinstance(p, Image.Image) else Image.fromarray(p) for p in pictures]
    side = pictures[0].width
    wide = min(max(1, WIDE // side) * side, MOST)
    how = Image.Resampling.NEAREST if wide % side == 0 else Image.Resampling.LANCZOS
    return [p.resize((wide, wide), how) for p in pictures]


def stacked(sheets: list[Image.Image]) -> Image.Image:
    """Pictures one below the other, on white."""
    size = max(s.width for s in sheets), sum(s.height for s in sheets)
    out = Image.new("RGB", size, "white")
    top = 0
    for sheet in sheets:
        out.paste(sheet, (0, top))
        top += sheet.height
    return out
