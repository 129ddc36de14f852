"""The table of detectors. Names and strings only: importing it costs nothing and needs no PyTorch."""

DETECTORS = {
    "cflow": "lineproof.detectors.cflow:CFlow",
    "fastflow": "lineproof.detectors.fastflow:FastFlow",
    "padim": "lineproof.detectors.padim:Padim",
    "patchcore": "lineproof.detectors.patchcore:PatchCore",
    "spade": "lineproof.detectors.spade:Spade",
}
