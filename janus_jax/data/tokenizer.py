"""Text to ids and back. The file is `tokenizer.json` of the `tokenizers` library; BOS is put first by us.

Special strings are looked up, never numbered (their ids differ between released models). Text that a user
types is encoded with the special strings switched off: a typed `<image_placeholder>` stays text.
"""

import pathlib

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

SPECIALS = {
    "bos": "<｜begin▁of▁sentence｜>",
    "eos": "<｜end▁of▁sentence｜>",
    "pad": "<｜▁pad▁｜>",
    "begin_of_image": "<begin_of_image>",
    "end_of_image": "<end_of_image>",
    "placeholder": "<image_placeholder>",
}


class Tokenizer:
    """`bos`, `eos`, `pad`, `begin_of_image`, `end_of_image`, `placeholder` are the ids of `SPECIALS`.

    Raises ValueError naming the special strings that the vocabulary lacks.
    """

    def __init__(self, backend: Backend):
        self.backend = backend
        self.backend.encode_special_tokens = True  # what users type stays text
        ids = {name: backend.token_to_id(text) for name, text in SPECIALS.items()}
        missing = [SPECIALS[name] for name, i in ids.items() if i is None]
        if missing:
            raise ValueError(f"tokenizer: the vocabulary lacks {missing}; add them as special tokens")
        self.bos, self.eos, self.pad = ids["bos"], ids["eos"], ids["pad"]
        self.begin_of_image, self.end_of_image = ids["begin_of_image"], ids["end_of_image"]
        self.placeholder = ids["placeholder"]

    @classmethod
    def load(cls, directory) -> "Tokenizer":
        path = pathlib.Path(directory) / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no tokenizer there; expected a `tokenizers` JSON file")
        return cls(Backend.from_file(str(path)))

    def save(self, directory):
        self.backend.save(str(pathlib.Path(directory) / "tokenizer.json"))

    def __len__(self) -> int:
        return self.backend.get_vocab_size()

    def __repr__(self) -> str:
        return f"Tokenizer({len(self)} ids)"

    def __getstate__(self):
        return self.backend.to_str()

    def __setstate__(self, state):
        self.__init__(Backend.from_str(state))

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """ids of plain text, without BOS, and the character at which each begins."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def decode(self, ids) -> str:
        """Text of ids; special tokens are left out."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=True)


def train(texts, vocabulary: int) -> Tokenizer:
    """A byte-level BPE of at most `vocabulary` ids learned from `texts`: any text can be encoded with it."""
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
