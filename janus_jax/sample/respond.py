"""Words and pictures to words and pictures: `janus_jax.respond` (interleaved output, paper section 3.5)."""

import functools

import jax
import numpy as np

from janus_jax.data.image_parts import open_picture
from janus_jax.data.images import generation_image
from janus_jax.data.interleaved import with_drawings
from janus_jax.data.messages import turns
from janus_jax.model import batch as bt
from janus_jax.model.guest import own_jax
from janus_jax.model.serving import serving
from janus_jax.sample import decode, options
from janus_jax.sample.engine import Engine, Request
from janus_jax.sample.generate import decode_ids, settings, to_pil
from janus_jax.sample.programs import see_ids
from janus_jax.sample.reading import Prompt
from janus_jax.sample.understand import answer_of, opened_pictures, prompts_of

STEPS = 16  # words between two looks


def respond(
    model, processor, conversation, *, max_new_tokens=512, max_images=4, temperature=0.0, top_p=1.0,
    cfg_scale=None, image_temperature=None, seed=0, stream=None,
) -> list:  # fmt: skip
    """The assistant's next answer, of words and pictures: a list of strings and PIL images, in order.

    conversation: chat messages as `understand` takes them. Users' pictures are seen by the
        understanding encoder, those of earlier answers as VQ ids, as they were drawn in training.
    max_new_tokens: of words, in all; temperature, top_p: of the words, 0 is greedy.
    max_images: the answer ends where it would begin one more.
    cfg_scale, image_temperature: of the pictures; by default what the weights suggest. Guidance leads
        away from the row whose every token between BOS and begin_of_image is pad, as in `generate`.
    seed: words before the first picture are what `understand` says with it; None draws one.
    stream(part) is called with each string and picture as it is done.
    The model itself begins a picture, by begin_of_image; where its ids are complete, words go on. The
        answer ends at the end of sentence, and at the latest where the processor's context is full.
        An answer with its pictures as {"type": "image", "image": picture} is history to go on from.
        Raises ValueError that lists what cannot be used.
    """
    options.check(stream=stream)
    tell = None if stream is None else lambda _, part: stream(part)
    return respond_batch(
        model, processor, [conversation], max_new_tokens=max_new_tokens, max_images=max_images,
        temperature=temperature, top_p=top_p, cfg_scale=cfg_scale,
        image_temperature=image_temperature, seed=seed, stream=tell,
    )[0]  # fmt: skip


def respond_batch(
    model, processor, conversations, *, max_new_tokens=512, max_images=4, temperature=0.0, top_p=1.0,
    cfg_scale=None, image_temperature=None, seed=0, stream=None,
) -> list[list]:  # fmt: skip
    """`respond` for several conversations at once: each answer is what it would be alone. seed: one
    number, or one a conversation. stream(number, part)."""
    given = options.given
    options.require(model, processor)
    require_between(model.config)
    scale, heat = settings(processor, cfg_scale, image_temperature)
    most, images, warmth, mass, scale, heat, _ = options.settled(
        max_new_tokens=given(max_new_tokens, 512), max_images=given(max_images, 4),
        temperature=given(temperature, 0.0), top_p=given(top_p, 1.0), cfg_scale=scale,
        image_temperature=heat, stream=stream,
    )  # fmt: skip
    conversations = options.listed(conversations, "conversations")
    seeds = options.seeds(seed, len(conversations), "conversations")
    how = {
        "most": most, "images": images, "temperature": warmth, "top_p": mass, "cfg_scale": scale,
        "heat": heat,
    }  # fmt: skip
    tell = stream or (lambda i, part: None)
    answers = [
        _Answer(model, processor, prompt, number, how, functools.partial(tell, i))
        for i, (prompt, number) in enumerate(zip(_prompts(model, processor, conversations), seeds))
    ]
    _run(model, answers)
    return [answer.parts for answer in answers]


def require_between(config):
    """Raises ValueError for a model that draws no pictures between words."""
    options.require_ids(config)
    if config.generation_encoder.sizes:
        raise ValueError(
            f"model.generation_encoder.sizes is {config.generation_encoder.sizes}: no training draws "
            "pictures of several sizes between words; draw with janus_jax.generate, answer with "
            "janus_jax.understand"
        )


def _run(model, answers: list["_Answer"]):
    """Answers all, each request after the one before it, in one engine."""
    engine = Engine(model)
    owners = {}

    def add(answer, request):
        if request:
            owners[request] = answer
            engine.add(request)

    for answer in answers:
        add(answer, answer.words())
    while engine.busy:
        for request, ids, ended in engine.step():
            if isinstance(ids, ValueError):
                raise ids
            answer = owners[request]
            after = answer.take(request, ids, ended)
            if after is not request:
                engine.end(request)
                add(answer, after)


class _Answer:
    """An answer under way.

    ids: int32 [n], of the row so far; shown [n, D], is_shown [n]: as of a Prompt.
    parts: strings and pictures that are done; new: ids of the part under way.
    """

    def __init__(self, model, processor, prompt: Prompt, seed: int, how: dict, tell):
        self.model = model
        self.processor = processor
        self.seed = seed
        self.how = how
        self.tell = tell
        n = len(prompt.ids)
        self.ids = prompt.ids
        self.shown = np.zeros((n, model.config.transformer.width), np.float32)
        self.is_shown = np.zeros(n, bool)
        if prompt.shown is not None:
            self.shown[prompt.is_shown] = prompt.shown[prompt.is_shown]
            self.is_shown = prompt.is_shown
        self.stops = answer_of(processor, (), 1).stop_ids
        self.parts = []
        self.new = []
        self.said = 0  # ids of words
        self.drawn = 0  # pictures

    def words(self) -> Request | None:
        """The request for words that go on; None where the answer ends."""
        room = self.processor.context - len(self.ids)
        most = min(self.how["most"] - self.said, room)
        if most < 1:
            return None
        number = -1 if not self.drawn else options.LAST - self.drawn  # other draws in each stretch
        return Request(
            (self._prompt(),), False, most, self.seed, number, self.how["temperature"],
            self.how["top_p"], eos=self.processor.tokenizer.eos, steps=STEPS,
        )  # fmt: skip

    def picture(self) -> Request | None:
        """The request for the picture that the last id begins; None where the answer ends."""
        n = self.processor.generation_tokens
        room = self.processor.context - len(self.ids) - n - 1
        if self.drawn == self.how["images"] or room < 0:
            return None
        pair = self._prompt(), Prompt(self.processor.unconditional(self.ids))
        how = self.seed, self.drawn, self.how["cfg_scale"], self.how["heat"]
        return decode.drawing(pair, *how, n)

    def take(self, request: Request, ids: np.ndarray, ended: bool) -> Request | None:
        """New ids of a request; what is to be asked for now, perhaps still the same."""
        if request.draws:
            self.new += ids.tolist()
            return self._painted() if ended else request
        begin = self.processor.tokenizer.begin_of_image
        for i in ids.tolist():
            if i in self.stops or i == begin:
                self._end_words()
                if i != begin:
                    return None
                self._go_on([i])
                return self.picture()
            self.new.append(i)
        if ended:
            self._end_words()
        return None if ended else request

    def _end_words(self):
        text = self.processor.tokenizer.decode(self.new).strip()
        self._go_on(self.new)
        self.said += len(self.new)
        self.new = []
        if text:
            self._done(text)

    def _painted(self) -> Request | None:
        """The picture under way is drawn: it is read, and words go on."""
        t = self.processor.tokenizer
        ids = np.array([self.new], np.int32)
        with own_jax(self.model):
            (seen,) = decode.one_by_one(_embed, serving(self.model), ids)
        self._go_on([t.placeholder] * len(self.new), seen)
        self._go_on([t.end_of_image])
        (picture,) = to_pil(decode_ids(self.model, ids))
        picture.info |= {
            "index": self.drawn, "seed": self.seed, "cfg_scale": self.how["cfg_scale"],
            "temperature": self.how["heat"], "image_ids": self.new,
        }  # fmt: skip
        self.new = []
        self.drawn += 1
        self._done(picture)
        return self.words()

    def _done(self, part):
        self.parts.append(part)
        self.tell(part)

    def _go_on(self, ids: list[int], seen=None):
        """Ids behind the row, with what is read in their place."""
        n = len(ids)
        self.ids = np.append(self.ids, np.array(ids, np.int32))
        rows = np.zeros((n, self.shown.shape[1]), np.float32) if seen is None else seen
        self.shown = np.concatenate([self.shown, rows.astype(np.float32)])
        self.is_shown = np.append(self.is_shown, np.full(n, seen is not None))

    def _prompt(self) -> Prompt:
        return Prompt(self.ids, self.shown, self.is_shown)


@functools.partial(jax.jit, static_argnames="tree")
def _embed(leaves, ids, *, tree):
    """What slots read of image ids [B, N]: [B, N, D]; leaves, tree: the model."""
    return jax.tree.unflatten(tree, leaves).embed_image_ids(ids)


def _prompts(model, processor, conversations: list) -> list[Prompt]:
    """The prompts of conversations; ValueError with the problems of all."""
    found = []
    problems = []
    for i, conversation in enumerate(conversations):
        try:
            found.append(_prepared(processor, conversation, model.config))
        except ValueError as error:
            where = f"conversations[{i}]: " if len(conversations) > 1 else ""
            problems += [where + line for line in str(error).splitlines()]
    if problems:
        raise ValueError("\n".join(problems))
    prompts = prompts_of(model, processor, [asked for asked, _, _ in found])
    for prompt, (_, at, drawn) in zip(prompts, found):
        if len(drawn):
            with own_jax(model):
                rows = decode.one_by_one(see_ids, serving(model), bt.pixels(drawn))
            rows = rows.reshape(-1, rows.shape[-1])
            if prompt.shown is None:
                prompt.shown = np.zeros((len(at), rows.shape[1]), rows.dtype)
                prompt.is_shown = at
            prompt.is_shown = prompt.is_shown | at
            prompt.shown[at] = rows
    return prompts


def _prepared(processor, conversation, config) -> tuple:
    """(what `understand.prepare` gives, where pictures of earlier answers stand, bool [n], these,
    uint8 [K, S, S, 3]). Pictures are one tile each. Raises ValueError."""
    said = turns(conversation)
    side = config.generation_encoder.image_size
    drawn = [
        generation_image(open_picture(source, f"message {k}"), side)
        for k, turn in enumerate(said)
        for source in (turn.pictures if turn.role == "assistant" else ())
    ]
    spans, sources = processor.question(with_drawings(said, processor))
    asked = opened_pictures(processor, spans, sources, config.understanding_encoder)
    at = np.concatenate([np.full(len(ids), role == bt.GENERATION_SLOT) for ids, role, _ in spans])
    return asked, at, np.stack(drawn) if drawn else ()
