"""Answers in the form in which they are compared.

The form is that of the official evaluation of VQA (GT-Vision-Lab/VQA,
PythonEvaluationTools/vqaEvaluation/vqaEval.py), which both harnesses carry (lmms-eval:
lmms_eval/tasks/_task_utils/vqa_eval_metric.py; VLMEvalKit: vlmeval/dataset/utils/vqa_eval.py). Its
oddities are kept: marks are dropped or become spaces by how they stand anywhere in the answer, and
at most 32 full stops are removed.
"""

import re
import string

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"zero": "0"}
_ARTICLES = ("a", "an", "the")
_SHORT_FORMS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd
they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# A short form that lacks one of its apostrophes -> the short form.
_MENDED = {
    word[:k] + word[k + 1 :]: word
    for word in _SHORT_FORMS.split()
    for k in range(len(word))
    if word[k] == "'"
} | {"somebody'd": "somebodyd"}  # as the official list has it


def without_marks(text: str) -> str:
    """`text` without punctuation."""
    joined = _COMMA_IN_NUMBER.search(text) is not None
    out = text
    for mark in _MARKS:
        apart = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if apart or joined else " ")
    return _FULL_STOP.sub("", out, 32)


def vqa_form(answer: str) -> str:
    """Lower case, without marks and articles, numbers up to ten as digits, short forms with their
    apostrophes."""
    answer = without_marks(answer.replace("\n", " ").replace("\t", " ").strip())
    words = [_WORDS.get(word, word) for word in answer.lower().split()]
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)


def yes_or_no(answer: str) -> str:
    """The word yes or no where the answer has one of them and not the other, in any place; else
    empty. As VLMEvalKit reads without a judge (vlmeval/dataset/utils/yorn.py)."""
    words = set(without_marks(answer.lower()).split()) & {"yes", "no"}
    return words.pop() if len(words) == 1 else ""


def bare_form(answer: str) -> str:
    """Lower case, without any of ASCII's punctuation."""
    return answer.lower().translate(str.maketrans("", "", string.punctuation))
