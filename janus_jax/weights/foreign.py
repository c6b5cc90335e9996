"""Forms of weights that are not read, each told in one line with what to take instead."""

import pathlib
import re

FULL = "the model that it was made from, in bfloat16 or float32"
FILES = (  # pattern of a file in a directory, what it tells, what to take
    ("model_index.json", "a diffusers pipeline, whose parts are other models", "a Janus"),
    ("adapter*.json", "what an adapter (LoRA) says of itself, without its weights", "all of its files"),
    ("*.gguf", "GGUF, the quantised form of llama.cpp", FULL),
    ("*ggml*", "GGML, the quantised form of llama.cpp", FULL),
    ("*.onnx", "ONNX, a compiled graph", FULL),
    ("onnx/*.onnx", "ONNX, a compiled graph", FULL),
    ("openvino_*.xml", "OpenVINO, a compiled graph", FULL),
    ("*.mlpackage", "Core ML, a compiled graph", FULL),
    ("*.tflite", "TensorFlow Lite, a compiled graph", FULL),
    ("*.engine", "TensorRT, a compiled graph", FULL),
    ("*.pte", "ExecuTorch, a compiled graph", FULL),
    ("*.msgpack", "Flax's msgpack", "its safetensors"),
    ("*.h5", "TensorFlow's HDF5", "its safetensors"),
    ("*.distcp", "a distributed checkpoint of PyTorch", "its consolidated safetensors "
     "(python -m torch.distributed.checkpoint.format_utils dcp_to_torch, then safetensors)"),
    ("zero_to_fp32.py", "a checkpoint of DeepSpeed's ZeRO", "what its zero_to_fp32.py makes of it"),
    ("global_step*", "a checkpoint of DeepSpeed's ZeRO", "what its zero_to_fp32.py makes of it"),
    ("*.ckpt", "a Lightning or TensorFlow checkpoint, a pickle with more than weights", "its "
     "state_dict, saved as safetensors"),
    ("*.pkl", "a Python pickle of whole objects", "its state_dict, saved as safetensors"),
    ("*.incomplete", "a download that did not end", "the whole file: download it again"),
    ("*.part", "a download that did not end", "the whole file: download it again"),
    ("*.crdownload", "a download that did not end", "the whole file: download it again"),
    ("*.aria2", "a download that did not end", "the whole file: download it again"),
)  # fmt: skip
NAMES = (  # pattern of a tensor's name, what it tells
    (r"\.quant_state\.bitsandbytes__|\.absmax$|\.quant_map$", "bitsandbytes 4-bit"),
    (r"\.SCB$", "bitsandbytes 8-bit"),
    (r"\.weight_packed$", "compressed-tensors"),
    (r"\.qweight$|\.qzeros$|\.g_idx$", "GPTQ or AWQ"),
    (r"\.weight_scale(_inv)?$|\.input_scale$|\.activation_scale$", "fp8 with scales of its own"),
    (r"\.weight_blocks$|_blocks$", "MXFP4"),
    (r"\.W_q$", "HQQ"),
    (r"\.weight\._data$|\.weight\._scale$", "quanto"),
    (r"_qdata$|:_data\b", "torchao"),
    (r"\.codes$|\.codebooks$", "AQLM"),
    (r"\.q_weight$|\.q_scale$", "EXL2"),
    (r"\.trellis$", "EXL3"),
    (r"\.centroids\b|\.indices$", "VPTQ"),
    (r"_proj\.[Bs]$", "Marlin"),
    (r"_proj\.(weight_scales?|scale|weight\.scale)$", "int8 with scales of its own"),
)
LORA = re.compile(r"\.lora_[AB]\b|\.lora_(up|down)\b|lora_magnitude|\.hada_w\d|\.base_layer\.")
WRAPPED = {  # what every name begins with -> who put it there
    "module.": "DistributedDataParallel (save model.module.state_dict())",
    "_orig_mod.": "torch.compile (save model._orig_mod.state_dict())",
    "_fsdp_wrapped_module.": "FSDP (save the full state_dict)",
    "base_model.model.": "PEFT (merge_and_unload, then save_pretrained)",
}


def instead(directory: pathlib.Path) -> str:
    """What lies in a directory without weights that are read, and what to take; "" where nothing
    is known."""
    for pattern, what, take in FILES:
        if found := next(iter(sorted(directory.glob(pattern))), None):
            return f"{found.relative_to(directory)} is {what}; take {take}"
    deeper = sorted({p.parent for p in directory.glob("*/*.safetensors")})
    deeper = deeper or sorted({p.parent for p in directory.glob("snapshots/*/*.safetensors")})
    return f"weights lie in {deeper[-1]}; give that folder" if deeper else ""


def of_file(path: pathlib.Path) -> str:
    """What a file of a suffix that is not read is; "" where it is not known."""
    for pattern, what, take in FILES:
        if "*." in pattern and path.match(pattern):
            return f"{path}: {what}; take {take}"
    return ""


def reduced(values: dict, tensors) -> str:
    """The reduced form in which weights are stored, by their config.json and the names of their
    tensors, with what to take; "" for plain numbers."""
    sections = [values, *(x for x in values.values() if isinstance(x, dict))]
    form = ""
    for section in sections:
        asked = section.get("quantization_config") or section.get("compression_config")
        if isinstance(asked, dict):
            form = _method(asked)
        elif isinstance(section.get("quantization"), dict) and "bits" in section["quantization"]:
            form = f"MLX {section['quantization']['bits']}-bit"
        if form:
            where = "its config.json has a quantization_config" if asked else "by its config.json"
            return f"quantised: {form} ({where}); take {FULL} ({_DTYPE})"
    for pattern, form in NAMES:
        if name := next(filter(re.compile(pattern).search, tensors), None):
            return f"quantised: {form} (by its tensor {name}); take {FULL} ({_DTYPE})"
    if any(name.endswith(".biases") for name in tensors):
        return f"quantised: MLX (by its tensors .scales and .biases); take {FULL} ({_DTYPE})"
    if name := next(filter(LORA.search, tensors), None):
        return (
            f"an adapter (LoRA) that is not merged (by its tensor {name}); take the two merged into "
            "one (PEFT: merge_and_unload, then save_pretrained)"
        )
    return ""


_DTYPE = 'dtype="int8" keeps it in 8 bits here'


def _method(asked: dict) -> str:
    method = str(asked.get("quant_method", "of no known method"))[:40]
    if asked.get("load_in_4bit") or asked.get("_load_in_4bit"):
        return "bitsandbytes 4-bit"
    if asked.get("load_in_8bit") or asked.get("_load_in_8bit"):
        return "bitsandbytes 8-bit"
    bits = asked.get("bits")
    return f"{method} {bits}-bit" if isinstance(bits, int) else method


def unknown(values: dict, tensors) -> str:
    """Whose tensors these may be, of no layout that is known."""
    first = next(iter(tensors), "")
    for prefix, who in WRAPPED.items():
        if first.startswith(prefix) and all(name.startswith(prefix) for name in tensors):
            return f"every name begins with {prefix!r}, as {who} writes it; save them without it"
    if any(name.startswith(("vision_gen_enc_model.", "vision_gen_dec_model.")) for name in tensors):
        return "they are JanusFlow's, which draws by rectified flow; take Janus or Janus-Pro"
    said = values.get("model_type") or values.get("architectures") or values.get("_class_name")
    return f"its config.json says {str(said)[:60]!r}" if said else ""
