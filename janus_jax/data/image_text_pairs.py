"""Pictures beside their texts, for a task that learns which belongs to which."""

import concurrent.futures

import numpy as np

from janus_jax.data.images import understanding_image
from janus_jax.data.mixture import Mixture
from janus_jax.data.read_stats import ReadStats
from janus_jax.data.row_stream import BAD, IN_A_ROW
from janus_jax.data.sources import CHARACTERS, RecordError, Source, SourceError
from janus_jax.data.tokenizer import Tokenizer

_THREADS = 16  # that read and decode pictures
LOOKED_AT = 64  # texts of which at least two must differ


class ImageTextPairs:
    """Batches of pairs, a function of (seed, step) only; host h of `hosts` makes the h-th part of
    each.

    mixture: of generation and understanding, a stream a pair. Place p = step * batch + i draws its
        data set at random, by ratio and weight, and of it the record at position p of its order:
        with one data set each epoch has every record once, in an order of its own.
    tokenizer: of the texts.
    side: of the pictures, as the understanding encoder gets them.
    length: tokens of a text.

    What is bad gives its place to another pick, and is entered in the read statistics, which judges
    this process's own.
    """

    def __init__(
        self,
        mixture: Mixture,
        tokenizer: Tokenizer,
        side: int,
        length: int,
        host: int = 0,
        hosts: int = 1,
        stats: ReadStats | None = None,
    ):
        self.mixture = mixture
        self.tokenizer = tokenizer
        self.side = side
        self.length = length
        self.stats = stats or ReadStats(mixture)
        self.own = range(host * mixture.streams // hosts, (host + 1) * mixture.streams // hosts)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """images uint8 [batch / hosts, side, side, 3], tokens int32 [batch / hosts, length]."""
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            picks = list(pool.map(lambda i: self._pick(int(step), i), self.own))
        reads = {}
        for entry in (entry for _, _, tried, _ in picks for entry in tried):
            reads[entry] = reads.get(entry, 0) + 1
        bad = [one for *_, found in picks for one in found]
        self.stats.merge([{"news": [(reads, bad)], "counts": {}}])
        return {
            "images": np.stack([image for image, *_ in picks]),
            "tokens": np.stack([tokens for _, tokens, *_ in picks]),
        }

    def require_differing_texts(self):
        """Raises SourceError where the first texts all become the same ids: then no picture has a
        text that is not its own, and nothing is learned."""
        steps = range(-(-LOOKED_AT // max(len(self.own), 1)))
        tokens = np.concatenate([self[step]["tokens"] for step in steps])
        if len(np.unique(tokens, axis=0)) == 1:
            said = self.tokenizer.decode(tokens[0])[:60]
            raise SourceError(
                f"data.datasets: the first {len(tokens)} texts all become the ids of {said!r}, so no "
                "picture has a text that is not its own; take a tokenizer that knows their words, or "
                "another field (caption), and let options.text_length reach to where they differ"
            )

    def _pick(self, step: int, i: int):
        """(image, tokens, the entries that were tried, what was bad)."""
        position = step * self.mixture.streams + i
        numbers, shares = self._shares(step)
        tried = []
        bad = []
        for attempt in range(IN_A_ROW):
            rng = np.random.default_rng((self.mixture.seed, step, i, attempt))
            entry = numbers[int(rng.choice(len(numbers), p=shares))]
            source = self.mixture.entries[entry].source
            index = self.mixture.index(entry, position)
            if attempt:
                index = int(rng.integers(len(source)))
            tried.append(entry)
            try:
                tokens, _ = text_ids(source, index, self.tokenizer, self.length, rng)
                image = understanding_image(source.image(index), self.side, fast=True)
                return image, tokens, tried, bad
            except BAD as error:
                bad.append((entry, index, error.cause, str(error)))
        raise SourceError(
            f"{IN_A_ROW} pairs in a row cannot be used, the last of them: {bad[-1][3]}"
        )

    def _shares(self, step: int) -> tuple[list[int], np.ndarray]:
        """(numbers of the entries that are drawn at a step, their shares)."""
        phase = self.mixture.phase(step)
        numbers = []
        shares = []
        for kind in ("understanding", "generation"):
            found, share = self.mixture.shares(phase, kind)
            numbers += found
            shares += list(self.mixture.ratio[kind] * np.asarray(share))
        return numbers, np.asarray(shares) / sum(shares)


def text_ids(source: Source, index: int, tokenizer: Tokenizer, length: int, rng):
    """(ids of a record's text, int32 [length], in lower case, cut and then padded with end of
    sentence, so that this always is the last one; how many there are before it). rng chooses among
    several captions. Raises RecordError where the record has no text or not one picture."""
    text = _text(source[index], source.where(index), rng)
    ids = tokenizer.encode(text[: CHARACTERS * length].lower())[0][: length - 1]
    if not ids:
        raise RecordError("blank caption", f"{source.where(index)}: {text[:40]!r} gives no ids")
    tokens = np.full(length, tokenizer.eos, np.int32)
    tokens[: len(ids)] = ids
    return tokens, len(ids)


def _text(record: dict, where: str, rng) -> str:
    """One of a picture's captions, or the first answer of a conversation about one picture."""
    if "captions" in record:
        return record["captions"][int(rng.integers(len(record["captions"])))]
    turns = record.get("messages", ())
    pictures = sum(turn.count_pictures for turn in turns)
    answers = (" ".join(turn.texts) for turn in turns if turn.role == "assistant")
    answer = next(answers, None)
    if pictures != 1 or answer is None:
        raise RecordError(
            "no caption", f"{where}: {pictures} pictures and no text of one; give it a caption"
        )
    return answer
