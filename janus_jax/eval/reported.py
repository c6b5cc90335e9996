"""What the paper and others reported, with the source of each figure."""

PAPER = "arXiv 2410.13848, {}"
PRO = "arXiv 2501.17811, {}"
UMM = "TorchUMM, commit 083395e (measured)"
# benchmark -> (model, score, value, source)
FIGURES = {
    "pope": (
        ("Janus-1.3B", "accuracy, random split", 87.0, PAPER.format("Table 2; split: VLMEvalKit#541")),
        ("Janus-1.3B", "accuracy, all splits", 85.5, "VLMEvalKit#541 (the authors' rerun)"),
        ("Janus-Pro-1B", "accuracy", 86.2, PRO.format("Table 3; measured 84.1: Janus#239")),
    ),
    "mme": (
        ("Janus-1.3B", "perception", 1338.0, PAPER.format("Table 2")),
        ("Janus-1.3B", "perception", 1221.0, UMM),
        ("Janus-Pro-7B", "perception", 1567.0, PRO.format("Table 3; measured 1548: " + UMM)),
    ),
    "mmbench": (
        ("Janus-1.3B", "without circular evaluation", 69.4, PAPER.format("Table 2")),
        ("Janus-1.3B", "protocol not said", 46.9, UMM),
        ("Janus-Pro-1B", "without circular evaluation", 75.5, PRO.format("Table 3; measured 74.2: Janus#239")),
        ("Janus-Pro-7B", "without circular evaluation", 79.2, PRO.format("Table 3; measured 69.9 and 65.8")),
    ),
    "seedbench": (
        ("Janus-1.3B", "image questions", 63.7, PAPER.format("Table 2")),
        ("Janus-Pro-1B", "image questions", 68.3, PRO.format("Table 3; measured 67.3: Janus#239")),
    ),
    "vqav2": (("Janus-1.3B", "test-dev accuracy", 77.3, PAPER.format("Table 2")),),
    "gqa": (("Janus-1.3B", "accuracy", 59.1, PAPER.format("Table 2")),),
    "mmmu": (
        ("Janus-1.3B", "val", 30.5, PAPER.format("Table 2")),
        ("Janus-Pro-1B", "val", 36.3, PRO.format("Table 3; measured 34.9: Janus#239")),
        ("Janus-Pro-7B", "val", 41.0, PRO.format("Table 3; measured 40.7: " + UMM)),
    ),
    "mmvet": (
        ("Janus-1.3B", "GPT-4 judge", 34.3, PAPER.format("Table 2")),
        ("Janus-Pro-1B", "GPT-4 judge", 39.8, PRO.format("Table 3; measured 36.7: Janus#239")),
    ),
    "geneval": (
        ("Janus-1.3B", "overall", 0.61, PAPER.format("Table 4")),
        ("Janus-1.3B", "overall", 0.40, UMM),
        ("Janus-Pro-1B", "overall", 0.73, PRO.format("Table 4")),
        ("Janus-Pro-7B", "overall", 0.80, PRO.format("Table 4; measured 0.789: " + UMM)),
    ),
    "dpg": (
        ("Janus-1.3B", "overall", 79.7, PRO.format("Figure 1; measured 73.5: " + UMM)),
        ("Janus-Pro-1B", "overall", 82.6, PRO.format("Table 5; measured 74.6: BLIP3o#46")),
        ("Janus-Pro-7B", "overall", 84.2, PRO.format("Table 5; measured 83.7: " + UMM)),
    ),
    "wise": (
        ("Janus-1.3B", "WISE_Verified overall", 0.273, "PKU-YuanGroup/WISE, commit eb51174"),
        ("Janus-Pro-1B", "WISE_Verified overall", 0.265, "PKU-YuanGroup/WISE, commit eb51174"),
        ("Janus-Pro-7B", "WISE_Verified overall", 0.334, "PKU-YuanGroup/WISE, commit eb51174"),
    ),
    "coco30k": (("Janus-1.3B", "FID at 256", 8.53, PAPER.format("Table 3; size: Janus#22")),),
    "mjhq30k": (("Janus-1.3B", "FID", 10.10, PAPER.format("Table 3")),),
}  # fmt: skip


def figures(benchmark: str) -> list[dict]:
    """What was reported for a benchmark."""
    names = ("model", "score", "value", "source")
    return [dict(zip(names, figure)) for figure in FIGURES.get(benchmark, ())]
