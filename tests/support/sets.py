"""Batches of three data sets of the shapes world, whose epochs end soon; and a record as LLaVA has it."""

from support import tiny

from janus_jax.config.schema import Rows
from janus_jax.data.toy import shapes_sources

RATIO = {"understanding": 2, "text": 3, "generation": 5}
ROWS = Rows(count=8, length=192, understanding_images=2, generation_images=3)
SETS = {
    "questions": ("understanding", shapes_sources.ShapesUnderstanding(0, 61)),
    "sentences": ("text", shapes_sources.ShapesText(0, 83)),
    "scenes": ("generation", shapes_sources.ShapesGeneration(0, 97)),
}


def batches(sets=SETS, rows=ROWS, **how):
    return tiny.batches(sets, tiny.processor(), tiny.CONFIG, rows, RATIO, first=0.25, **how)


def said(*values, image="a/1.png"):
    """A LLaVA record whose turns alternate human, gpt."""
    turns = [{"from": ("human", "gpt")[k % 2], "value": value} for k, value in enumerate(values)]
    return {"id": "x", "conversations": turns} | ({"image": image} if image else {})
