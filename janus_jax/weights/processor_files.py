"""The small files beside the weights: tokenizer, template, picture preprocessing, generation
defaults."""

import hashlib
import json
import logging
import pathlib

from tokenizers import Tokenizer as Backend

from janus_jax.config.schema import SYSTEM, Template
from janus_jax.data.messages import SPECIALS
from janus_jax.data.processor import Processor
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.model.config import JanusConfig
from janus_jax.weights import settings
from janus_jax.weights import table as tb
from janus_jax.weights.preprocessor import read_preprocessor
from janus_jax.weights.settings import Section

DEEPSEEK = "deepseek"  # layouts.janus_torch.KIND
UNREAD = {  # of generation_config.json -> the values that change nothing
    "top_p": (1,), "top_k": (0, 50), "min_p": (0,), "typical_p": (1,), "repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,), "num_beams": (1,), "bad_words_ids": (), "suppress_tokens": (),
    "stop_strings": (), "forced_eos_token_id": (), "forced_bos_token_id": (),
}  # fmt: skip
PRO_ROLES = ("<|User|>", "<|Assistant|>")
SPECIAL_NAMES = {  # in the files of transformers' tokenizers -> in SPECIALS
    "bos_token": "bos", "eos_token": "eos", "pad_token": "pad", "image_token": "placeholder",
    "boi_token": "begin_of_image", "eoi_token": "end_of_image",
}  # fmt: skip
LLAMAS = {"bos": (1,), "eos": (2,), "pad": (0, -1)}  # ids that LlamaConfig writes of itself
CONTEXT = 4096  # tokens with which the released models were trained


def read_processor(directory: pathlib.Path, config: JanusConfig, kind: str = DEEPSEEK) -> Processor:
    """From the small files of a released Janus. The roles go by its generation: Janus-Pro's
    vocabulary has tokens for them, Janus-1.3B's has not and writes the words.

    kind: the layout of its weights, on which what a file leaves out depends. Raises ValueError that
        names the file and every field that cannot be used.
    """
    tokenizer = Tokenizer.load(directory)
    context = min(
        CONTEXT, _require_tokens(directory, tokenizer), _require_config_ids(directory, tokenizer)
    )
    template = _template(directory, config, kind, tokenizer)
    tower = config.understanding_encoder
    fields = read_preprocessor(directory, tower.image_size)
    side = fields.pop("image_size")
    if side != tower.image_size:
        raise ValueError(
            f"{directory}/preprocessor_config.json: pictures become {side} pixels wide, and these "
            f"weights read {tower.image_size} (config.json); put the file of these weights there"
        )
    return Processor(
        tokenizer,
        template,
        tower.tokens,
        config.generation_encoder.tokens,
        context=context,
        **fields,
        **_drawing(directory, tokenizer),
    )


def _template(directory, config: JanusConfig, kind: str, tokenizer: Tokenizer) -> Template:
    """The roles and the system text. DeepSeek's code writes the text unless its file says no,
    transformers' only where its file says so; without a file it is as published."""
    problems = []
    values = settings.read(directory, "processor_config.json")
    v = Section(values, "", problems)
    said = values is None or kind == DEEPSEEK
    system = SYSTEM if v.flag("use_default_system_prompt", said) else ""
    pro = all(tokenizer.backend.token_to_id(role) is not None for role in PRO_ROLES)
    v.only("sft_format", "deepseek", "deepseek_old", why="the template")
    if v.get("sft_format") == "deepseek_old":
        pro = False
    for name, special in (
        ("image_tag", "placeholder"), ("image_token", "placeholder"),
        ("image_start_tag", "begin_of_image"), ("image_end_tag", "end_of_image"), ("pad_tag", "pad"),
    ):  # fmt: skip
        v.only(name, SPECIALS[special], why="this program")
    v.only("add_special_token", False, why="this program")
    v.only("num_image_tokens", config.understanding_encoder.tokens, why="that of these weights")
    v.rest("processor_class", "ignore_id", "mask_prompt", "image_processor", "chat_template")
    if problems:
        raise ValueError(f"{directory}/processor_config.json: {'; '.join(problems)}")
    template = Template(*PRO_ROLES, system) if pro else Template(system=system)
    file = directory / "chat_template.jinja"
    if file.is_file() and template.user not in file.read_text(encoding="utf-8", errors="replace"):
        logging.warning(
            "%s does not write %s: it is another template than the released one, and is not followed",
            file,
            template.user,
        )
    return template


def _require_tokens(directory, tokenizer: Tokenizer) -> int:
    """The most tokens that the files beside tokenizer.json allow. Raises ValueError where they give
    its special tokens other names, or ask for what this program's tokenizer does not do."""
    most = CONTEXT
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        problems = []
        v = Section(settings.read(directory, file), "", problems)
        extra = v.get("extra_special_tokens")
        named = v.values | (extra if isinstance(extra, dict) else {})
        for name, special in SPECIAL_NAMES.items():
            said = named.get(name)
            said = said.get("content") if isinstance(said, dict) else said
            pads = name == "pad_token" and said == SPECIALS["eos"]
            if said is not None and said != SPECIALS[special] and not pads:
                v.refuse(name, said, f"{SPECIALS[special]!r}, with which Janus is trained")
        for name in ("do_lower_case", "add_eos_token", "strip_accents"):
            v.only(name, False, why="this program")
        most = min(most, int(v.number("model_max_length", most, above=True)))
        added = v.get("added_tokens_decoder", {})
        for number, entry in added.items() if isinstance(added, dict) else ():
            text = entry.get("content") if isinstance(entry, dict) else None
            here = tokenizer.backend.token_to_id(text) if isinstance(text, str) else None
            if here is not None and str(here) != str(number):
                problems.append(f"{text!r} has the id {number}, and {here} in tokenizer.json")
        if problems:
            raise ValueError(f"{directory}/{file}: {'; '.join(problems[:8])}")
    return most


def _require_config_ids(directory, tokenizer: Tokenizer) -> int:
    """The most tokens that config.json allows. Raises ValueError where it gives special tokens
    other ids than tokenizer.json."""
    problems = []
    top = Section(settings.read(directory, "config.json"), "", problems)
    most = CONTEXT
    for v in (top, top.section("language_config"), top.section("text_config")):
        _check_ids(v, tokenizer, LLAMAS)
        most = min(most, int(v.number("max_position_embeddings", most, above=True)))
    if problems:
        raise ValueError(f"{directory}/config.json: {'; '.join(problems[:8])}")
    return most


def _check_ids(v: Section, tokenizer: Tokenizer, unsaid: dict[str, tuple]):
    """Refuses ids of special tokens that are not the tokenizer's. unsaid: ids that say nothing."""
    for name in ("bos", "eos", "pad"):
        value = v.get(f"{name}_token_id")
        here = getattr(tokenizer, name)
        known = {here, *unsaid.get(name, ())} | ({tokenizer.eos} if name == "pad" else set())
        several = value if isinstance(value, list) else [value]
        if value is not None and not any(type(x) is int and x in known for x in several):
            v.refuse(f"{name}_token_id", value, f"{here}, as in tokenizer.json")


def _drawing(directory, tokenizer: Tokenizer) -> dict:
    """What a released model draws best with, and nothing that contradicts its tokenizer."""
    file = "generation_config.json"
    problems = []
    v = Section(settings.read(directory, file), "", problems)
    fields = {
        "cfg_scale": v.number("guidance_scale", None), "temperature": v.number("temperature", None)
    }  # fmt: skip
    if not v.get("_from_model_config"):  # else its ids are defaults of a class
        _check_ids(v, tokenizer, {})
    v.section("generation_kwargs").only(
        "boi_token_id", tokenizer.begin_of_image, why="this tokenizer"
    )
    if problems:
        raise ValueError(f"{directory}/{file}: {'; '.join(problems)}")
    for name, neutral in UNREAD.items():
        if v.get(name) not in (None, *neutral):
            logging.warning(
                "%s/%s: %s is %s, which is not followed; say how to sample where you draw and ask",
                directory, file, name, settings.brief(v.get(name)),
            )  # fmt: skip
    return {name: x for name, x in fields.items() if x is not None}


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in SPECIALS}


def require_fitting(source, processor: Processor):
    """Raises ValueError when the tokenizer beside the weights is not the one they were trained
    with, as far as the weights' own files tell, has ids that the model has no embedding for, or
    the processor counts other image tokens than the model."""
    tokenizer = processor.tokenizer
    ids = special_ids(tokenizer)
    expected = dict(source.manifest.get("tokenizer", {}).get("ids", {}))
    if source.layout.image_token_id is not None:
        expected["placeholder"] = source.layout.image_token_id
    problems = [
        f"{name} ({SPECIALS[name]}) is {ids[name]} in tokenizer.json, {want} for these weights"
        for name, want in expected.items()
        if ids[name] != want
    ]
    stored = source.manifest.get("tokenizer", {}).get("sha256")
    if not problems and stored and stored != file_hash(source.path / "tokenizer.json"):
        problems.append("tokenizer.json is not the file that was saved with these weights")
    if problems:
        raise tb.WeightsError(
            f"{source.path}: wrong tokenizer: {'; '.join(problems)}. Put the tokenizer.json of "
            "these weights there"
        )
    if problems := processor.misfits(source.config):
        raise tb.WeightsError(
            f"{source.path}: its processor is not this model's: {'; '.join(problems)}. Put the "
            "processor's files of these weights there"
        )


def moved_ids(path: pathlib.Path, ours: Tokenizer) -> list[str]:
    """Strings that the tokenizer.json at `path`, of a language model alone, has under other ids
    than ours: it knows no pictures, so it need not be the same."""
    theirs = Backend.from_file(str(path)).get_vocab()
    ours = ours.backend.get_vocab()
    moved = sorted((text for text, i in ours.items() if theirs.get(text, i) != i), key=ours.get)
    if not moved:
        return []
    first = ", ".join(f"{text!r} is {ours[text]} here, {theirs[text]} there" for text in moved[:3])
    return [f"{len(moved)} of {len(ours)} strings have other ids in {path}: {first}"]


def require_same(path, theirs: Tokenizer, ours: Tokenizer):
    """Raises WeightsError when weights at `path`, trained with one tokenizer, are to go on with
    another: each id would mean another word."""
    a = special_ids(theirs)
    b = special_ids(ours)
    problems = [
        f"{name} ({SPECIALS[name]}) is {b[name]} here, {a[name]} there"
        for name in a
        if a[name] != b[name]
    ]
    there = theirs.backend.get_vocab()
    here = ours.backend.get_vocab()
    other = sorted(text for text in there.keys() | here.keys() if there.get(text) != here.get(text))
    if other:
        problems.append(
            f"{len(other)} tokens have other ids or none ({', '.join(map(repr, other[:3]))}, ...)"
        )
    elif _merges(theirs) != _merges(ours):
        problems.append("words fall into other tokens (other merges)")
    if problems:
        raise tb.WeightsError(
            f"{path} was trained with another tokenizer than this run's: {'; '.join(problems)}. "
            f"Give the run theirs (the config's `tokenizer`: the directory of their tokenizer.json)"
        )


def _merges(tokenizer: Tokenizer):
    return json.loads(tokenizer.backend.to_str())["model"].get("merges")


def file_hash(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
