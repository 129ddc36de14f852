"""The table of detectors. Names and strings only: importing it costs nothing and needs no PyTorch."""

DETECTORS = {
    "cflow": "lineproof.detectors.cflow:CFlow",
    "csflow": "lineproof.detectors.csflow:CsFlow",
    "dfr": "lineproof.detectors.dfr:Dfr",
    "differnet": "lineproof.detectors.differnet:DifferNet",
    "draem": "lineproof.detectors.draem:Draem",
    "fastflow": "lineproof.detectors.fastflow:FastFlow",
    "padim": "lineproof.detectors.padim:Padim",
    "patchcore": "lineproof.detectors.patchcore:PatchCore",
    "reverse_distillation": "lineproof.detectors.reverse_distillation:ReverseDistillation",
    "spade": "lineproof.detectors.spade:Spade",
}
