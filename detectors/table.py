"""The table of detectors. Names and strings only: importing it costs nothing and needs no PyTorch."""

DETECTORS = {
    "cflow": "lineproof.detectors.flow.cflow:CFlow",
    "csflow": "lineproof.detectors.flow.csflow:CsFlow",
    "cutpaste": "lineproof.detectors.selfsupervised.cutpaste:CutPaste",
    "dfr": "lineproof.detectors.reconstruction.dfr:Dfr",
    "depth_vm": "lineproof.detectors.volume.depth_vm:DepthVm",
    "differnet": "lineproof.detectors.flow.differnet:DifferNet",
    "draem": "lineproof.detectors.selfsupervised.draem:Draem",
    "fastflow": "lineproof.detectors.flow.fastflow:FastFlow",
    "fyd": "lineproof.detectors.selfsupervised.fyd:Fyd",
    "glance": "lineproof.detectors.reconstruction.glance:Glance",
    "nsa": "lineproof.detectors.selfsupervised.nsa:Nsa",
    "padim": "lineproof.detectors.distance.padim:Padim",
    "panda": "lineproof.detectors.distance.panda:Panda",
    "patch_svdd": "lineproof.detectors.selfsupervised.patch_svdd:PatchSvdd",
    "patchcore": "lineproof.detectors.distance.patchcore:PatchCore",
    "reverse_distillation": "lineproof.detectors.reconstruction.reverse_distillation:ReverseDistillation",
    "spade": "lineproof.detectors.distance.spade:Spade",
    "voxel_vm": "lineproof.detectors.volume.voxel_vm:VoxelVm",
}
