"""A language model alone: DeepSeek-LLM, or any LLaMA, in transformers' layout (LlamaForCausalLM)."""

from janus_jax.convert import parts
from janus_jax.convert.table import Ignored, Plan

KIND = "deepseek_llm"
IGNORED = (Ignored("*.rotary_emb.inv_freq", "rotary frequencies, which follow from the config"),)


def recognises(names) -> bool:
    return "model.embed_tokens.weight" in names


def plan(values: dict, tensors: dict) -> Plan:
    """values: its config.json."""
    sizes, problems = parts.llama_config(values, "config.json: ")
    tied = bool(values.get("tie_word_embeddings")) and "lm_head.weight" not in tensors
    facts = {f"transformer.{key}": getattr(sizes, key) for key in ("heads", "rope_theta", "norm_eps")}
    return Plan(
        KIND,
        parts.llama_rows(sizes, "model", "lm_head", tied),
        IGNORED,
        problems=tuple(problems),
        facts=facts,
    )
