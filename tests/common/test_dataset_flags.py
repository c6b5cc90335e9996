"""Data sets that a command line adds to a config, or takes out of it."""

import pytest
from support.configs import QUICKSTART

from janus_jax.common.cli import split_flags
from janus_jax.common.exit_codes import UsageError
from janus_jax.config.read import read, resolve
from janus_jax.config.schema import ConfigError, Dataset

MINE = (
    "--data.add=name=mine kind=understanding path='my pictures/a.jsonl' prompt=what,where weight=2"
)


def test_a_data_set_is_added_and_another_taken_out():
    words = ["--config.data.datasets.mine.weight=3", "--data.remove", "questions", MINE, "--other"]
    rest, overrides = split_flags(words)
    assert rest == ["--other"]
    overrides["data.datasets.mine.weight"] = "3"
    experiment, wrong = read(QUICKSTART, overrides)
    lines = experiment.data.datasets
    assert (
        not wrong
        and "questions" not in lines
        and len(lines) == len(read(QUICKSTART)[0].data.datasets)
    )
    path = "my pictures/a.jsonl"
    assert lines["mine"] == Dataset("understanding", path, prompt=("what", "where"), weight=3.0)


@pytest.mark.parametrize(
    "word, why",
    [
        ("--data.add=kind=text path=a.txt", 'names no data set; .*--data.add="name=mine kind'),
        ("--data.add=name=a.b kind=text", "names no data set; give a name without dots"),
        ("--data.add=name=mine path=my pictures", "'pictures' has no '='; .*path='my pictures"),
        ("--data.add=name=mine path='a", "No closing quotation; close the quote"),
        ("--data.add=name=mine kind=text kind=text", "gives 'kind' twice"),
        ("--data.remove=", "names no data set"),
        ("--data.add", "--data.add has no value"),
    ],
)
def test_flags_that_say_no_data_set_are_refused(word, why):
    with pytest.raises(UsageError, match=why):
        split_flags([word])


def test_two_data_sets_of_one_name_are_not_made_one():
    """The fields that only the first gives would be the second's too."""
    lines = ["--data.add=name=mine path=a.jsonl caption=text", "--data.add=name=mine path=b.jsonl"]
    with pytest.raises(UsageError, match=r"--data\.add is given twice for mine; give it once"):
        split_flags(lines)


def test_a_data_set_added_to_a_config_without_data_leaves_its_other_faults_to_be_told():
    with pytest.raises(ConfigError, match="model: missing"):
        resolve({}, {"data.add.mine": "", "data.datasets.mine.kind": "text"})


def test_what_is_wrong_with_an_added_data_set_is_told_at_once():
    given = ["--data.add=name=questions kind=text", "--data.remove=quetsions"]
    given += ["--data.add=name=mine knd=text path=a.txt"]
    with pytest.raises(ConfigError) as error:
        read(QUICKSTART, split_flags(given)[1])
    for said in (
        "--data.add: there is a data set 'questions' already; set its fields: --config.data.datasets.questions.FIELD",
        "--data.remove=quetsions: there is no such data set; did you mean 'questions'?",
        "there is no 'knd' here; did you mean 'kind'?",
        "data.datasets.mine.kind: missing",
    ):
        assert said in str(error.value)


def test_a_field_of_a_data_set_that_an_added_one_replaced_is_told_how_to_have_it():
    flags = ["--data.add=name=mine kind=text path=a", "--config.data.datasets.chats.images=b"]
    _, wrong = read(QUICKSTART.replace("quickstart", "finetune"), split_flags(flags)[1])
    assert wrong == [
        "--config.data.datasets.chats.images: there is no 'chats' here; known: mine; "
        '--data.add="name=chats ..." adds it'
    ]
