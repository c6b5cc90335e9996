"""The peer's side of train_step.py: a child process that trains transformers' LlamaForCausalLM, a
step a line.

How packed rows attend: `mask` gives scaled_dot_product_attention each row's block-diagonal mask;
`varlen` lays all examples end to end without padding and goes through them one by one, on a GPU by
torch's variable-length flash kernel; `causal` knows no examples, so that they see each other:
another loss, less to do than `mask`. Each runs as it stands or through torch.compile. `all logits`
is LlamaForCausalLM's own loss; the others make logits of supervised tokens only.
"""

import contextlib
import inspect
import json
import sys
import time

import machine
import numpy as np
import torch
import train_rows
import transformers
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from janus_jax.config.read import build
from janus_jax.model import config as sizes
from janus_jax.model.batch import IGNORE


def model_of(
    c: sizes.TransformerConfig, attention: str, device: str
) -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(
        hidden_size=c.width, intermediate_size=c.mlp_width, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.heads, vocab_size=c.vocabulary,
        rms_norm_eps=c.norm_eps, rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        max_position_embeddings=4096, tie_word_embeddings=False, use_cache=False, attn_implementation=attention,
    )  # fmt: skip
    with torch.device(device):
        model = transformers.LlamaForCausalLM(config).train()
    own = {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
    own |= {f"attention.{x}": f"self_attn.{x}_proj" for x in "qkvo"}
    outer = {"text_embedding.table": "model.embed_tokens", "text_head.linear.kernel": "lm_head"}
    for path, layer, x in train_rows.weights(c):
        name = (
            outer.get(path)
            or f"model.layers.{layer}.{own[path.split('.', 2)[2].removesuffix('.kernel')]}"
        )
        x = torch.from_numpy(x)
        model.get_submodule(name).weight.data.copy_(x if path.endswith("table") else x.T)
    return model


def by_example(lengths: list[int], device: str):
    """An attention function of transformers over examples of `lengths` end to end, [1, H, N, K]
    each."""
    if device == "cuda":
        from torch.nn.attention.varlen import varlen_attn

        at = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32, device=device)
        longest = max(lengths)
        # Causal, as torch says it since 2.11, or before.
        named = inspect.signature(varlen_attn).parameters
        how = {"window_size": (-1, 0)} if "window_size" in named else {"is_causal": True}

        def attend(module, q, k, v, mask, scaling=None, **_):
            q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
            out = varlen_attn(q, k, v, at, at, longest, longest, scale=scaling, **how)
            return out[None], None

        return attend

    def attend(module, q, k, v, mask, scaling=None, **_):
        one = torch.nn.functional.scaled_dot_product_attention
        parts = zip(*(x.split(lengths, 2) for x in (q, k, v)))
        return torch.cat([one(*qkv, is_causal=True, scale=scaling) for qkv in parts], 2).transpose(
            1, 2
        ), None

    return attend


def inputs(batch: dict, kind: str, device: str) -> dict:
    """What the model takes, `targets` [B, T] and, unless all logits are made, `at`, where those
    are."""
    there = batch["segment_ids"] > 0
    flat = lambda x: x[there][None] if kind == "varlen" else x
    put = lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(device)
    names = {"input_ids": "tokens", "position_ids": "positions", "targets": "text_targets"}
    out = {name: put(flat(batch[ours]).astype(np.int64)) for name, ours in names.items()}
    out["at"] = torch.nonzero(out["targets"].flatten() != IGNORE)[:, 0]
    if kind == "mask":
        ids, t = put(batch["segment_ids"]), batch["tokens"].shape[1]
        causal = torch.ones(t, t, dtype=torch.bool, device=device).tril()
        out["attention_mask"] = (ids[:, None, :, None] == ids[:, None, None, :]) & causal
    return out


def loss_function(model, all_logits: bool, count: int):
    entropy = torch.nn.functional.cross_entropy

    def gathered(data: dict):
        targets, at = data["targets"], data["at"]
        given = {name: x for name, x in data.items() if name not in ("targets", "at")}
        hidden = model.model(**given).last_hidden_state.flatten(0, 1)[at]
        return entropy(model.lm_head(hidden).float(), targets.flatten()[at])

    def everywhere(data: dict):
        given = {name: x for name, x in data.items() if name not in ("targets", "at")}
        labels = data["targets"].masked_fill(data["targets"] == IGNORE, -100)
        return model(**given, shift_labels=labels, labels=labels, num_items_in_batch=count).loss

    return everywhere if all_logits else gathered


def optimizer(model, optim: dict) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": optim["weight_decay"]},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, optim["learning_rate"], (0.9, 0.95), 1e-8, fused=True)


def main(spec: dict):
    torch.set_num_threads(machine.cores())
    torch.set_float32_matmul_precision("high")
    transformers.utils.logging.set_verbosity_error()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, kind = build(sizes.JanusConfig, spec["config"], "", []), spec["variant"].split(",")[0]
    ratio = {"understanding": 0, "text": 1, "generation": 0}
    batch = train_rows.batch(config, spec["rows"], spec["length"], ratio, "all")
    if kind == "varlen":
        ids = batch["segment_ids"]
        lengths = [int(n) for row in ids for n in np.bincount(row)[1:]]
        ALL_ATTENTION_FUNCTIONS.register("varlen", by_example(lengths, device))
    model = model_of(config.transformer, "varlen" if kind == "varlen" else "sdpa", device)
    data = inputs(batch, kind, device)
    loss_of = loss_function(model, "all logits" in spec["variant"], len(data["at"]))
    if "compiled" in spec["variant"]:
        loss_of = torch.compile(loss_of)
    adam = optimizer(model, spec["optim"])
    half = config.dtype != "float32"
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def answer(word: str) -> dict:
        if word == "peak":
            return {
                "bytes": torch.cuda.max_memory_allocated() if device == "cuda" else machine.peak()
            }
        begin = time.perf_counter()
        with torch.autocast(device, torch.bfloat16) if half else contextlib.nullcontext():
            loss = loss_of(data)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        wait()
        took = time.perf_counter() - begin
        if word == "first":
            machine.forget_peak()
        return {"seconds": took, "loss": loss.item()}

    versions = {m.__name__: m.__version__ for m in (torch, transformers)}
    machine.serve({"device": device, "versions": versions}, answer)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
