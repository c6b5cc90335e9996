"""Whether an answer is right is as lmms-eval's parse_open_response and eval_open say, held to them
by test_harness_oracles.py; lists of answers are our own."""

import pytest

from janus_jax.eval.open_answers import holds_answer


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("The answer is 42.", "42", True), ("x = 3.14159", "3.14", True), ("so 1,234 people", "1234", True),
        ("1e-3", "0.001", True), ("It is red\nor it is blue", "blue", True), ("a B c", "B", True), ("B", "B", True),
        ("thus it could be the big dog", "dog", True), ("cat", "cat", True), ("abc", "B", False),
        ("blue = red", "blue", False), ("3.18", "3.2", False),
        ("Final answer: 7", "8", False), ("dog", "big dog", False), ("it is 5", "['4', '5']", True),
        ("it is 6", "['4', '5']", False), ("[0, 1)", "[0, 1)", True),
    ],
)  # fmt: skip
def test_ends_of_sentences_and_numbers_are_compared(answer, truth, right):
    assert holds_answer(answer, truth) == right
