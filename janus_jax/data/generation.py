"""A caption and a picture to draw -> Sequence (paper sections 3.2 and 3.3; condition dropout as in
LlamaGen)."""

import re

import numpy as np

from janus_jax.data.packing import shorten
from janus_jax.data.sources import CHARACTERS, RecordError
from janus_jax.model import batch as bt

# A sentence ends in marks and what they close, before a space; East Asian marks need none.
_END = re.compile(
    r"(?P<asian>(?:[。！？｡]|．(?!\d))+[”’」』）】》〉\"')\]]*)(?![。！？｡”’」』）】》〉、，,])"
    r"(?!(?<=[”’」』])(?:と|って))"
    r"|(?P<mark>[.!?…؟۔।॥։።]+)(?P<close>[\"'”’»›)\]}*_]*)(?=(?P<space>\s+)(?P<next>\S+)|\s*$)"
    r"|(?P<blank>(?=\n\s*\n))"
)
_SEARCHED = 2000  # characters; a first sentence beyond is the whole caption
_PAIRS = ("()", "[]", "（）", "「」", "『』", "“”", "«»", '""')
_words = lambda text: frozenset(text.split())
# Before a dot these end no sentence: titles, and what a name, a number or an example follows.
_NEVER = _words(
    "mr mrs ms mx dr prof gen col maj capt cpt cmdr lt sgt rev hon gov sen rep pres mt messrs mme "
    "mlle sra dra hr fr nr fig figs eq vs viz cf ca approx resp incl esp e.g i.e z.b d.h"
)
# These do where a word follows that sentences begin with: "in the U.S. The ship", "a U.S. ship".
_PERHAPS = _words(
    "st ft jr sr inc ltd co corp bros dept univ ave blvd rd vol pp ch sec ed eds al op est bzw usw "
    "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Mon Tue Tues Wed Thu Thur Thurs Fri Sat Sun"
)
_UNIT = re.compile(r"\d\s*(in|ft|yd|mi|lb|lbs|oz|pt|gal|sec|min|hr|hrs|mm|cm|km|kg|sq)$")
_LETTERS = re.compile(r"([^\W\d_]{1,2}\.)*[^\W\d_]")  # initials, U.S, p.m
_STARTS = _words(
    "A An The It Its He His She Her They Their We Our You I This That These Those There Here In On "
    "At To From With Behind Above Below Under Near Next Beside Between Around Across After Before "
    "While When As If Then But And Both Each Some Several Many Most All One Two Three Four No What"
)


def encode(record: dict, processor, rng, dropout, first_sentence, length, form="chat") -> dict:
    """record: {"captions": [one or more alternatives]}, and perhaps {"image_ids": int [N]}, or
    {"drawn": spans of what stands in the N ids' place}, see sizes.spans.

    BOS, the prompt, begin_of_image, N image ids, end_of_image, EOS, at most `length` tokens; only
    the ids are targets. The prompt is the caption in the "chat" template, or "plain", by itself.
    With probability `first_sentence` a caption of several sentences is cut to its first; with
    probability `dropout` every token strictly between BOS and begin_of_image becomes pad and stays
    attended.
    """
    t = processor.tokenizer
    caption = record["captions"][rng.integers(len(record["captions"]))]
    if rng.random() < first_sentence:
        caption = first(caption)
    most = CHARACTERS * processor.context  # what is beyond is not worth encoding: no row takes it
    prompt = processor.drawing(caption[:most], form, bt.GIVEN)
    slots = ([t.placeholder] * processor.generation_tokens, bt.GENERATION_SLOT, 1)
    drawn = record.get("drawn", [slots])
    spans = [*prompt, *drawn, ([t.end_of_image, t.eos], bt.TEXT, 0)]
    spans, cut = shorten(spans, length, t.eos)
    out = bt.sequence(
        spans, "generation", generation_images=[0], truncated=cut or len(caption) > most
    )
    if rng.random() < dropout:
        end = sum(len(ids) for ids, _, _ in spans[: -1 - len(drawn)])  # of the prompt, as it is cut
        out["tokens"][:end] = processor.unconditional(out["tokens"][:end])
    return out


def first(caption: str) -> str:
    """The first sentence: not up to an abbreviation's dot or an ellipsis within it, nor inside
    brackets and quotation marks."""
    caption = caption.strip()
    searched = caption[:_SEARCHED]
    letter = next((c for c in searched if c.isalpha()), "")
    for match in _END.finditer(searched):
        said = searched[: match.end()]
        left = searched[match.end() :]
        odd = {'"': said.count('"') % 2}
        if any(odd.get(a, said.count(a) > said.count(b)) and b in left for a, b in _PAIRS):
            continue
        if match["next"] is None or not _goes_on(searched[: match.start()], match, letter):
            return said
    return caption


def _goes_on(before: str, match, letter: str) -> bool:
    """Whether a sentence goes on behind its marks. before: the text up to them; letter: the
    caption's first."""
    mark = match["mark"]
    following = match["next"].lstrip("\"'“‘«‹([{¿¡*_")
    begins = re.split(r"[\W_]", following)[0] in _STARTS
    if not following or following[0] in ".,;:!?…)-–—&/":
        return True
    if following[0].islower() and (letter.isupper() or match["close"] or mark not in ".!?"):
        return True
    if mark != ".":
        return False
    word = re.split(r"[\s\"'“‘«‹([{—–/-]", before)[-1]
    if word.isdigit() and word == before:
        return True  # the number of a list
    if word.lower() in _NEVER:
        return True
    if word.lower() in ("a.m", "p.m", "etc"):
        return not following[0].isupper() or (following.isupper() and not begins)
    if word.lower() in ("no", "nos"):
        return following[0].isdigit()
    short = {word, word.lower()} & _PERHAPS or _LETTERS.fullmatch(word) or _UNIT.search(before[-9:])
    return bool(short) and not begins and "\n" not in match["space"]


def stored_ids(values, vq) -> np.ndarray:
    """Ids that stand in a record, int32 [N]; vq: the model's GenerationEncoderConfig. Raises
    RecordError."""
    ids = np.asarray(values).reshape(-1)
    if len(ids) != vq.tokens or ids.min() < 0 or ids.max() >= vq.codebook_size:
        got = f"{len(ids)} from {ids.min()} to {ids.max()}" if len(ids) else "none"
        raise RecordError(
            "wrong image_ids",
            f"image_ids must be {vq.tokens} numbers in [0, {vq.codebook_size}); got {got}",
        )
    return ids.astype(np.int32)
