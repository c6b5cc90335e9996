"""The processor as the other libraries have it: their ids are ours, and its numbers come back."""

import numpy as np
import pytest
import transformers
from support import foreign

from janus_jax.config.schema import Template
from janus_jax.data.processor import Processor
from janus_jax.weights import processor_export, processor_files

MESSAGES = [
    [{"role": "user", "content": "what is this?"}],
    [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a red circle"},
     {"role": "user", "content": " and now? "}],
    [{"role": "system", "content": "Be brief."},
     {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is this?"}]}],
    [{"role": "user", "content": [{"type": "text", "text": "two:"}, {"type": "image"}, {"type": "image"}]}],
]  # fmt: skip


@pytest.fixture(scope="module")
def talkers(tmp_path_factory):
    """(transformers' processor as we write it, ours); the roles are words, as in Janus-1.3B."""
    directory = tmp_path_factory.mktemp("talk")
    ours = Processor(foreign.tokenizer(pro=False), Template(), 16, 16)
    processor_export.write_transformers(directory, ours, foreign.config())
    (directory / "config.json").write_text('{"model_type": "janus"}')
    return transformers.JanusProcessor.from_pretrained(directory), ours


@pytest.mark.parametrize("messages", MESSAGES)
def test_the_processor_of_transformers_gives_our_ids(talkers, messages, monkeypatch):
    theirs, ours = talkers
    system = "" if messages[0]["role"] == "user" else None
    spans = ours.conversation([*messages, {"role": "assistant", "content": ""}], system=system)
    text = theirs.apply_chat_template(messages, add_generation_prompt=True)
    pictures = [np.zeros((40, 30, 3), np.uint8)] * sum(
        p["type"] == "image"
        for m in messages
        if isinstance(m["content"], list)
        for p in m["content"]
    )
    monkeypatch.setattr(theirs, "use_default_system_prompt", False)
    got = theirs(text=text, images=pictures or None)
    assert got["input_ids"][0].tolist() == [i for ids, *_ in spans for i in ids]
    if pictures:
        assert got["pixel_values"].shape[-2:] == (32, 32)
        assert float(got["pixel_values"].max()) <= -0.0039, (
            "grey borders and black, by mean and std 0.5"
        )


def test_the_default_system_text_and_drawing(talkers):
    theirs, ours = talkers
    messages = [{"role": "user", "content": "a red circle"}]
    text = theirs.apply_chat_template(messages, add_generation_prompt=True)
    spans = ours.conversation([*messages, {"role": "assistant", "content": ""}])
    assert theirs(text=text)["input_ids"][0].tolist() == [i for ids, *_ in spans for i in ids]
    drawn = theirs(text=text, generation_mode="image")["input_ids"][0].tolist()
    assert drawn == [i for ids, *_ in ours.drawing("a red circle") for i in ids]


def test_roles_that_are_tokens_stay_whole(written):
    theirs = transformers.JanusProcessor.from_pretrained(written)
    text = theirs.apply_chat_template(MESSAGES[0], add_generation_prompt=True)
    assert text == "<|User|>: what is this?\n\n<|Assistant|>:"
    ids = theirs(text=text, generation_mode="image")["input_ids"][0].tolist()
    backend, t = foreign.tokenizer().backend, foreign.tokenizer()
    assert [ids.count(backend.token_to_id(role)) for role in foreign.ROLES] == [1, 1]
    assert (ids[0], ids[-1]) == (t.bos, t.begin_of_image)


def test_generation_defaults_travel(tmp_path):
    template = Template(*foreign.ROLES, system="")
    processor = Processor(foreign.tokenizer(), template, 16, 16, cfg_scale=3.0, temperature=0.5)
    processor_export.write_transformers(tmp_path, processor, foreign.config())
    again = processor_files.read_processor(tmp_path, foreign.config())
    assert (again.cfg_scale, again.temperature, again.template) == (3.0, 0.5, template)
    processor.template = Template(system="You paint.")
    with pytest.raises(
        ValueError, match=r"system is 'You paint.'; the other layouts have one fixed text"
    ):
        processor_export.write_transformers(tmp_path, processor, foreign.config())


@pytest.mark.parametrize(
    "write", [processor_export.write_deepseek, processor_export.write_transformers]
)
def test_template_and_sampling_numbers_come_back(tmp_path, write):
    ours = Processor(
        foreign.tokenizer(), Template(*foreign.ROLES, ""), 16, 16, 1.5, 0.0, context=512
    )
    write(tmp_path, ours, foreign.config())
    back = processor_files.read_processor(tmp_path, foreign.config())
    assert (back.template, back.cfg_scale, back.temperature) == (ours.template, 1.5, 0.0)
    assert back.context == 512
    for template, said in (
        (Template(*foreign.ROLES, "Be brief."), "system is 'Be brief.'"),
        (Template("Q", "A"), "roles are 'Q' and 'A'"),
    ):
        with pytest.raises(ValueError, match=said):
            write(tmp_path, Processor(foreign.tokenizer(), template, 16, 16), foreign.config())
