"""Text to ids and back. The file is `tokenizer.json` of the `tokenizers` library; BOS is put first
by us.

Special strings are looked up, never numbered (their ids differ between released models). Text that
a user types is encoded with all control strings switched off: a typed `<image_placeholder>` stays
text.
"""

import functools
import hashlib
import logging
import pathlib

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from janus_jax.common import files
from janus_jax.data.messages import SPECIALS


class Tokenizer:
    """`bos`, `eos`, `pad`, `begin_of_image`, `end_of_image`, `placeholder` are the ids of
    `SPECIALS`.

    Control strings are the added tokens that the file calls special, and those in angle brackets
    whatever it calls them (`<|User|>`, `<|ref|>`, `<patch_placeholder>`, ...): in text they stay
    text. Other added tokens (DeepSeek's "ø", "ö", ...) are ordinary text and match.

    As in the original code, a vocabulary without the placeholder (Janus-1.3B as released) gets it
    as its next id; one without pad (the first files of Janus-1.3B) pads with end of sentence, and
    says so once. Raises ValueError naming the other special strings that the vocabulary lacks.
    """

    def __init__(self, backend: Backend):
        self.backend = backend
        backend.no_truncation()  # transformers saves what its last call cut and padded to
        backend.no_padding()
        added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
        control = [
            text for text, token in added.items() if token.special or text[0] + text[-1] == "<>"
        ]
        if backend.token_to_id(SPECIALS["placeholder"]) is None:
            control.append(SPECIALS["placeholder"])
        backend.add_special_tokens(control)
        backend.encode_special_tokens = True  # what users type stays text
        self._control = {text: backend.token_to_id(text) for text in control}
        self._names = {i: text for text, i in self._control.items()}
        self._ordinary = {
            backend.token_to_id(text): text for text in added if text not in self._control
        }
        ids = {name: backend.token_to_id(text) for name, text in SPECIALS.items()}
        if ids["pad"] is None and ids["eos"] is not None:
            _say_once(
                f"tokenizer: no {SPECIALS['pad']} in the vocabulary; {SPECIALS['eos']} pads instead"
            )
            ids["pad"] = ids["eos"]
        missing = [SPECIALS[name] for name, i in ids.items() if i is None]
        if missing:
            raise ValueError(
                f"tokenizer: the vocabulary lacks {missing}; add them as special tokens"
            )
        self.bos = ids["bos"]
        self.eos = ids["eos"]
        self.pad = ids["pad"]
        self.begin_of_image = ids["begin_of_image"]
        self.end_of_image = ids["end_of_image"]
        self.placeholder = ids["placeholder"]

    @classmethod
    def load(cls, directory) -> "Tokenizer":
        path = pathlib.Path(directory) / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no tokenizer there; expected a `tokenizers` JSON file"
            )
        try:
            return cls(Backend.from_file(str(path)))
        except (
            Exception
        ) as error:  # the backend raises bare Exception for files that it cannot parse
            raise ValueError(f"{path}: {error}; copy the file again") from None

    def save(self, directory):
        files.write(pathlib.Path(directory) / "tokenizer.json", self.backend.to_str(pretty=True))

    def __len__(self) -> int:
        return self.backend.get_vocab_size()

    def __repr__(self) -> str:
        return f"Tokenizer({len(self)} ids)"

    def __getstate__(self):
        return self.backend.to_str()

    def __setstate__(self, state):
        self.__init__(Backend.from_str(state))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of all that decides about ids, 16 hexadecimal digits."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()[:16]

    def control(self, text: str) -> int | None:
        """The id of a control string, such as a role tag; None where the vocabulary has it as mere
        text."""
        return self._control.get(text)

    def control_name(self, i: int) -> str | None:
        """The control string of an id; None for one that is text."""
        return self._names.get(i)

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """ids of plain text, without BOS, and the character at which each begins."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def decode(self, ids) -> str:
        """Text of ids; control tokens are left out.

        Ordinary added tokens are their own text: the backend's byte-level decoder takes each of
        their letters for a byte, and makes "�" of "ø".
        """
        parts = []
        run = []
        for i in map(int, ids):
            if i in self._ordinary:
                parts += [self.backend.decode(run, skip_special_tokens=True), self._ordinary[i]]
                run = []
            else:
                run.append(i)
        return "".join([*parts, self.backend.decode(run, skip_special_tokens=True)])


@functools.cache
def _say_once(text: str):
    logging.getLogger(__name__).warning(text)


def train(texts, vocabulary: int) -> Tokenizer:
    """A byte-level BPE of at most `vocabulary` ids learned from `texts`: any text can be encoded
    with it."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)
