"""Conversations to token spans: the released chat template, for training and for inference alike.

The template (the original code's): an optional system text and a blank line; then for message k its
role, ": ", its text and a separator that goes by the parity of k (blank line, end of sentence);
outer whitespace stripped. A picture is begin_of_image, N placeholders, end_of_image. Where the
vocabulary has the role names as control tokens (Janus-Pro's <|User|>), the template writes their
ids; what users type is text always.
"""

import dataclasses
import itertools
import json
import pathlib

import numpy as np

from janus_jax.common.files import read_json
from janus_jax.config.schema import Template
from janus_jax.data.messages import PICTURE, Slot, Turn, blank, check_text, plain, stripped, turns
from janus_jax.data.processor_values import channels, check_room, misfits, value_problems
from janus_jax.data.sources import CHARACTERS
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.model import batch as bt
from janus_jax.model.config import JanusConfig

NUMBERS = (
    "understanding_tokens", "generation_tokens", "cfg_scale", "temperature", "context",
    "image_mean", "image_std", "background",
)  # fmt: skip


class Processor:
    """Tokenizer, template and the numbers of image tokens; saved beside the weights.

    understanding_tokens, generation_tokens: placeholders of a picture read, or of each of its tiles;
        ids of a picture drawn.
    cfg_scale, temperature: what these weights draw best with (the released models: 5 and 1).
    context: the longest prompt and answer together, in tokens (the released models were trained on
        4096).
    image_mean, image_std: pictures to understand become (x / 255 - mean) / std, per channel;
    background: the colour, 0 to 255, that squares them (see weights/preprocessor.py).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template,
        understanding_tokens: int,
        generation_tokens: int,
        cfg_scale: float = 5.0,
        temperature: float = 1.0,
        *,
        context: int = 4096,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        background=(127, 127, 127),
    ):
        self.tokenizer = tokenizer
        self.template = template
        self.understanding_tokens = understanding_tokens
        self.generation_tokens = generation_tokens
        self.cfg_scale = cfg_scale
        self.temperature = temperature
        self.context = context
        self.image_mean = channels(image_mean)
        self.image_std = channels(image_std)
        self.background = channels(background)
        if problems := value_problems(self):
            raise ValueError(f"processor: {'; '.join(problems)}")

    def misfits(self, config: JanusConfig) -> list[str]:
        """In what this is not the processor of a model of these sizes."""
        return misfits(self, config)

    def save(self, directory):
        self.tokenizer.save(directory)
        fields = dataclasses.asdict(self.template) | {name: getattr(self, name) for name in NUMBERS}
        (pathlib.Path(directory) / "processor.json").write_text(
            json.dumps(fields, indent=2), "utf-8"
        )

    @classmethod
    def load(cls, directory) -> "Processor":
        """The processor of a weights directory; numbers that its file leaves out take their
        defaults."""
        path = pathlib.Path(directory) / "processor.json"
        fields = read_json(path)
        numbers = {name: fields.pop(name) for name in NUMBERS if name in fields}
        unknown = set(fields) - {field.name for field in dataclasses.fields(Template)}
        absent = set(NUMBERS[:2]) - set(numbers)
        if unknown or absent:
            raise ValueError(
                f"{path}: unknown {sorted(unknown)}, missing {sorted(absent)}: no file of ours"
            )
        tokenizer = Tokenizer.load(directory)
        try:
            return cls(tokenizer, Template(**fields), **numbers)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {str(error).removeprefix('processor: ')}") from None

    def conversation(
        self, messages, system: str | None = None, given: int = 0, tiles=()
    ) -> list[tuple]:
        """Spans (ids, role, supervised) of a conversation, BOS first.

        messages: as in `data.messages`. An open prompt ends with an assistant message of empty
            content.
        system: the system text where no message brings one; None: the template's.
        given: the flag of what users say. Assistants' answers, closing end of sentence included,
            are flagged 1, roles and separators 0.
        tiles: how many each picture has, in order; where they are left out, one.

        Raises ValueError that lists the messages and parts that it cannot use.
        """
        return self._spans(self._pieces(turns(messages), system, given), tiles)

    def learned(self, record: dict, supervise: str, form: str) -> list[tuple]:
        """Spans of a record's {"messages"}, and {"tiles"} where its pictures have several, to learn
        from.

        supervise: "answers" leaves only answers and their closing token to predict, "all" adds what
            users say, unless a turn says it itself; neither predicts template or system text.
        form: the "chat" template, or "plain", without a question that is not the record's
            ("unasked").
        """
        given = 1 if supervise == "all" else bt.GIVEN
        said = turns(record["messages"])
        tiles = record.get("tiles", ())
        if form == "chat":
            return self.conversation(said, given=given, tiles=tiles)
        flag = lambda turn: _flag(turn, given)
        pieces = plain(said, "unasked" in record, flag, self.tokenizer.eos)
        return self._spans(pieces, tiles)

    def question(self, messages, tiles=()) -> tuple[list[tuple], list[tuple]]:
        """Spans of a conversation that awaits the assistant's answer, and its pictures' sources,
        each with the message it stands in. tiles: as of `conversation`.

        An empty assistant message at the end, as the original code asks for, is the same as none.
        Raises ValueError where there is nothing to answer, and where the context has no room for
        one more token.
        """
        said = turns(messages)
        if said and said[-1].role == "assistant" and said[-1].content in ([], [""]):
            said.pop()
        if not said or said[-1].role != "user":
            raise ValueError("conversation: its last message must be the user's")
        self._check_characters(
            sum(len(c) for turn in said for c in turn.content if isinstance(c, str))
        )
        if all(isinstance(c, str) and blank(c) for c in said[-1].content):
            raise ValueError(
                f"message {len(said) - 1}: is {''.join(said[-1].content)[:20]!r}, nothing to "
                "answer; ask something, or show a picture"
            )
        spans = self.conversation([*said, Turn("assistant", [""], [])], tiles=tiles)
        sources = [
            (source, f"message {k}") for k, turn in enumerate(said) for source in turn.pictures
        ]
        sizes = [len(ids) + 2 for ids, role, _ in spans if role == bt.UNDERSTANDING_SLOT]
        check_room(self.context, sum(len(ids) for ids, _, _ in spans), sizes, 1)
        return spans, sources

    def request(self, prompt, where: str = "prompt", new: int = 0) -> np.ndarray:
        """The ids of `drawing` for a prompt that a user typed, int32 [n]. new: tokens to come, a
        picture's where not given. Raises ValueError for a
        prompt that is no text, empty (the unconditional branch alone is guidance 0), or too long
        for the context."""
        if not isinstance(prompt, str | bytes):
            raise ValueError(
                f"{where} is {str(prompt)[:60]!r} ({type(prompt).__name__}): drawing takes words "
                "and no pictures; to edit one use janus_jax.edit, to ask about it janus_jax.understand"
            )
        check_text(prompt, where)
        self._check_characters(len(prompt), where)
        if blank(prompt):
            raise ValueError(
                f"{where} is {prompt[:20]!r}: give it some words to draw (for a picture of no "
                "prompt at all, any words and cfg_scale 0)"
            )
        ids = np.concatenate([span[0] for span in self.drawing(prompt)]).astype(np.int32)
        check_room(self.context, len(ids), [], new or self.generation_tokens, where)
        return ids

    def _check_characters(self, count: int, where: str = "conversation"):
        most = CHARACTERS * self.context
        if count > most:
            raise ValueError(
                f"{where}: {count:,} characters, at most {most:,} are read ({CHARACTERS} for each "
                f"of the context's {self.context:,} tokens); shorten the text"
            )

    def _spans(self, pieces: list[tuple], tiles=()) -> list[tuple]:
        t = self.tokenizer
        tiles = iter(tiles)
        spans = [([t.bos], bt.TEXT, 0)]
        text = ""
        marks = []
        for piece, supervised in [*pieces, (t.bos, 0)]:  # BOS: the end
            if isinstance(piece, str):
                marks.append((len(text), supervised))
                text += piece
                continue
            spans += self._text_spans(text, marks)
            text = ""
            marks = []
            if piece is PICTURE:
                spans += self.picture(next(tiles, 1))
            elif isinstance(piece, Slot):
                spans += self.picture(slot=piece)
            elif piece != t.bos:
                spans.append(([piece], bt.TEXT, supervised))
        return spans

    def _pieces(self, said: list[Turn], system: str | None, given: int) -> list[tuple]:
        """The template as strings and control ids, each with its flag."""
        tags = {role: getattr(self.template, role) for role in ("user", "assistant")}
        ids = {role: self.tokenizer.control(tag) for role, tag in tags.items()}
        pieces = []
        system = self.template.system if system is None else system
        system = next(
            ("".join(turn.content) for turn in reversed(said) if turn.role == "system"), system
        )
        if system.strip():
            pieces.append((system.lstrip() + "\n\n", bt.GIVEN if given else 0))
        for k, turn in enumerate(turn for turn in said if turn.role != "system"):
            flag = _flag(turn, given)
            ends = int(turn.role == "assistant" and flag == 1)
            content = stripped(turn.content)
            tag = ids[turn.role]
            pieces += [(tags[turn.role] + ":", 0)] if tag is None else [(tag, 0), (":", 0)]
            if not content:
                continue
            if isinstance(content[0], str):
                content[0] = " " + content[0]
            elif turn.role == "user" or content[0] is PICTURE:  # a drawing follows the colon
                pieces.append((" ", 0))
            pieces += [(c, flag) for c in content]
            pieces.append(("\n\n", 0) if k % 2 == 0 else (self.tokenizer.eos, ends))
        if pieces and isinstance(pieces[-1][0], str):
            pieces[-1] = (pieces[-1][0].rstrip(), pieces[-1][1])
        return pieces

    def _text_spans(self, text: str, marks) -> list[tuple]:
        """Spans of one stretch of text, tokenised whole, one a piece; `marks` says where each piece
        begins, and its flag."""
        if not text:
            return []
        ids, starts = self.tokenizer.encode(text)
        owner = np.searchsorted([start for start, _ in marks], starts, side="right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(owner)) + 1), len(ids)]
        pairs = itertools.pairwise(cuts)
        return [(ids[a:b], bt.TEXT, marks[owner[a]][1]) for a, b in pairs if b > a]

    def picture(self, tiles: int = 1, slot: Slot | None = None) -> list[tuple]:
        """Spans of one picture to understand, whose tiles (see tiles.py) follow each other, or of an
        input of another sense."""
        t = self.tokenizer
        _, role, tokens = slot or ("", bt.UNDERSTANDING_SLOT, tiles * self.understanding_tokens)
        return [
            ([t.begin_of_image], bt.TEXT, 0),
            ([t.placeholder] * tokens, role, 0),
            ([t.end_of_image], bt.TEXT, 0),
        ]

    def shown(self, spans: list[tuple]) -> list[int]:
        """Which of the pictures in some spans each of their tiles is of."""
        slots = [len(ids) for ids, role, _ in spans if role == bt.UNDERSTANDING_SLOT]
        return [k for k, n in enumerate(slots) for _ in range(n // self.understanding_tokens)]

    def drawing(self, prompt: str, form: str = "chat", given: int = 0) -> list[tuple]:
        """Spans up to and including begin_of_image of "draw this", BOS first.

        prompt: what to draw.
        form: asked for in the "chat" template, without a system text, or "plain", the words alone.
        given: their flag.
        """
        t = self.tokenizer
        begin = ([t.begin_of_image], bt.TEXT, 0)
        if form == "plain":
            return [*self._spans([(prompt.strip(), given)]), begin]
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": ""}]
        return [*self.conversation(messages, "", given), begin]

    def unconditional(self, ids: np.ndarray) -> np.ndarray:
        """The prompt ids of `drawing` with all between BOS and begin_of_image become pad."""
        out = np.full_like(ids, self.tokenizer.pad)
        out[0], out[-1] = ids[0], ids[-1]
        return out


def _flag(turn: Turn, given: int) -> int:
    """Of a turn's words: 1 of an answer, `given` of what users say, unless the turn says it."""
    if turn.learn is None and turn.role != "system":
        return 1 if turn.role == "assistant" else given
    return 1 if turn.learn else bt.GIVEN
