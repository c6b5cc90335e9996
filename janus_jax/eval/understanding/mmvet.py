"""MM-Vet: open questions that take several abilities, scored by GPT-4 (arXiv 2308.02490)

Files: the authors' mm-vet.json with their folder of pictures; MMVet.tsv of VLMEvalKit; lmms-eval's
parquet.

A judge compares each answer with the truth, by the authors' words (yuweihao/MM-Vet,
mm-vet_evaluator.py, gpt-4-0613 at temperature 0), and says 0.0 to 1.0. Scores differ by judge: name
it. Where one answer has no verdict there is no score. Without a judge, `judge_file` is what the
authors' evaluator reads.

Protocols:
    janus: the question alone, under the authors' own system text.
    lmms-eval: asked to reason first.
"""

import json
from collections.abc import Mapping

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import listed, short
from janus_jax.eval.asking import chat
from janus_jax.eval.benchmark import Record
from janus_jax.eval.question_files import question_rows, require_sound
from janus_jax.eval.question_formats import json_value

ABOUT = "MM-Vet: 218 open questions on 200 pictures in six abilities, scored by a judge"
HEADLINE = "total"
PROTOCOLS = ("janus", "lmms-eval")
MAX_NEW_TOKENS = 1024
ABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
SYSTEM = (
    "You are a helpful assistant. Please answer truthfully and write out your thinking step by step "
    "to be sure you get the right answer."
)
REASON = (
    "First please perform reasoning, and think step by step to provide best answer to the following "
    "question: \n\n"
)
_COLUMNS = {
    "index": ("question_id", "index"),
    "question": ("question",),
    "answer": ("answer",),
    "abilities": ("capability", "category"),
}
_MEME = "Can you explain this meme?"
_NAMES = (
    "This meme is poking fun at the fact that the names of the countries Iceland and Greenland are "
    "misleading. Despite its name, Iceland is known for its beautiful green landscapes, while "
    "Greenland is mostly covered in ice and snow. The meme is saying that the person has trust issues "
    "because the names of these countries do not accurately represent their landscapes."
)
_SHOTS = (
    ("Question", "Ground truth", "Prediction", "Correctness"),
    ("---", "---", "---", "---"),
    ("What is x in the equation?", "-1 <AND> -5", "x = 3", "0.0"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -1", "0.5"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -5", "0.5"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -5 or 5", "0.5"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -1 or x = -5", "1.0"),
    (
        _MEME, _NAMES,
        "The meme talks about Iceland and Greenland. It's pointing out that despite their names, "
        "Iceland is not very icy and Greenland isn't very green.",
        "0.4",
    ),
    (
        _MEME, _NAMES,
        "The meme is using humor to point out the misleading nature of Iceland's and Greenland's "
        "names. Iceland, despite its name, has lush green landscapes while Greenland is mostly covered "
        "in ice and snow. The text 'This is why I have trust issues' is a playful way to suggest that "
        "these contradictions can lead to distrust or confusion. The humor in this meme is derived from "
        "the unexpected contrast between the names of the countries and their actual physical "
        "characteristics.",
        "1.0",
    ),
)  # fmt: skip
_TASK = (
    "Compare the ground truth and prediction from AI models, to give a correctness score for the "
    "prediction. <AND> in the ground truth means it is totally right only when all elements in the "
    "ground truth are present in the prediction, and <OR> means it is totally right when any one "
    "element in the ground truth is present in the prediction. The correctness score is 0.0 (totally "
    "wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, or 1.0 (totally right). Just complete the "
    "last space of the correctness score."
)


def read(path: str, images: str, say) -> list[Record]:
    """See `Understanding.read`. Record.index: the authors', as v1_17; facts["abilities"]: those of
    ABILITIES that the question takes."""
    rows, problems = question_rows(
        path, images, _COLUMNS, say,
        names=lambda fields: [fields["imagename"]] if "imagename" in fields else [],
    )  # fmt: skip
    out = []
    for row in rows:
        fields = row.fields
        found = fields["abilities"]
        abilities = [a.strip() for a in (found.split(",") if isinstance(found, str) else found)]
        if unknown := set(abilities) - set(ABILITIES):
            problems.append(f"{row.where}: ability {sorted(unknown)} is none of {ABILITIES}")
        index = fields["index"]
        index = f"v1_{index}" if index.isdigit() else index
        answer = str(fields["answer"])
        facts = {"abilities": tuple(abilities)}
        out.append(
            Record(index, fields["question"], row.pictures, answer, {}, "_".join(abilities), facts)
        )
    require_sound(path, problems)
    if any(row.fields["index"].isdigit() for row in rows):
        say(f"{path}: row N is taken for the authors' v1_N")
    return out


def ask(record: Record, protocol: str) -> list[dict]:
    if protocol == "janus":
        return chat(record, record.question, SYSTEM)
    return chat(record, REASON + record.question)


def mark(record: Record, answer: str, protocol: str) -> dict:
    """What is right is None until a judge has said it."""
    return {"read": answer, "right": None}


def tally(records: list[Record], marks: list[dict], protocol: str) -> list[dict[str, float]]:
    """The unit is a question."""
    out = []
    for record, found in zip(records, marks, strict=True):
        right = found["right"]
        unit = {"unjudged": float(right is None)}
        for name in ("total", *record.facts["abilities"]):
            unit[f"{name}/asked"] = 1.0
            unit[f"{name}/right"] = right or 0.0
        out.append(unit)
    return out


def scores(sums: Mapping[str, float], protocol: str) -> dict[str, float]:
    """Percent, in all ("total") and by ability; only the number of those without a verdict
    ("unjudged") where there are any."""
    if sums["unjudged"]:
        return {"unjudged": sums["unjudged"]}
    names = [name for name in ("total", *ABILITIES) if sums.get(f"{name}/asked")]
    return {name: 100 * sums[f"{name}/right"] / sums[f"{name}/asked"] for name in names}


def to_judge(record: Record, answer: str) -> str:
    """What the judge is asked about an answer."""
    shots = "\n".join(map(" | ".join, _SHOTS))
    truth = record.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    return f"{_TASK}\n\n{shots}\n\n" + " | ".join((record.question, truth, answer, ""))


def verdict(reply: str) -> float | None:
    """The number from 0 to 1 that a reply begins with; None where it does not."""
    try:
        value = float(reply.strip().split(" ")[0])
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None


def judge_file(records: list[Record], answers: list[str]) -> str:
    """The JSON that the authors' evaluator reads: index -> answer."""
    given = {r.index: answer for r, answer in zip(records, answers, strict=True)}
    return json.dumps(given, indent=2, ensure_ascii=False) + "\n"


def judge_advice(file: str) -> str:
    """What to do with `judge_file`, saved as `file`, where there is no judge here."""
    folder, _, name = file.replace("\\", "/").rpartition("/")
    return (
        f"no judge was named, so MM-Vet has no score. Name one, or upload {file} at "
        "https://huggingface.co/spaces/whyu/MM-Vet_Evaluator, or run the authors' evaluator of "
        f"https://github.com/yuweihao/MM-Vet with --result_path={folder or '.'} "
        f"--model={name.removesuffix('.json')} --gpt_model=gpt-4-0613"
    )


def judge_results(path: str, records: list[Record]) -> dict[str, float]:
    """From the authors' NAME_gpt-4-0613-grade-1runs.json: index -> {"score": one a run, "content":
    the replies}; the mean of the runs. A 0.0 beside a reply that is no number, which their
    evaluator writes after five tries, is no verdict. Raises UsageError."""
    graded = json_value(path)
    out = {}
    problems = []
    for record in records:
        try:
            found = graded[record.index]
            values = [verdict(str(reply)) for reply in found["content"]]
            runs = [float(score) for score in found["score"]]
            if not runs or None in values or values != runs:
                problems.append(
                    f"{record.index}: no verdict (replies {short(found['content'], 60)})"
                )
            else:
                out[record.index] = sum(runs) / len(runs)
        except (KeyError, TypeError, ValueError):
            problems.append(
                f"{record.index}: is not there, or not as the authors' evaluator writes it"
            )
    if problems:
        raise UsageError(
            f"{path}: {len(problems):,} of {len(records):,} answers have no verdict, so there is no "
            f"score; run the evaluator on them again:{listed(problems)}"
        )
    return out
