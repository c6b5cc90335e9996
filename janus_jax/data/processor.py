"""Conversations to token spans: the released chat template, for training and for inference alike.

The template (the original code's): an optional system text and a blank line; then for message k its role,
": ", its text and a separator that goes by the parity of k (blank line, end of sentence); outer whitespace
stripped. A picture is begin_of_image, N placeholders, end_of_image.
"""

import dataclasses
import itertools
import json
import pathlib

import numpy as np

from janus_jax import batch as bt
from janus_jax.data.tokenizer import Tokenizer

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the"
    " user provides, and assist the user with a variety of tasks using natural language."
)


NUMBERS = ("understanding_tokens", "generation_tokens", "cfg_scale", "temperature")


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
    """

    def __init__(
        self, tokenizer: Tokenizer, template: Template, understanding_tokens: int, generation_tokens: int,
        cfg_scale: float = 5.0, temperature: float = 1.0,
    ):  # fmt: skip
        self.tokenizer, self.template = tokenizer, template
        self.understanding_tokens, self.generation_tokens = understanding_tokens, generation_tokens
        self.cfg_scale, self.temperature = cfg_scale, temperature

    def save(self, directory):
        self.tokenizer.save(directory)
        fields = dataclasses.asdict(self.template) | {name: getattr(self, name) for name in NUMBERS}
        (pathlib.Path(directory) / "processor.json").write_text(json.dumps(fields, indent=2))

    @classmethod
    def load(cls, directory) -> "Processor":
        fields = json.loads((pathlib.Path(directory) / "processor.json").read_text())
        numbers = {name: fields.pop(name) for name in NUMBERS}
        return cls(Tokenizer.load(directory), Template(**fields), **numbers)

    def conversation(self, messages, system: str | None = None) -> list[tuple]:
        """Spans (ids, role, supervised) of a conversation, BOS first.

        messages: chat messages; content a string, or parts {"type": "text", "text"} and {"type": "image"}.
        An open prompt ends with an assistant message of empty content. Only assistants' answers, closing
        end of sentence included, are marked supervised. Raises ValueError for a role or part it does not know.
        """
        pieces = self._pieces(messages, self.template.system if system is None else system)
        t = self.tokenizer
        spans, text, marks = [([t.bos], bt.TEXT, 0)], "", []
        for piece, supervised in [*pieces, (None, 0)]:
            if isinstance(piece, str):
                marks.append((len(text), supervised))
                text += piece
                continue
            spans += self._text_spans(text, marks)
            text, marks = "", []
            if piece == t.placeholder:
                spans += [
                    ([t.begin_of_image], bt.TEXT, 0),
                    ([t.placeholder] * self.understanding_tokens, bt.PICTURE, 0),
                    ([t.end_of_image], bt.TEXT, 0),
                ]
            elif piece is not None:
                spans.append(([piece], bt.TEXT, supervised))
        return spans

    def _pieces(self, messages, system: str) -> list[tuple]:
        """The template as strings and control ids, each with whether it is an answer."""
        names = {"user": self.template.user, "assistant": self.template.assistant}
        pieces = []
        for message in messages:
            if message["role"] == "system":
                system = message["content"]
        if system.strip():
            pieces.append((system.lstrip() + "\n\n", 0))
        turns = [message for message in messages if message["role"] != "system"]
        for k, message in enumerate(turns):
            role = message["role"]
            if role not in names:
                raise ValueError(f"message {k}: role {role!r} is none of user, assistant, system")
            content = self._content(message["content"], k)
            answer = int(role == "assistant")
            if not content:
                pieces.append((names[role] + ":", 0))
                continue
            pieces.append((names[role] + ":", 0))
            pieces += (
                [(" " + content[0], answer), *((c, answer) for c in content[1:])]
                if isinstance(content[0], str)
                else [(" ", 0), *((c, answer) for c in content)]
            )
            pieces.append(("\n\n", 0) if k % 2 == 0 else (self.tokenizer.eos, answer))
        if pieces and isinstance(pieces[-1][0], str):
            pieces[-1] = (pieces[-1][0].rstrip(), pieces[-1][1])
        return pieces

    def _content(self, content, k: int) -> list:
        """Text and placeholder ids of one message, outer whitespace stripped; a picture stands on its line."""
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        out = []
        for i, part in enumerate(parts):
            if part["type"] == "text":
                out.append(part["text"])
            elif part["type"] in ("image", "image_url"):
                out += [self.tokenizer.placeholder, *(["\n"] if i + 1 < len(parts) else [])]
            else:
                raise ValueError(f"message {k}: part of type {part['type']!r}; use 'text' or 'image'")
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

    def drawing(self, prompt: str) -> list[tuple]:
        """Spans up to and including begin_of_image of "draw this", BOS first, no system text."""
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": ""}]
        return self.conversation(messages, system="") + [([self.tokenizer.begin_of_image], bt.TEXT, 0)]

    def unconditional(self, ids: np.ndarray) -> np.ndarray:
        """The prompt ids of `drawing` with all between BOS and begin_of_image become pad."""
        out = np.full_like(ids, self.tokenizer.pad)
        out[0], out[-1] = ids[0], ids[-1]
        return out
