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
        # For good: a thread keeps the files that it has open.
        self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
        self.stats = stats or ReadStats(mixture)
        self.own = range(host * mixture.streams // hosts, (host + 1) * mixture.streams // hosts)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """images uint8 [batch / hosts, side, side, 3], tokens int32 [batch / hosts, length]."""
        picks = self._picks(int(step))
        reads = {}
        seen = np.zeros((len(self.mixture.entries), 4), np.int64)  # as in ReadStats
        for _, _, count, cut, tried, _ in picks:
            for entry in tried:
                reads[entry] = reads.get(entry, 0) + 1
            seen[tried[-1]] += (1, count, 0, cut)
        bad = [one for *_, found in picks for one in found]
        first = self.mixture.changes[self.mixture.phase(int(step))]
        self.stats.merge([{"news": [(reads, bad)], "counts": {str(first): seen.tolist()}}])
        return {
            "images": np.stack([image for image, *_ in picks]),
            "tokens": np.stack([tokens for _, tokens, *_ in picks]),
        }

    def require_differing_texts(self):
        """Raises SourceError where the first texts all become the same ids: then no picture has a
        text that is not its own, and nothing is learned. Says how many of them are cut."""
        steps = range(-(-LOOKED_AT // max(len(self.own), 1)))
        picks = [pick for step in steps for pick in self._picks(step)]
        tokens = np.stack([tokens for _, tokens, *_ in picks])
        if cut := sum(cut for _, _, _, cut, *_ in picks):
            self.stats.say(
                f"  {cut} of the first {len(picks)} texts are longer than options.text_length = "
                f"{self.length} tokens, and cut; all are counted at the end of the stage"
            )
        if len(np.unique(tokens, axis=0)) == 1:
            said = self.tokenizer.decode(tokens[0])[:60]
            raise SourceError(
                f"data.datasets: the first {len(tokens)} texts all become the ids of {said!r}, so no "
                "picture has a text that is not its own; take a tokenizer that knows their words, or "
                "another field (caption), and let options.text_length reach to where they differ"
            )

    def _picks(self, step: int) -> list[tuple]:
        return list(self._pool.map(lambda i: self._pick(step, i), self.own))

    def _pick(self, step: int, i: int):
        """(image, tokens, how many of the text, whether it is cut, the entries that were tried, the
        last of which is its own, what was bad)."""
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
                tokens, *how = text_ids(source, index, self.tokenizer, self.length, rng)
                image = understanding_image(source.image(index), self.side, fast=True)
                return image, tokens, *how, tried, bad
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
    sentence, so that this always is the last one; how many there are before it; whether the text
    was longer). rng chooses among several captions. Raises RecordError where the record has no text
    or not one picture."""
    text = _text(source[index], source.where(index), rng)
    read = text[: CHARACTERS * length]
    ids = tokenizer.encode(read.lower())[0]
    cut = len(read) < len(text) or len(ids) > length - 1
    ids = ids[: length - 1]
    if not ids:
        raise RecordError("blank caption", f"{source.where(index)}: {text[:40]!r} gives no ids")
    tokens = np.full(length, tokenizer.eos, np.int32)
    tokens[: len(ids)] = ids
    return tokens, len(ids), cut


def _text(record: dict, where: str, rng) -> str:
    """One of a picture's captions, or the first answer of a conversation about one picture."""
    if "sources" in record:
        raise RecordError("an edit", f"{where}: an edit says what to do, and nothing of a picture")
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
