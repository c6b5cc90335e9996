"""Scores of captions against log-softmax picked by hand from the plain model, a row at a time."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny
from support.labelled import CAPTIONS, bad, labelling, opened, photos, records, run
from support.mesh import on_mesh
from support.sampling import LENGTH, forward, make, picture

from janus_jax.config.schema import Rows
from janus_jax.data.images import understanding_image
from janus_jax.data.sources import SourceError
from janus_jax.model.batch import EXAMPLE_COLUMNS, pixels
from janus_jax.model.serving import serving
from janus_jax.sample import score

T = tiny.processor().tokenizer


def by_hand(model, ids: list[int], count: int, shown=()) -> float:
    """The mean log p of the last `count` ids, the pictures' features on their placeholders."""
    table = np.asarray(model.text_embedding.table[...])
    x = np.zeros((1, LENGTH, table.shape[1]), np.float32)
    x[0, : len(ids)] = table[ids]
    if shown:
        images = pixels(np.stack([understanding_image(image, 16) for image in shown]))
        features = np.asarray(model.embed_images(jnp.asarray(images)))
        x[0, : len(ids)][np.array(ids) == T.placeholder] = features.reshape(-1, table.shape[1])
    logits = np.asarray(model.text_head(forward(model, x)), np.float64)[0]
    said = range(len(ids) - count, len(ids))
    return float(np.mean([logits[k - 1][ids[k]] - logsumexp(logits[k - 1]) for k in said]))


def logsumexp(x: np.ndarray) -> float:
    return float(np.log(np.exp(x - x.max()).sum()) + x.max())


def text(words: str) -> list[int]:
    return list(T.encode(words)[0])


PICTURE = [
    T.begin_of_image,
    *[T.placeholder] * tiny.processor().understanding_tokens,
    T.end_of_image,
]


def chat(question: str, caption: str, pictures: int) -> tuple[list[int], int]:
    """The ids of a chat of one question, a picture before its words on a line of its own, and how
    many at its end are the caption's."""
    before = [T.bos, *text("User:"), *text(" ")]
    asked = text(f"\n{question}\n\nAssistant:")
    answer = [*text(f" {caption}"), T.eos]
    return [*before, *PICTURE * pictures, *asked, *answer], len(answer)


def expected(model, question: str, caption: str, shown) -> float:
    seen, count = chat(question, caption, 1)
    blind, _ = chat(question, caption, 0)
    return by_hand(model, seen, count, [shown]) - by_hand(model, blind, count)


def things(line, indices, processor, questions=()):
    read = score.reader(
        opened(line), processor, tiny.CONFIG.understanding_encoder, line.form or "chat", questions
    )
    return [read(i) for i in indices]


@pytest.fixture(scope="module")
def decoding(weights):
    """The model in the form that the commands load."""
    with on_mesh():
        return serving(weights)


@pytest.fixture
def served(decoding, one_device):
    return decoding


def test_a_score_is_what_the_plain_model_says_whatever_its_company(
    served, model, processor, tmp_path
):
    line = photos(tmp_path, 18)
    questions = ("what is it?", "describe it.")
    found = score.scores(served, processor, things(line, range(18), processor, questions))
    want = [
        expected(model, questions[i % 2], CAPTIONS[i % 4], picture(i)) for i in (0, 1, 2, 3, 17)
    ]
    np.testing.assert_allclose([found[i] for i in (0, 1, 2, 3, 17)], want, rtol=0, atol=1e-5)
    assert len(set(found)) == 18


def test_the_caption_of_another_picture_scores_otherwise(served, processor, tmp_path):
    """What the picture tells, not the words alone."""
    (rows, shown), (_, other) = things(photos(tmp_path, 2), range(2), processor)
    right, wrong = score.scores(served, processor, [(rows, shown), (rows, other)])
    assert abs(right - wrong) > 1e-3
    blind = [(score.without_pictures(rows[0]), ())]
    (likelihood,) = score.log_likelihoods(served, processor, blind)
    _, count = chat("Describe the picture.", CAPTIONS[0], 0)
    assert likelihood.shape == (count,) and likelihood.dtype == np.float32
    assert (likelihood < 0).all()


def test_of_several_captions_the_mean_and_of_a_chat_all_answers(served, model, processor, tmp_path):
    line = photos(tmp_path, 3)
    several = {"image": "0.png", "captions": CAPTIONS[:2]}
    turns = [("human", "<image>\nwhat?"), ("gpt", "a cross"), ("human", "sure?"), ("gpt", "yes")]
    said = {
        "image": "1.png",
        "conversations": [{"from": role, "value": words} for role, words in turns],
    }
    (tmp_path / "captions.jsonl").write_text(f"{json.dumps(several)}\n{json.dumps(said)}\n")
    (found,) = score.scores(served, processor, things(line, [0], processor))
    want = [
        expected(model, "Describe the picture.", caption, picture(0)) for caption in CAPTIONS[:2]
    ]
    assert abs(found - sum(want) / 2) < 1e-5
    chats = dataclasses.replace(line, kind="understanding")
    ((spans,), _) = things(chats, [1], processor)[0]
    (seen,) = score.log_likelihoods(
        model, processor, [(spans, things(chats, [1], processor)[0][1])]
    )
    assert len(seen) == len(text(" a cross")) + 1 + len(text(" yes")) + 1
    plain = dataclasses.replace(line, form="plain")
    ((rows, _),) = things(plain, [0], processor)
    ids = [T.bos, *PICTURE, *text(CAPTIONS[0]), T.eos]
    assert np.concatenate([span[0] for span in rows[0]]).tolist() == ids


@pytest.mark.slow
def test_rows_split_over_devices_score_the_same(processor, tmp_path):
    line = photos(tmp_path, 5)
    some = things(line, range(5), processor)
    found = []
    for mesh in ((1, 1, 1), (1, 2, 2)):
        with on_mesh(*mesh):
            found.append(score.scores(make(), processor, some))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-5)


def test_records_that_cannot_be_scored_are_told(served, processor, tmp_path):
    line = photos(tmp_path, 3)
    lines = (tmp_path / "captions.jsonl").read_text().splitlines()
    lines[1] = json.dumps({"image": "1.png", "caption": "long " * 3000})
    lines.append(json.dumps({"image": ["0.png"], "text": "<image> a document"}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    job = labelling(dataclasses.replace(line, kind="understanding"), tmp_path / "out")
    read = score.reader(job.source, processor, tiny.CONFIG.understanding_encoder, "chat", ())
    run(job, read, lambda some: score.scores(served, processor, some))
    assert [record["number"] for record in records(job)] == [0, 2]
    assert [one["cause"] for one in bad(job)] == ["too long", "a document"]
    assert "captions.jsonl:2: is " in bad(job)[0]["message"]


def test_scores_of_a_model_that_diverged_are_refused(processor, tmp_path, one_device):
    broken = make()
    broken.text_head.linear.kernel[...] = broken.text_head.linear.kernel[...] * np.nan
    with pytest.raises(ValueError, match="logits are not finite"):
        score.scores(broken, processor, things(photos(tmp_path, 1), [0], processor))


def test_training_reads_scores_and_leaves_out_what_is_below(served, processor, tmp_path):
    line = photos(tmp_path, 8)
    job = labelling(line, tmp_path / "out")
    read = score.reader(job.source, processor, tiny.CONFIG.understanding_encoder, "chat", ())
    run(job, read, lambda some: score.scores(served, processor, some))
    found = [record["new"] for record in records(job)]
    least = sorted(found)[5]
    kept = dataclasses.replace(
        line, path=str(job.folder / "records.jsonl"), score="new", min_score=least
    )
    assert [opened(kept)[i]["captions"][0] for i in range(3)] == [
        CAPTIONS[i % 4] for i in range(8) if found[i] >= least
    ]
    sources, only = {"generation": opened(kept)}, {"understanding": 0, "text": 0, "generation": 1}
    _, drawn = next(tiny.batches(sources, processor, tiny.CONFIG, Rows(4, 96, 0, 2), only))
    assert set(drawn[:, EXAMPLE_COLUMNS.index("record")]) == {0, 1, 2}
    with pytest.raises(SourceError, match="no record has new >= "):
        opened(dataclasses.replace(kept, min_score=max(found) + 1))
