"""A processor is read from the small files beside weights."""

import json

import pytest
from support import foreign

from janus_jax.config.schema import SYSTEM, Template
from janus_jax.data.processor import Processor
from janus_jax.weights.processor_files import read_processor
from janus_jax.weights.source import open_source


@pytest.fixture
def folder(tmp_path):
    """A tokenizer, and what further files a test writes."""
    foreign.tokenizer().save(tmp_path)
    return tmp_path


def write(directory, name, **fields):
    (directory / name).write_text(json.dumps(fields))


def test_roles_go_by_the_vocabulary(tmp_path):
    foreign.save_original(tmp_path, pro=False)
    assert open_source(tmp_path).processor().template == Template("User", "Assistant")


def test_the_system_text_is_left_out_where_the_other_code_leaves_it_out(folder):
    system = lambda kind: read_processor(folder, foreign.config(), kind).template.system
    assert system("transformers") == SYSTEM, "as published, where no file says anything"
    write(folder, "processor_config.json", processor_class="of either")
    assert (system("deepseek"), system("transformers")) == (SYSTEM, "")
    write(folder, "processor_config.json", use_default_system_prompt=True)
    assert system("transformers") == SYSTEM


@pytest.mark.parametrize(
    "file, fields, says",
    [
        ("processor_config", {"num_image_tokens": 576}, "num_image_tokens is 576; .* be 16"),
        ("processor_config", {"use_default_system_prompt": "yes"}, "must be true or false"),
        ("processor_config", {"sft_format": "llama-2"}, "sft_format is 'llama-2'"),
        ("processor_config", {"add_special_token": True}, "add_special_token is True"),
        ("processor_config", {"system_prompt": "Be brief"}, "system_prompt is .*not honoured"),
        ("processor_config", {"image_processor": [1]}, "image_processor is .*must be a section"),
        ("preprocessor_config", {"image_size": 384}, "384 pixels wide, and these weights read 32"),
        ("generation_config", {"temperature": "hot"}, "temperature is 'hot'"),
        ("generation_config", {"guidance_scale": -1}, "guidance_scale is -1"),
        ("generation_config", {"eos_token_id": 7}, "eos_token_id is 7: must be 1"),
        ("generation_config", {"eos_token_id": True}, "eos_token_id is True: must be 1"),
        ("generation_config", {"generation_kwargs": {"boi_token_id": 77}},
         "generation_kwargs.boi_token_id is 77; this tokenizer can only be 3"),
        ("config", {"eos_token_id": 7}, "eos_token_id is 7: must be 1, as in tokenizer.json"),
        ("config", {"language_config": {"pad_token_id": 7}}, "language_config.pad_token_id is 7: must be 2"),
        ("config", {"text_config": {"bos_token_id": 100000}}, "text_config.bos_token_id is 100000"),
        ("config", {"text_config": {"max_position_embeddings": "9"}}, "embeddings is '9': must be a"),
        ("tokenizer_config", {"model_max_length": -1}, "model_max_length is -1: must be a finite"),
        ("tokenizer_config", {"eos_token": "<|im_end|>"}, r"eos_token is '<\|im_end\|>'"),
        ("tokenizer_config", {"pad_token": {"content": "<x>"}}, "pad_token is '<x>'"),
        ("tokenizer_config", {"add_eos_token": True}, "add_eos_token is True"),
        ("tokenizer_config", {"extra_special_tokens": {"boi_token": "<i>"}}, "boi_token is '<i>'"),
        ("tokenizer_config", {"added_tokens_decoder": {"3": {"content": "<image_placeholder>"}}},
         "'<image_placeholder>' has the id 3, and 5 in tokenizer.json"),
        ("special_tokens_map", {"bos_token": "<s>"}, "bos_token is '<s>'"),
    ],
)  # fmt: skip
def test_what_a_settings_file_says_and_this_program_does_not_do_is_refused(
    folder, file, fields, says
):
    write(folder, f"{file}.json", **fields)
    with pytest.raises(ValueError, match=rf"{file}\.json: .*{says}"):
        read_processor(folder, foreign.config())


@pytest.mark.parametrize(
    "file, fields, context",
    [
        ("config", {"language_config": {"max_position_embeddings": 64}}, 64),
        ("config", {"text_config": {"max_position_embeddings": 16384}}, 4096),
        ("tokenizer_config", {"model_max_length": 32}, 32),
        ("tokenizer_config", {"model_max_length": int(1e30)}, 4096),
    ],
)
def test_the_context_is_the_least_that_any_file_says(folder, file, fields, context):
    write(folder, f"{file}.json", **fields)
    assert read_processor(folder, foreign.config()).context == context


def test_ids_that_llamas_config_writes_of_itself_say_nothing(folder):
    write(
        folder,
        "config.json",
        language_config={"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": -1},
    )
    write(folder, "generation_config.json", pad_token_id=foreign.tokenizer().eos)
    assert read_processor(folder, foreign.config()).context == 4096


def test_sampling_that_is_not_followed_is_told(folder, caplog):
    write(folder, "generation_config.json", top_p=0.9, top_k=50, do_sample=True, temperature=0.5)
    assert read_processor(folder, foreign.config()).temperature == 0.5
    assert "top_p is 0.9, which is not followed" in caplog.text and "top_k" not in caplog.text


@pytest.mark.parametrize(
    "field, value",
    [
        ("understanding_tokens", "16"),
        ("generation_tokens", 0),
        ("context", True),
        ("cfg_scale", float("nan")),
        ("temperature", -1),
        ("temperature", 1e300),
        ("image_mean", [0.5, "x", 0.5]),
        ("image_std", [0, 1, 1]),
        ("image_std", [1e-50] * 3),
        ("background", [300, 0, 0]),
        ("user", 3),
        ("assistant", ""),
    ],
)
def test_a_value_that_a_processor_cannot_have_is_named_with_its_file(folder, field, value):
    Processor(foreign.tokenizer(), Template(), 16, 16).save(folder)
    values = json.loads((folder / "processor.json").read_text()) | {field: value}
    (folder / "processor.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"processor\.json: {field} is .*: must be"):
        Processor.load(folder)


def test_a_processor_that_counts_other_tokens_than_the_model_is_told(folder):
    fitting = Processor(foreign.tokenizer(), Template(), 16, 16)
    assert fitting.misfits(foreign.config()) == []
    other = Processor(foreign.tokenizer(), Template(), 576, 64)
    assert other.misfits(foreign.config()) == [
        "understanding_tokens is 576, the model's 16",
        "generation_tokens is 64, the model's 16",
    ]
    tight = Processor(foreign.tokenizer(), Template(), 16, 16, context=18)
    (told,) = tight.misfits(foreign.config())
    assert told.startswith("context (or max_pos") and "is 18, and a picture takes 18 tokens" in told
