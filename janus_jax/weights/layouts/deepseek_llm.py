"""A language model alone: DeepSeek-LLM, or any LLaMA, in transformers' layout
(LlamaForCausalLM)."""

from janus_jax.weights import parts
from janus_jax.weights.settings import Section
from janus_jax.weights.table import Ignored, Layout

KIND = "deepseek_llm"
MODEL_TYPES = ("llama",)
NEEDS_CONFIG = True  # its sizes stand in config.json only
IGNORED = (Ignored("*.rotary_emb.inv_freq", "rotary frequencies, which follow from the config"),)


def recognises(names) -> bool:
    return "model.embed_tokens.weight" in names


def layout(values: dict, tensors: dict) -> Layout:
    """values: its config.json."""
    problems = []
    v = Section(values, "", problems)
    sizes = parts.llama_config(v)
    tied = v.flag("tie_word_embeddings", False) and "lm_head.weight" not in tensors
    unshaped = {
        f"transformer.{key}": getattr(sizes, key) for key in ("heads", "rope_theta", "norm_eps")
    }
    return Layout(
        KIND,
        parts.llama_rows(sizes, "model", "lm_head", tied),
        IGNORED,
        problems=tuple(problems),
        unshaped=unshaped,
    )
