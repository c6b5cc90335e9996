"""How benchmarks ask: the chat messages of a record, and the words that several benchmarks add.

The authors' words are those of the class that they gave to VLMEvalKit (open-compass/VLMEvalKit,
vlmeval/vlm/janus.py, and the thread #541 there): pictures first, then a line break and the text,
and no system text but MM-Vet's. lmms-eval's are in its tasks (EvolvingLMMs-Lab/lmms-eval,
lmms_eval/tasks); it has no Janus, so there the system text is the weights' own.
"""

from janus_jax.data.messages import PLACEHOLDER
from janus_jax.eval.benchmark import Record

IN_A_WORD = "\nAnswer the question using a single word or phrase."
BY_LETTER = "Answer with the option's letter from the given choices directly."
YES_OR_NO = " Please answer yes or no."  # ends questions of POPE and MME


def chat(record: Record, text: str, system: str | None = None) -> list[dict]:
    """The messages that show a record's pictures and ask `text`. system: None leaves the system
    text to the template, empty takes none."""
    content = PLACEHOLDER * len(record.pictures) + "\n" + text
    asked = {"role": "user", "content": content, "images": list(record.pictures)}
    return [asked] if system is None else [{"role": "system", "content": system}, asked]


def worded(record: Record, text: str, protocol: str) -> list[dict]:
    """`chat` with the protocol's system text."""
    return chat(record, text, "" if protocol == "janus" else None)
