"""The expected values are those of lmms-eval's EvalAIAnswerProcessor and of VLMEvalKit's
YOrN_Extraction, held to them by test_harness_oracles.py."""

import pytest

from janus_jax.eval.normalise import bare_form, vqa_form, yes_or_no


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The 2 dogs.", "2 dogs"), ("Two\ndogs", "2 dogs"), ("1,000 men", "1000 men"), ("3.5", "3.5"), ("None", "0"),
        ("dont know", "don't know"), ("somebody'd", "somebodyd"), ("'ow'sat", "'ow's'at"), ("it's?", "it's"),
        ("red/blue", "red blue"), ("red / blue", "red blue"), ("t-shirt", "t shirt"), ("a cat, a dog", "cat dog"),
        ("e.g. this", "eg this"), ("2.", "2"), ("", ""), ("." * 33, "."),
    ],
)  # fmt: skip
def test_answers_take_the_form_of_vqa(answer, form):
    assert vqa_form(answer) == form


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("Yes", "yes"), ("no.", "no"), ("Yes, it is.", "yes"), ("I think so: YES!", "yes"), ("No-one", "no"),
        ("It is not.", ""), ("yes or no", ""), ("no/yes", ""), ("nothing", ""), ("yes1", ""), ("", ""),
    ],
)  # fmt: skip
def test_yes_and_no_are_words_of_their_own(answer, word):
    assert yes_or_no(answer) == word


def test_the_bare_form_has_no_marks():
    assert bare_form("It's a T-shirt!") == "its a tshirt"
