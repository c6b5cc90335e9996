"""The small files beside the weights: tokenizer, template, picture preprocessing, generation defaults."""

import hashlib
import json
import pathlib

from tokenizers import Tokenizer as Backend
from tokenizers import processors

from janus_jax.convert import table as tb
from janus_jax.convert.files import read_json
from janus_jax.data.processor import SYSTEM, Processor, Template, read_preprocessor
from janus_jax.data.tokenizer import SPECIALS, Tokenizer
from janus_jax.model.config import JanusConfig

PRO_ROLES = ("<|User|>", "<|Assistant|>")


def read_processor(directory: pathlib.Path, config: JanusConfig) -> Processor:
    """From the tokenizer.json of a released Janus. The roles go by its generation: Janus-Pro's vocabulary has
    tokens for them, Janus-1.3B's has not and writes the words."""
    tokenizer = Tokenizer.load(directory)
    pro = all(tokenizer.backend.token_to_id(role) is not None for role in PRO_ROLES)
    settings, system = directory / "processor_config.json", SYSTEM
    if settings.is_file() and not read_json(settings).get("use_default_system_prompt", True):
        system = ""
    template = Template(*PRO_ROLES, system) if pro else Template(system=system)
    fields = read_preprocessor(directory)
    del fields["image_size"]  # the tower's, by its own config
    if (directory / "generation_config.json").is_file():
        said = read_json(directory / "generation_config.json")
        names = {"guidance_scale": "cfg_scale", "temperature": "temperature"}
        fields |= {ours: said[theirs] for theirs, ours in names.items() if said.get(theirs) is not None}
    return Processor(
        tokenizer, template, config.understanding_encoder.tokens, config.generation_encoder.tokens, **fields
    )


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in SPECIALS}


def require_fitting(source, tokenizer: Tokenizer):
    """Raises ValueError when the tokenizer beside the weights is not the one they were trained with, as far as
    the weights' own files tell, or has ids that the model has no embedding for."""
    ids, vocabulary = special_ids(tokenizer), source.config.transformer.vocabulary
    expected = dict(source.manifest.get("tokenizer", {}).get("ids", {}))
    if source.plan.image_token_id is not None:
        expected["placeholder"] = source.plan.image_token_id
    problems = [
        f"{name} ({SPECIALS[name]}) is {ids[name]} in tokenizer.json, {want} for these weights"
        for name, want in expected.items()
        if ids[name] != want
    ]
    problems += [
        f"{name} ({SPECIALS[name]}) is {i}, beyond the model's vocabulary of {vocabulary}"
        for name, i in ids.items()
        if i >= vocabulary
    ]
    stored = source.manifest.get("tokenizer", {}).get("sha256")
    if not problems and stored and stored != file_hash(source.path / "tokenizer.json"):
        problems.append("tokenizer.json is not the file that was saved with these weights")
    if problems:
        raise tb.WeightsError(
            f"{source.path}: wrong tokenizer: {'; '.join(problems)}. Put the tokenizer.json of these weights there"
        )


def moved_ids(path: pathlib.Path, ours: Tokenizer) -> list[str]:
    """Strings that the tokenizer.json at `path`, of a language model alone, has under other ids than ours: it knows no
    pictures, so it need not be the same."""
    theirs, ours = Backend.from_file(str(path)).get_vocab(), ours.backend.get_vocab()
    moved = sorted((text for text, i in ours.items() if theirs.get(text, i) != i), key=ours.get)
    first = ", ".join(f"{text!r} is {ours[text]} here, {theirs[text]} there" for text in moved[:3])
    return [f"{len(moved)} of {len(ours)} strings have other ids in {path}: {first}"] if moved else []


def require_same(path, theirs: Tokenizer, ours: Tokenizer):
    """Raises WeightsError when weights at `path`, trained with one tokenizer, are to go on with another: each id
    would mean another word."""
    a, b = special_ids(theirs), special_ids(ours)
    problems = [
        f"{name} ({SPECIALS[name]}) is {b[name]} here, {a[name]} there" for name in a if a[name] != b[name]
    ]
    there, here = theirs.backend.get_vocab(), ours.backend.get_vocab()
    other = sorted(text for text in there.keys() | here.keys() if there.get(text) != here.get(text))
    if other:
        problems.append(
            f"{len(other)} tokens have other ids or none ({', '.join(map(repr, other[:3]))}, ...)"
        )
    elif _merges(theirs) != _merges(ours):
        problems.append("words fall into other tokens (other merges)")
    if problems:
        raise tb.WeightsError(
            f"{path} was trained with another tokenizer than this run's: {'; '.join(problems)}. Give the run theirs "
            f"(the config's `tokenizer`: the directory of their tokenizer.json)"
        )


def _merges(tokenizer: Tokenizer):
    return json.loads(tokenizer.backend.to_str())["model"].get("merges")


def file_hash(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pictures(processor: Processor) -> dict:
    """How a picture to understand becomes numbers, in the words of preprocessor_config.json. Their code pads
    with the mean colour; pixels left in [0, 1] are padded with grey."""
    plain = (processor.image_mean, processor.image_std) == ((0.0,) * 3, (1.0,) * 3)
    mean, std = ((0.5,) * 3,) * 2 if plain else (processor.image_mean, processor.image_std)
    if processor.background != tuple(int(255 * x) for x in mean):
        raise ValueError(
            f"processor.json: background is {processor.background}; their processors pad with the mean's colour "
            f"{tuple(int(255 * x) for x in mean)}"
        )
    return {
        "image_mean": mean, "image_std": std, "min_size": 14, "rescale_factor": 1 / 255,
        "do_normalize": not plain,
    }  # fmt: skip


def _plain_template(processor: Processor) -> Template:
    """The template. Raises ValueError for one that the other layouts' files cannot say."""
    t, problems = processor.template, []
    if t.system not in ("", SYSTEM):
        problems.append(
            f"system is {t.system!r}; the other layouts have one fixed text or none: make it empty, and give yours "
            f"as a system message"
        )
    pro = all(processor.tokenizer.control(role) is not None for role in PRO_ROLES)
    due = PRO_ROLES if pro else (Template.user, Template.assistant)
    if (t.user, t.assistant) != due:
        problems.append(
            f"roles are {t.user!r} and {t.assistant!r}; for this vocabulary the other layouts have "
            f"{due[0]!r} and {due[1]!r}"
        )
    if problems:
        raise ValueError(f"processor.json: {'; '.join(problems)}")
    return t


def _generation(processor: Processor) -> dict:
    t = processor.tokenizer
    return {
        "bos_token_id": t.bos, "eos_token_id": t.eos, "pad_token_id": t.pad,
        "guidance_scale": processor.cfg_scale, "temperature": processor.temperature,
    }  # fmt: skip


def write_deepseek(directory: pathlib.Path, processor: Processor, config: JanusConfig):
    """What VLChatProcessor.from_pretrained reads, and what our way back does besides."""
    t = _plain_template(processor)
    _tokenizer(directory, processor, "LlamaTokenizerFast", {})
    pictures = _pictures(processor) | {
        "image_processor_type": "VLMImageProcessor", "processor_class": "VLChatProcessor",
        "image_size": config.understanding_encoder.image_size, "background_color": processor.background,
    }  # fmt: skip
    _json(directory, "preprocessor_config.json", pictures)
    conversation = {
        "processor_class": "VLChatProcessor", "image_tag": SPECIALS["placeholder"], "ignore_id": -100,
        "mask_prompt": True, "add_special_token": False, "num_image_tokens": processor.understanding_tokens,
        "sft_format": "deepseek" if (t.user, t.assistant) == PRO_ROLES else "deepseek_old",
        "use_default_system_prompt": t.system == SYSTEM,
    }  # fmt: skip
    _json(directory, "processor_config.json", conversation)
    _json(directory, "generation_config.json", _generation(processor))


def write_transformers(directory: pathlib.Path, processor: Processor, config: JanusConfig):
    """What JanusProcessor.from_pretrained and generate of transformers read."""
    tower, system = config.understanding_encoder, _plain_template(processor).system
    tokens = {"image_token": "placeholder", "boi_token": "begin_of_image", "eoi_token": "end_of_image"}
    extra = {name: SPECIALS[special] for name, special in tokens.items()}
    _tokenizer(directory, processor, "PreTrainedTokenizerFast", {"extra_special_tokens": extra})
    pictures = _pictures(processor) | {
        "image_processor_type": "JanusImageProcessor", "processor_class": "JanusProcessor", "resample": 3,
        "size": {"height": tower.image_size, "width": tower.image_size}, "do_resize": True,
        "do_rescale": True, "do_pad": True,
    }  # fmt: skip
    _json(directory, "preprocessor_config.json", pictures)
    conversation = {
        "processor_class": "JanusProcessor", "num_image_tokens": processor.understanding_tokens,
        "use_default_system_prompt": system == SYSTEM,
    }  # fmt: skip
    _json(directory, "processor_config.json", conversation)
    (directory / "chat_template.jinja").write_text(chat_template(processor.template))
    boi = {"generation_kwargs": {"boi_token_id": processor.tokenizer.begin_of_image}}
    _json(directory, "generation_config.json", _generation(processor) | boi)


def _tokenizer(directory: pathlib.Path, processor: Processor, cls: str, extra: dict):
    """tokenizer.json with the begin of sentence put first by the file itself, as both users of it expect."""
    t = processor.tokenizer
    backend = type(t.backend).from_str(t.backend.to_str())
    bos = SPECIALS["bos"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1", special_tokens=[(bos, t.bos)]
    )
    backend.save(str(directory / "tokenizer.json"))
    names = {"bos_token": "bos", "eos_token": "eos", "pad_token": "pad"}
    special = {name: SPECIALS[ours] for name, ours in names.items()}
    _json(directory, "special_tokens_map.json", special)
    settings = {
        "tokenizer_class": cls, "add_bos_token": True, "add_eos_token": False, "padding_side": "left",
        "clean_up_tokenization_spaces": False, "model_max_length": 16384, **special, **extra,
    }  # fmt: skip
    _json(directory, "tokenizer_config.json", settings)


def chat_template(t: Template) -> str:
    """The rules of `Processor.conversation` in Jinja: separators by the parity of the message, a picture on a
    line of its own, an open end as the role and a colon. BOS comes from the tokenizer."""
    user, assistant = json.dumps(t.user), json.dumps(t.assistant)
    return (
        f"{{%- set roles = {{'user': {user}, 'assistant': {assistant}}} -%}}\n"
        f"{{%- set seps = ['\\n\\n', {json.dumps(SPECIALS['eos'], ensure_ascii=False)}] -%}}\n"
        "{%- set ns = namespace(text='', turn='', k=0) -%}\n"
        "{%- for message in messages -%}\n"
        "{%- set ns.turn = '' -%}\n"
        "{%- if message['content'] is string -%}{%- set ns.turn = message['content'] -%}{%- else -%}\n"
        "{%- for part in message['content'] -%}\n"
        f"{{%- set piece = part['text'] if part['type'] == 'text' else {json.dumps(SPECIALS['placeholder'])}"
        " ~ ('' if loop.last else '\\n') -%}\n"
        "{%- set ns.turn = ns.turn ~ piece -%}\n"
        "{%- endfor -%}{%- endif -%}\n"
        "{%- set ns.turn = ns.turn | trim -%}\n"
        "{%- if message['role'] == 'system' -%}{%- set ns.text = ns.turn ~ '\\n\\n' ~ ns.text -%}\n"
        "{%- else -%}\n"
        "{%- set ns.text = ns.text ~ roles[message['role']] ~ ':'"
        " ~ ((' ' ~ ns.turn ~ seps[ns.k % 2]) if ns.turn else '') -%}\n"
        "{%- set ns.k = ns.k + 1 -%}{%- endif -%}\n"
        "{%- endfor -%}\n"
        "{%- if add_generation_prompt -%}{%- set ns.text = ns.text ~ roles['assistant'] ~ ':' -%}{%- endif -%}\n"
        "{{- ns.text | trim -}}\n"
    )


def _json(directory: pathlib.Path, name: str, values: dict):
    (directory / name).write_text(json.dumps(values, indent=2, ensure_ascii=False))
