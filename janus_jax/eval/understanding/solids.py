"""The solids' world asked about clouds that nobody trained on: which, how many, which is larger."""

from collections.abc import Mapping

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy import solids_sources
from janus_jax.eval import toy, trees
from janus_jax.eval.benchmark import Record

ABOUT = "Solids: three kinds of questions about point clouds"
HEADLINE = "overall"
PROTOCOLS = ("points", "blind")  # the question with its cloud, and alone
MAX_NEW_TOKENS = 8


def read(path: str, images: str, say) -> list[Record]:
    """ "solids:300?seed=1000": 300 questions with their clouds, drawn by the seed; these numbers are
    what "solids:" alone means. A run's own clouds are drawn by its seed, such as 0."""
    given = toy.options(path, "solids", count=300, seed=1000)
    if not given["count"]:
        raise UsageError(f"{path}: no question; give 1 or more")
    source = solids_sources.SolidsUnderstanding(given["seed"])
    asked = map(source.asked, range(given["count"]))
    return [
        Record(str(i), question, (), answer, category=kind, facts={"points": cloud})
        for i, (kind, question, answer, cloud) in enumerate(asked)
    ]


def ask(record: Record, protocol: str) -> list[dict]:
    """The cloud and the question in one message, as training has them; blind without the cloud."""
    seen = {"type": "points", "points": record.facts["points"]}
    text = {"type": "text", "text": record.question}
    return [{"role": "user", "content": [text] if protocol == "blind" else [seen, text]}]


def mark(record: Record, answer: str, protocol: str) -> dict:
    """Right word for word."""
    return {"read": answer, "right": float(answer == record.answer)}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    """ "KIND/right" and "KIND/questions" of each."""
    return [
        {f"{r.category}/right": m["right"], f"{r.category}/questions": 1.0}
        for r, m in zip(records, marks, strict=True)
    ]


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """The share of right answers of each kind of question, and the mean over kinds, 0 to 1."""
    found = trees.shares(sums, "right", "questions")
    kinds = {kind: found[kind] for kind in solids_sources.QUESTIONS if kind in found}
    return kinds | {"overall": trees.mean_of(kinds.values())}


def chance(records: list[Record]) -> dict[str, float]:
    """One of each kind's answers, all equally often right, and the mean over kinds."""
    asked = dict.fromkeys(record.category for record in records)
    kinds = {kind: solids_sources.CHANCE[kind] for kind in asked}
    return kinds | {"overall": trees.mean_of(kinds.values())}
