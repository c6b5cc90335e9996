"""Captions of pictures by a model: `janus-jax data caption` (paper section 4.2 has an open model
caption its pictures anew)."""

from janus_jax.config.steps import seed_of
from janus_jax.data import fields
from janus_jax.data.messages import blank
from janus_jax.data.sources import RecordError
from janus_jax.sample.understand import understand_batch


def picture_reader(source):
    """What `label.label_share` reads: number of a record -> (the number, its picture)."""

    def read(i: int):
        count = len([ref for ref in fields.pictures(source.raw(i)) if ref is not None])
        if count != 1:
            raise RecordError(
                "no picture" if not count else "several pictures",
                f"{source.where(i)}: has {count} pictures, and a caption is of one",
            )
        return i, source.image(i)

    return read


def captions_of(
    model, processor, things: list[tuple], questions: tuple[str, ...], seed: int, **how
) -> list:  # fmt: skip
    """The caption of each picture, or the error for which it has none.

    things: (number of a record, its picture), as `picture_reader` reads them.
    questions: what is asked, in turn by a record's number.
    seed: of all; each record draws from one of its own.
    how: max_new_tokens, temperature and top_p of `understand_batch`.
    """
    conversations = [asked(picture, questions[i % len(questions)]) for i, picture in things]
    seeds = [seed_of(seed, i) for i, _ in things]
    found = understand_batch(
        model, processor, conversations, seed=seeds, return_exceptions=True, **how
    )
    empty = RecordError("blank caption", "the model's caption is blank; ask another question")
    return [empty if isinstance(said, str) and blank(said) else said for said in found]


def asked(picture, question: str) -> list[dict]:
    """The chat messages that show a picture and ask."""
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]
