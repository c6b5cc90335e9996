"""Conversations to token spans: the released chat template, for training and for inference alike.

The template (the original code's): an optional system text and a blank line; then for message k its role,
": ", its text and a separator that goes by the parity of k (blank line, end of sentence); outer whitespace
stripped. A picture is begin_of_image, N placeholders, end_of_image. Where the vocabulary has the role names as
control tokens (Janus-Pro's <|User|>), the template writes their ids; what users type is text always.
"""

import dataclasses
import itertools
import json
import logging
import pathlib

import numpy as np

from janus_jax import batch as bt
from janus_jax.data.messages import PICTURE, Turn, blank, check_text, turns
from janus_jax.data.tokenizer import CHARACTERS, Tokenizer

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the"
    " user provides, and assist the user with a variety of tasks using natural language."
)


NUMBERS = (
    "understanding_tokens", "generation_tokens", "cfg_scale", "temperature", "context", "image_mean",
    "image_std", "background",
)  # fmt: skip
_CLIP = {"image_mean": (0.48145466, 0.4578275, 0.40821073), "image_std": (0.26862954, 0.26130258, 0.27577711)}


@dataclasses.dataclass(frozen=True)
class Template:
    """Role names and the system text of understanding; generation has no system text. Janus-1.3B says
    User/Assistant, Janus-Pro <|User|>/<|Assistant|>."""

    user: str = "User"
    assistant: str = "Assistant"
    system: str = SYSTEM


class Processor:
    """Tokenizer, template and the numbers of image tokens; saved beside the weights.

    understanding_tokens, generation_tokens: placeholders of a picture read, ids of a picture drawn.
    cfg_scale, temperature: what these weights draw best with (the released models: 5 and 1).
    context: the longest prompt and answer together, in tokens (the released models were trained on 4096).
    image_mean, image_std: pictures to understand become (x / 255 - mean) / std, per channel; background: the
    colour, 0 to 255, that squares them (see `read_preprocessor`).
    """

    def __init__(
        self, tokenizer: Tokenizer, template: Template, understanding_tokens: int, generation_tokens: int,
        cfg_scale: float = 5.0, temperature: float = 1.0, *, context: int = 4096, image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5), background=(127, 127, 127),
    ):  # fmt: skip
        self.tokenizer, self.template = tokenizer, template
        self.understanding_tokens, self.generation_tokens = understanding_tokens, generation_tokens
        self.cfg_scale, self.temperature, self.context = cfg_scale, temperature, context
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)
        self.background = tuple(background)

    def save(self, directory):
        self.tokenizer.save(directory)
        fields = dataclasses.asdict(self.template) | {name: getattr(self, name) for name in NUMBERS}
        (pathlib.Path(directory) / "processor.json").write_text(json.dumps(fields, indent=2))

    @classmethod
    def load(cls, directory) -> "Processor":
        """The processor of a weights directory; numbers that its file leaves out take their defaults."""
        path = pathlib.Path(directory) / "processor.json"
        fields = _read_json(path)
        numbers = {name: fields.pop(name) for name in NUMBERS if name in fields}
        unknown = set(fields) - {field.name for field in dataclasses.fields(Template)}
        absent = set(NUMBERS[:2]) - set(numbers)
        if unknown or absent:
            raise ValueError(f"{path}: unknown {sorted(unknown)}, missing {sorted(absent)}: no file of ours")
        return cls(Tokenizer.load(directory), Template(**fields), **numbers)

    def conversation(self, messages, system: str | None = None) -> list[tuple]:
        """Spans (ids, role, supervised) of a conversation, BOS first.

        messages: as in `data.messages`. An open prompt ends with an assistant message of empty content. Only
        assistants' answers, closing end of sentence included, are marked supervised. Raises ValueError that
        lists the messages and parts that it cannot use.
        """
        return self._spans(turns(messages), system)

    def question(self, messages) -> tuple[list[tuple], list[tuple]]:
        """Spans of a conversation that awaits the assistant's answer, and its pictures' sources, each with the
        message it stands in.

        An empty assistant message at the end, as the original code asks for, is the same as none. Raises
        ValueError where there is nothing to answer, and where the context has no room for one more token.
        """
        said = turns(messages)
        if said and said[-1].role == "assistant" and said[-1].content in ([], [""]):
            said.pop()
        if not said or said[-1].role != "user":
            raise ValueError("conversation: its last message must be the user's")
        if not said[-1].pictures and blank("".join(said[-1].content)):
            raise ValueError(
                f"message {len(said) - 1}: is {''.join(said[-1].content)[:20]!r}, nothing to answer; ask "
                "something, or show a picture"
            )
        self._check_characters(sum(len(c) for turn in said for c in turn.content if c is not PICTURE))
        spans = self._spans([*said, Turn("assistant", [""], [])], None)
        sources = [(source, f"message {k}") for k, turn in enumerate(said) for source in turn.pictures]
        self._check_room(sum(len(ids) for ids, _, _ in spans), len(sources), 1)
        return spans, sources

    def request(self, prompt, where: str = "prompt") -> np.ndarray:
        """The ids of `drawing` for a prompt that a user typed, int32 [n]. Raises ValueError for a prompt that
        is no text, empty (the unconditional branch alone is guidance 0), or too long for the context."""
        if not isinstance(prompt, str | bytes):
            raise ValueError(
                f"{where} is {str(prompt)[:60]!r} ({type(prompt).__name__}): drawing takes words and no "
                "pictures; to ask about a picture use janus_jax.understand"
            )
        check_text(prompt, where)
        if blank(prompt):
            raise ValueError(
                f"{where} is {prompt[:20]!r}: give it some words to draw (for a picture of no prompt at all, "
                "any words and cfg_scale 0)"
            )
        self._check_characters(len(prompt), where)
        ids = np.concatenate([span[0] for span in self.drawing(prompt)]).astype(np.int32)
        self._check_room(len(ids), 0, self.generation_tokens, where)
        return ids

    def _check_characters(self, count: int, where: str = "conversation"):
        most = CHARACTERS * self.context
        if count > most:
            raise ValueError(
                f"{where}: {count:,} characters, at most {most:,} are read ({CHARACTERS} for each of the "
                f"context's {self.context:,} tokens); shorten the text"
            )

    def _check_room(self, total: int, pictures: int, new: int, where: str = "conversation"):
        """Refuses a prompt that leaves no room for `new` tokens, with the sum."""
        over, each = total + new - self.context, self.understanding_tokens + 2
        if over <= 0:
            return
        shown = f"{pictures} pictures x {each} + {total - pictures * each:,} of text = " if pictures else ""
        spare = -(-over // each)
        remedy = (
            f"leave out {spare} pictures" if spare <= pictures else f"shorten the text by {over:,} tokens"
        )
        raise ValueError(
            f"{where}: {shown}{total:,} tokens and {new:,} to come make {total + new:,}, the context is "
            f"{self.context:,}: {remedy}"
        )

    def _spans(self, said: list[Turn], system: str | None) -> list[tuple]:
        t = self.tokenizer
        spans, text, marks = [([t.bos], bt.TEXT, 0)], "", []
        for piece, supervised in [*self._pieces(said, system), (None, 0)]:
            if isinstance(piece, str):
                marks.append((len(text), supervised))
                text += piece
                continue
            spans += self._text_spans(text, marks)
            text, marks = "", []
            if piece == t.placeholder:
                spans += self.picture()
            elif piece is not None:
                spans.append(([piece], bt.TEXT, supervised))
        return spans

    def _pieces(self, said: list[Turn], system: str | None) -> list[tuple]:
        """The template as strings and control ids, each with whether it is an answer."""
        tags = {role: getattr(self.template, role) for role in ("user", "assistant")}
        ids = {role: self.tokenizer.control(tag) for role, tag in tags.items()}
        pieces = []
        system = self.template.system if system is None else system
        system = next(("".join(turn.content) for turn in reversed(said) if turn.role == "system"), system)
        if system.strip():
            pieces.append((system.lstrip() + "\n\n", 0))
        for k, turn in enumerate(turn for turn in said if turn.role != "system"):
            answer, content = int(turn.role == "assistant"), self._stripped(turn.content)
            tag = ids[turn.role]
            pieces += [(tags[turn.role] + ":", 0)] if tag is None else [(tag, 0), (":", 0)]
            if not content:
                continue
            if isinstance(content[0], str):
                content[0] = " " + content[0]
            else:
                pieces.append((" ", 0))
            pieces += [(c, answer) for c in content]
            pieces.append(("\n\n", 0) if k % 2 == 0 else (self.tokenizer.eos, answer))
        if pieces and isinstance(pieces[-1][0], str):
            pieces[-1] = (pieces[-1][0].rstrip(), pieces[-1][1])
        return pieces

    def _stripped(self, content: list) -> list:
        """Text and placeholder ids of one message, outer whitespace stripped."""
        out = [self.tokenizer.placeholder if c is PICTURE else c for c in content]
        for end, strip in ((0, str.lstrip), (-1, str.rstrip)):
            while out and isinstance(out[end], str):
                out[end] = strip(out[end])
                if out[end]:
                    break
                out.pop(end)
        return [c for c in out if c != ""]

    def _text_spans(self, text: str, marks) -> list[tuple]:
        """Spans of one stretch of text, tokenised whole; `marks` says where each flag begins."""
        if not text:
            return []
        ids, starts = self.tokenizer.encode(text)
        owner = np.searchsorted([start for start, _ in marks], starts, side="right") - 1
        flags = [marks[i][1] for i in owner]
        cuts = [0, *(i for i in range(1, len(ids)) if flags[i] != flags[i - 1]), len(ids)]
        return [(ids[a:b], bt.TEXT, flags[a]) for a, b in itertools.pairwise(cuts) if b > a]

    def picture(self) -> list[tuple]:
        """Spans of one picture to understand."""
        t = self.tokenizer
        return [
            ([t.begin_of_image], bt.TEXT, 0),
            ([t.placeholder] * self.understanding_tokens, bt.PICTURE, 0),
            ([t.end_of_image], bt.TEXT, 0),
        ]

    def drawing(self, prompt: str) -> list[tuple]:
        """Spans up to and including begin_of_image of "draw this", BOS first, no system text."""
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": ""}]
        return self.conversation(messages, system="") + [([self.tokenizer.begin_of_image], bt.TEXT, 0)]

    def unconditional(self, ids: np.ndarray) -> np.ndarray:
        """The prompt ids of `drawing` with all between BOS and begin_of_image become pad."""
        out = np.full_like(ids, self.tokenizer.pad)
        out[0], out[-1] = ids[0], ids[-1]
        return out


def read_preprocessor(directory) -> dict:
    """`image_size` (int), and the Processor's fields image_mean, image_std and background, of a released
    model's preprocessor_config.json.

    A file that leaves the mean or deviation out means CLIP's, as in the original code; no file at all means the
    published numbers. do_normalize=false is honoured as written (mean 0, deviation 1: pixels in [0, 1]) and
    warned about: Janus-1.3B was first released so by mistake, mended on 14 November 2024, and its weights expect
    [-1, 1]. Raises ValueError that lists every field of the file that this code would not honour.
    """
    path = pathlib.Path(directory) / "preprocessor_config.json"
    if not path.is_file():
        return {
            "image_size": 384,
            "image_mean": (0.5,) * 3,
            "image_std": (0.5,) * 3,
            "background": (127,) * 3,
        }
    fields = _read_json(path)
    size = fields.get("image_size", fields.get("size", 384))
    sides = {size} if isinstance(size, int) else {size.get("height"), size.get("width")}
    numbers = {name: tuple(fields.get(name) or default) for name, default in _CLIP.items()}
    problems = [f"size is {size}, needs one side in pixels"] * (len(sides) != 1 or None in sides)
    problems += [f"{name} is {x}, needs 3 numbers" for name, x in numbers.items() if len(x) != 3]
    problems += ["image_std has a zero"] * (0 in numbers["image_std"])
    for name, known in (("min_size", 14), ("rescale_factor", 1 / 255)):
        if abs(fields.get(name, known) - known) > 1e-6:
            problems.append(f"{name} is {fields[name]}, only {known:.6g} is supported")
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    background = tuple(int(255 * x) for x in numbers["image_mean"])
    if not fields.get("do_normalize", True):
        logging.warning(
            "%s says do_normalize: false, and it is done so: pixels stay in [0, 1]. Janus-1.3B was first "
            "released with this mistake; its answers are better with true", path
        )  # fmt: skip
        numbers = {"image_mean": (0.0,) * 3, "image_std": (1.0,) * 3}
    return {"image_size": sides.pop(), "background": background} | numbers


def _read_json(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}); copy the file again") from None
