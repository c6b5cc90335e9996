"""The small files beside weights that other projects' processors read: tokenizer, template,
preprocessing."""

import json
import pathlib

from tokenizers import processors

from janus_jax.config.schema import SYSTEM, Template
from janus_jax.data.processor import Processor
from janus_jax.data.tokenizer import SPECIALS
from janus_jax.model.config import JanusConfig
from janus_jax.weights.processor_files import CONTEXT, PRO_ROLES


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
    tower = config.understanding_encoder
    system = _plain_template(processor).system
    tokens = {
        "image_token": "placeholder",
        "boi_token": "begin_of_image",
        "eoi_token": "end_of_image",
    }
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
    (directory / "chat_template.jinja").write_text(chat_template(processor.template), "utf-8")
    boi = {"generation_kwargs": {"boi_token_id": processor.tokenizer.begin_of_image}}
    _json(directory, "generation_config.json", _generation(processor) | boi)


def _pictures(processor: Processor) -> dict:
    """How a picture to understand becomes numbers, in the words of preprocessor_config.json. Their
    code pads with the mean colour; pixels left in [0, 1] are padded with grey."""
    plain = (processor.image_mean, processor.image_std) == ((0.0,) * 3, (1.0,) * 3)
    mean, std = ((0.5,) * 3,) * 2 if plain else (processor.image_mean, processor.image_std)
    if processor.background != tuple(int(255 * x) for x in mean):
        raise ValueError(
            f"processor.json: background is {processor.background}; their processors pad with the "
            f"mean's colour {tuple(int(255 * x) for x in mean)}"
        )
    return {
        "image_mean": mean, "image_std": std, "min_size": 14, "rescale_factor": 1 / 255,
        "do_normalize": not plain,
    }  # fmt: skip


def _plain_template(processor: Processor) -> Template:
    """The template. Raises ValueError for one that the other layouts' files cannot say."""
    t = processor.template
    problems = []
    if t.system not in ("", SYSTEM):
        problems.append(
            f"system is {t.system!r}; the other layouts have one fixed text or none: make it "
            f"empty, and give yours as a system message"
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


def _tokenizer(directory: pathlib.Path, processor: Processor, cls: str, extra: dict):
    """tokenizer.json with the begin of sentence put first by the file itself, as both users of it
    expect."""
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
    most = processor.context if processor.context < CONTEXT else 16384  # as released
    settings = {
        "tokenizer_class": cls, "add_bos_token": True, "add_eos_token": False, "padding_side": "left",
        "clean_up_tokenization_spaces": False, "model_max_length": most, **special, **extra,
    }  # fmt: skip
    _json(directory, "tokenizer_config.json", settings)


def chat_template(t: Template) -> str:
    """The rules of `Processor.conversation` in Jinja: separators by the parity of the message, a
    picture on a line of its own, an open end as the role and a colon. BOS comes from the
    tokenizer."""
    user = json.dumps(t.user)
    assistant = json.dumps(t.assistant)
    return (
        f"{{%- set roles = {{'user': {user}, 'assistant': {assistant}}} -%}}\n"
        f"{{%- set seps = ['\\n\\n', {json.dumps(SPECIALS['eos'], ensure_ascii=False)}] -%}}\n"
        "{%- set ns = namespace(text='', turn='', k=0) -%}\n"
        "{%- for message in messages -%}\n"
        "{%- set ns.turn = '' -%}\n"
        "{%- if message['content'] is string -%}{%- set ns.turn = message['content'] -%}{%- else "
        "-%}\n{%- for part in message['content'] -%}\n"
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
        "{%- if add_generation_prompt -%}{%- set ns.text = ns.text ~ roles['assistant'] ~ ':' "
        "-%}{%- endif -%}\n{{- ns.text | trim -}}\n"
    )


def _json(directory: pathlib.Path, name: str, values: dict):
    (directory / name).write_text(json.dumps(values, indent=2, ensure_ascii=False), "utf-8")
