"""The expected letters are those of VLMEvalKit's can_infer and of lmms-eval's
parse_mmmu_multi_choice_response, held to them by test_harness_oracles.py."""

import pytest

from janus_jax.eval.choices import letter_in, letter_or_guess, option_problem, options_in

OPTIONS = {"A": "a red fish", "B": "two dogs", "C": "none"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("B.", "B"), ("**C**", "C"), ("(A)", "A"), ("The answer is C", "C"), ("B two dogs", "B"),
        ("I see two dogs", "B"), ("(b)", ""), ("A or B", ""), ("A man walks to the old big house", ""),
        ("two dogs, a red fish", ""), ("Z", ""), ("Z, but two dogs", ""), ("red", ""), ("", ""),
        ("option A: a red fish or so, since it looks red and wet and cold and large and old", ""),
    ],
)  # fmt: skip
def test_a_letter_is_a_word_of_its_own_or_its_options_text(answer, letter):
    assert letter_in(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("B.", "B"), ("(A) not (C)", "C"), ("A B", "B"), ("C, then A.", "A"), ("a DNA test", "A"),
        ("I would say it is two dogs", "B"), ("the two dogs and then a red fish of them", "A"),
    ],
)  # fmt: skip
def test_mmmus_rules_take_the_last_that_is_named(answer, letter):
    assert letter_or_guess(answer, OPTIONS, "1") == (letter, False)


def test_what_names_no_option_is_guessed_by_the_questions_index():
    guesses = [letter_or_guess("nothing", OPTIONS, str(n)) for n in range(300)]
    assert all(guessed for _, guessed in guesses)
    assert letter_or_guess("it is two dogs", OPTIONS, "1")[1]  # five words are too few for a text
    counts = [guesses.count((letter, True)) for letter in OPTIONS]
    assert sum(counts) == 300 and min(counts) > 70
    assert letter_or_guess("something else", OPTIONS, "7") == guesses[7]


def test_options_are_columns_of_a_letter_or_of_seed():
    assert options_in({"A": "x", "C": 3, "answer": "A"}) == {"A": "x", "C": "3"}
    assert options_in({"choice_a": "x", "choice_b": "y"}) == {"A": "x", "B": "y"}
    assert option_problem(OPTIONS, "B") == ""
    assert option_problem(OPTIONS, "D") == "answer 'D' is none of A, B, C"
    assert option_problem({"A": "x"}, "A") == "1 options, needs two or more"
