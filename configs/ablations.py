"""The six experiments of the paper's Table 5 (arXiv 2410.13848) at its size: what an encoder that
both tasks share costs, and what training them together does.

`configs/ablations.py:A` to `:F`, `configs/ablations.py:B:h100:64` with chips. All are the three
stages of stage1.py, stage2.py and stage3.py in one file, and differ in a line of EXPERIMENTS:

    understood by                 drawn ids read by        learns
    A  VQ tokenizer's codes       their own embedding      both
    B  semantic tokenizer         semantic tokenizer       both
    C  semantic tokenizer                                  understanding
    D  SigLIP                     their own embedding      both (Janus)
    E  SigLIP                                              understanding
    F                             their own embedding      generation

C, E and F take the other task's examples out of each batch of B and D and put nothing in their
place (`keep`): they see the very examples of these at the very steps. Where the paper is silent:
text stays in all six; A and B keep two adaptors; the tokenizers stay frozen in all stages, as the
image ids hang on them.
"""

import pathlib
import runpy

from ml_collections import ConfigDict

EXPERIMENTS = {
    "A": dict(understanding="vq", generation="embedding", keep=""),
    "B": dict(understanding="semantic", generation="semantic", keep=""),
    "C": dict(understanding="semantic", generation="semantic", keep="understanding+text"),
    "D": dict(understanding="siglip", generation="embedding", keep=""),
    "E": dict(understanding="siglip", generation="embedding", keep="understanding+text"),
    "F": dict(understanding="siglip", generation="embedding", keep="text+generation"),
}
STAGES = ("stage1", "stage2", "stage3")
CHIPS = ("", "a100-40gb:128", "h100:64", "v5e:16x16", "v5p:4x4x8")
TARGETS = {f"{name}:{chips}" if chips else name: chips for name in EXPERIMENTS for chips in CHIPS}
LLM = "weights/deepseek_llm_1_3b"
# What stage 1 begins with: converted weights, and what configs/semantic_tokenizer.py has trained.
INIT = {
    "siglip": ("weights/siglip_l16_384", LLM, "weights/llamagen_vq16"),
    "vq": (LLM, "weights/llamagen_vq16"),
    "semantic": (LLM, "runs/semantic_tokenizer/text_to_image"),
}


def get_config(target: str) -> ConfigDict:
    name, _, chips = target.partition(":")
    e = EXPERIMENTS[name]
    here = pathlib.Path(__file__)
    of = {stage: runpy.run_path(str(here.with_name(f"{stage}.py"))) for stage in STAGES}
    configs = {stage: module["get_config"](chips).to_dict() for stage, module in of.items()}
    lacking = set()
    if e["understanding"] != "siglip":
        lacking.add("understanding_encoder")
    if e["generation"] != "embedding":
        lacking.add("generation_embedding")
    data = {"workers": 8, "datasets": {}}
    stages = {}
    for stage, config in configs.items():
        for key, line in config["data"]["datasets"].items():
            data["datasets"][f"{stage}_{key}"] = line | {"stages": (stage,)}
        own = config["stages"][stage]
        stages[stage] = own | {
            "trainable": tuple(child for child in own["trainable"] if child not in lacking),
            "init": INIT[e["understanding"]] if stage == "stage1" else ("previous",),
            "options": {"keep": e["keep"]} if e["keep"] else {},
        }
    # Stage 1 has no text: of a pair of tasks one is left.
    if e["keep"]:
        stages["stage1"]["options"] = {"keep": e["keep"].replace("text", "").strip("+")}
    last = configs["stage3"]
    return ConfigDict(
        last
        | {
            "model": last["model"]
            | {"understanding": e["understanding"], "generation": e["generation"]},
            "tokenizer": configs["stage1"]["tokenizer"],
            "data": data,
            "stages": stages,
        }
    )
