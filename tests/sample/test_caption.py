"""Captions that a model gives to a data set's pictures."""

import json

from support.labelled import bad, labelling, photos, records, run
from support.sampling import picture, said

from janus_jax.config.steps import seed_of
from janus_jax.sample import caption
from janus_jax.sample.understand import understand

QUESTIONS = ("what is it?", "describe it.")


def captioned(model, processor, job, shares=1, seed=0, **how):
    how = {"max_new_tokens": 8, "temperature": 0.0, "top_p": 1.0} | how
    apply = lambda some: caption.captions_of(model, processor, some, QUESTIONS, seed, **how)
    run(job, caption.picture_reader(job.source), apply, shares)
    return [record.get("new") for record in records(job)]


def test_a_caption_is_the_answer_that_understand_gives_alone(model, processor, tmp_path):
    line = photos(tmp_path, 6)
    found = captioned(model, processor, labelling(line, tmp_path / "out"))
    alone = [
        understand(model, processor, said(QUESTIONS[i % 2], picture(i)), max_new_tokens=8)
        for i in range(6)
    ]
    assert found == alone and len(set(found)) > 3


def test_drawn_captions_follow_the_seed_and_not_shares_or_batches(model, processor, tmp_path):
    line = photos(tmp_path, 6)
    how = {"temperature": 1.0, "top_p": 0.9}
    whole = captioned(model, processor, labelling(line, tmp_path / "a"), seed=5, **how)
    parts = captioned(model, processor, labelling(line, tmp_path / "b", 2), 2, seed=5, **how)
    other = captioned(model, processor, labelling(line, tmp_path / "c"), seed=6, **how)
    assert whole == parts != other
    alone = understand(
        model,
        processor,
        said(QUESTIONS[0], picture(4)),
        max_new_tokens=8,
        seed=seed_of(5, 4),
        **how,
    )
    assert whole[4] == alone


def test_pictures_that_cannot_be_read_and_records_without_one_are_told(model, processor, tmp_path):
    line = photos(tmp_path, 4)
    (tmp_path / "photos" / "1.png").write_bytes(b"\x89PNG")
    lines = (tmp_path / "captions.jsonl").read_text().splitlines()
    lines[2] = json.dumps({"image": ["0.png", "3.png"], "caption": "two"})
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    job = labelling(line, tmp_path / "out")
    assert len(captioned(model, processor, job)) == 2
    assert [(one["record"], one["cause"]) for one in bad(job)] == [
        (1, "damaged"),
        (2, "several pictures"),
    ]


def test_a_blank_caption_is_none(model, processor, monkeypatch):
    monkeypatch.setattr(caption, "understand_batch", lambda *_, **how: ["a cross", " \n"])
    found = caption.captions_of(model, processor, [(0, picture(0)), (1, picture(1))], QUESTIONS, 0)
    assert found[0] == "a cross" and found[1].cause == "blank caption"
