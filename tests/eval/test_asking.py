"""Prompts to the letter, as the original code's processor makes them of the authors' class."""

from support import quick

from janus_jax.config.schema import Template
from janus_jax.data.processor import Processor
from janus_jax.eval.asking import worded
from janus_jax.eval.benchmark import Record
from janus_jax.model import batch as bt

RECORD = Record("1", "what?", ("a.png", "b.png"))


def prompt(messages, system: str) -> str:
    """The prompt as text; a picture is (picture)."""
    tokenizer = quick.processor().tokenizer
    processor = Processor(tokenizer, Template(system=system), quick.N, quick.G)
    spans, sources = processor.question(messages)
    assert [source for source, _ in sources] == ["a.png", "b.png"]
    ids = []
    for found, role, _ in spans:
        ids += [tokenizer.encode("~")[0][0]] if role == bt.UNDERSTANDING_SLOT else list(found)
    return tokenizer.decode(ids)


def test_pictures_stand_side_by_side_then_a_line_break_and_no_system_text():
    found = prompt(worded(RECORD, "what?", "janus"), "Be helpful.")
    for mark in ("<begin_of_image>", "<end_of_image>"):
        found = found.replace(mark, "")
    assert found.endswith("User: ~~\nwhat?\n\nAssistant:")
    assert "Be helpful." not in found


def test_other_protocols_keep_the_weights_own_system_text():
    assert "Be helpful.\n\nUser: " in prompt(worded(RECORD, "what?", "lmms-eval"), "Be helpful.")
