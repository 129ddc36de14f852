"""The machine and the packages that a figure was measured on, or a detector trained on."""

import getpass
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .nvidia import describe_gpus

PACKAGES = (
    "lineproof", "numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx",
    "pycuda", "cuda-python", "nvidia-ml-py", "torch", "torchvision", "timm", "FrEIA", "onnx", "onnxscript",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Version of each package of interest that is installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def user_name() -> str:
    """Name of the user who runs this, or "" where the system knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def describe_environment() -> dict[str, Any]:
    """CPU, GPU, clocks, driver, operating system, threads and package versions, as JSON values."""
    return {
        "cpu": _cpu_name(),
        "num_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu_features": _cpu_features(),
        "gpus": describe_gpus(),
        "os": platform.platform(),
        "python": sys.version.split()[0],
        "packages": package_versions(),
    }


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith(field):
                return line.partition(":")[2].strip()
    return ""


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_features() -> list[str]:
    recorded = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
    flags = _cpuinfo("flags").split()
    return [flag for flag in recorded if flag in flags]
