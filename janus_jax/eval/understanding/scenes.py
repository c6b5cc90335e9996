"""The world of scenes asked about: seven kinds of questions, of combinations of thing, ground and
size that no training has, and of others."""

from collections.abc import Mapping

from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy import scenes, scenes_tests, scenes_words
from janus_jax.data.toy.scenes_sources import SMALLEST
from janus_jax.eval import toy, trees
from janus_jax.eval.benchmark import Record

ABOUT = "Scenes: seven kinds of questions about OpenMoji scenes, half of held-out combinations"
HEADLINE = "overall"
PROTOCOLS = ("scenes",)
MAX_NEW_TOKENS = 12


def read(path: str, images: str, say) -> list[Record]:
    """ "scenes:48?seed=1000&side=64": 48 questions of each kind about held-out combinations and as
    many about others, drawn by the seed, over pictures of 64 pixels; "scenes:" is all of these
    numbers. Those of existence come in pairs, so their number is even. The first of each kind and
    half come first, so that some of them are of all kinds alike."""
    given = toy.options(path, "scenes", count=48, seed=1000, side=64)
    faults = []
    if given["count"] < 2:
        faults.append("give 2 questions a kind or more; those of existence are pairs")
    if given["side"] < SMALLEST:
        faults.append(f"side={given['side']} pixels show no small thing; give {SMALLEST} or more")
    if faults:
        raise UsageError(f"{path}: {'; '.join(faults)}")
    try:
        groups = {}
        for split, held_out in scenes_tests.SPLITS.items():
            asked = scenes_tests.questions(given["count"], given["seed"], held_out)
            for n, one in enumerate(asked):
                record = _record(split, n, given["side"], one)
                groups.setdefault(record.category, []).append(record)
    except ImportError as error:
        raise UsageError(f"{path}: {error}") from None
    return toy.interleaved(groups.values())


def _record(split: str, n: int, side: int, asked: tuple) -> Record:
    kind, scene, question, answer = asked
    picture = Image.fromarray(scenes.draw(scene, side))
    return Record(
        f"{split}/{n:04}",
        question,
        (picture,),
        answer,
        category=f"{split}/{kind}",
        facts={"scene": scene},
    )


def ask(record: Record, protocol: str) -> list[dict]:
    """The picture and the question in one message, as training has them."""
    image = {"type": "image", "image": record.pictures[0]}
    text = {"type": "text", "text": record.question}
    return [{"role": "user", "content": [image, text]}]


def mark(record: Record, answer: str, protocol: str) -> dict:
    """Right word for word."""
    read = answer.strip()
    return {"read": read, "right": float(read == record.answer)}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    """ "SPLIT/KIND/right" and "SPLIT/KIND/questions" of each question; of the two of existence about
    one scene together, with "SPLIT/pairs/right", 1 where both are right."""
    units = {}
    for record, marked in zip(records, marks, strict=True):
        of = record.category
        key = (of, record.facts["scene"]) if of.endswith("/exists") else record.index
        unit = units.setdefault(key, {f"{of}/right": 0.0, f"{of}/questions": 0.0})
        unit[f"{of}/right"] += marked["right"]
        unit[f"{of}/questions"] += 1
        if unit[f"{of}/questions"] == 2:
            pairs = of.replace("/exists", "/pairs")
            unit |= {f"{pairs}/right": float(unit[f"{of}/right"] == 2), f"{pairs}/questions": 1.0}
    return list(units.values())


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """The accuracy of each kind of question, the share of pairs of which both are right, and the
    mean over kinds, of either half and of both, 0 to 1."""
    return _with_means(trees.shares(sums, "right", "questions"))


def chance(records: list[Record]) -> dict[str, float]:
    """One of each kind's answers, of relations one of the two that a question names, and the means
    over kinds. Held-out questions of size punish a shortcut below it: a held-out thing had always
    the other size on this ground in training, so whoever goes by thing and ground scores 0.00
    there, and 0.64 on the others."""
    kinds = {record.category: record.category.partition("/")[2] for record in records}
    among = {kind: len(answers) for kind, answers in scenes_words.ANSWERS.items()}
    found = {of: 1 / (among | {"relation": 2})[kind] for of, kind in kinds.items()}
    pairs = [of.replace("/exists", "/pairs") for of in found if of.endswith("exists")]
    return _with_means(found | dict.fromkeys(pairs, 0.25))


def _with_means(found: dict[str, float]) -> dict[str, float]:
    out = {}
    kinds = []
    for split in scenes_tests.SPLITS:
        of = {
            f"{split}/{kind}": found[f"{split}/{kind}"]
            for kind in (*scenes_words.QUESTIONS, "pairs")
            if f"{split}/{kind}" in found
        }
        own = [value for name, value in of.items() if not name.endswith("/pairs")]
        out |= of | ({f"{split}/overall": trees.mean_of(own)} if own else {})
        kinds += own
    return out | {"overall": trees.mean_of(kinds)}
