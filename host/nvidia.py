"""NVIDIA GPUs: in CUDA's order, which is what a device index means, with what the driver reports of each.

CUDA and the management library (NVML, nvidia-smi) count GPUs differently. CUDA puts the fastest first, or goes by bus
where ``CUDA_DEVICE_ORDER=PCI_BUS_ID``, and leaves out or reorders what ``CUDA_VISIBLE_DEVICES`` says; NVML goes by bus
and shows all. Here CUDA's own list is the order, and what NVML says is joined to it by UUID or by place on the bus.

Needs no CUDA package: the driver's own library is asked through ctypes.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NAME_BYTES, _UUID_BYTES, _BUS_BYTES = 256, 16, 32
_MIB = 1 << 20
_TIMEOUT_S = 20
#: What is recorded of a GPU, by nvidia-smi's own names.
_FIELDS = (
    "name", "uuid", "pci.bus_id", "driver_version", "compute_cap", "memory.total", "clocks.sm", "clocks.max.sm",
    "power.limit",
)  # fmt: skip
#: nvidia-smi's word for what a GPU does not report.
_UNKNOWN = "[N/A]"


@final
@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU in CUDA's own order.

    Attributes:
        name: name of the GPU, as the driver spells it.
        sm: compute capability, ``"sm_89"``.
        uuid: ``"GPU-…"``, the same in every order and every tool; "" where the driver does not report it.
        pci_bus_id: place on the bus, ``"0000:65:00.0"``; "" where the driver does not report it.
    """

    name: str
    sm: str
    uuid: str = ""
    pci_bus_id: str = ""

    @property
    def target(self) -> str:
        """What a plan built here is built for."""
        return f"{self.name} {self.sm}"


@final
@dataclass(frozen=True)
class GpuSearch:
    """The outcome of asking the driver for its GPUs.

    Attributes:
        gpus: the GPUs in the order that device indices mean; empty without a driver or without a GPU.
        description: the GPUs in words, or why there is none.
    """

    gpus: tuple[Gpu, ...]
    description: str


def find_gpus() -> GpuSearch:
    """Ask the NVIDIA driver for its GPUs, in the order that device indices mean."""
    file = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(file)
    except OSError:
        return GpuSearch((), f"no NVIDIA driver ({file} cannot be loaded)")
    status = driver.cuInit(0)
    if status:
        return GpuSearch((), f"an NVIDIA driver without a usable GPU (cuInit returned {status})")
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    gpus = tuple(_gpu(driver, index) for index in range(count.value))
    return GpuSearch(gpus, ", ".join(gpu.target for gpu in gpus) or "an NVIDIA driver that lists no GPU")


def _gpu(driver: Any, index: int) -> Gpu:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    value = ctypes.c_int()
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        numbers.append(value.value)
    raw, place = ctypes.create_string_buffer(_UUID_BYTES), ctypes.create_string_buffer(_BUS_BYTES)
    has_uuid = not driver.cuDeviceGetUuid(raw, device)
    has_place = not driver.cuDeviceGetPCIBusId(place, _BUS_BYTES, device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        sm=f"sm_{numbers[0]}{numbers[1]}",
        uuid=f"GPU-{uuid.UUID(bytes=raw.raw)}" if has_uuid else "",
        pci_bus_id=place.value.decode() if has_place else "",
    )


def describe_gpus() -> list[dict[str, Any]]:
    """What a measurement must record of the NVIDIA GPUs; empty where there is no driver.

    Returns:
        One record per GPU that CUDA shows to this process, in CUDA's order: ``cuda_index`` (what ``--device`` means),
        nvidia-smi's fields, and ``source``, which says how they were asked: ``"pynvml"``, ``"nvidia-smi"``, or
        ``"cuda"`` where CUDA alone knew the GPU. Where CUDA shows none, the driver's own list without an index.
    """
    records, source = _ask_nvml(), "pynvml"
    if records is None:
        records, source = _ask_smi(), "nvidia-smi"
    gpus = find_gpus().gpus
    if not gpus:
        return [{**record, "source": source} for record in records]
    described: list[dict[str, Any]] = []
    for index, gpu in enumerate(gpus):
        record = next((record for record in records if _is_same(gpu, record)), None)
        fields = {**record, "source": source} if record else {**_cuda_fields(gpu), "source": "cuda"}
        described.append({"cuda_index": index, **fields})
    return described


def _is_same(gpu: Gpu, record: Mapping[str, str]) -> bool:
    """Compare by UUID; by the place on the bus where UUIDs differ, as those of a slice of a GPU (MIG) do."""
    if gpu.uuid and gpu.uuid == record["uuid"]:
        return True
    return bool(gpu.pci_bus_id) and _place(gpu.pci_bus_id) == _place(record["pci.bus_id"])


def _place(bus_id: str) -> tuple[int, str]:
    """Domain and the rest: CUDA writes four digits of the domain, the management library eight."""
    domain, _, rest = bus_id.partition(":")
    return int(domain, 16), rest.lower()


def _cuda_fields(gpu: Gpu) -> dict[str, str]:
    digits = gpu.sm.removeprefix("sm_")
    known = {
        "name": gpu.name,
        "uuid": gpu.uuid,
        "pci.bus_id": gpu.pci_bus_id,
        "compute_cap": f"{digits[:-1]}.{digits[-1]}",
    }
    return {field: known.get(field) or _UNKNOWN for field in _FIELDS}


def _ask_nvml() -> list[dict[str, str]] | None:
    """Records through nvidia-ml-py, in the order of the bus; None where it or its library is missing."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [_nvml_record(pynvml, handle, driver) for handle in handles]
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _nvml_record(nvml: Any, handle: Any, driver: str) -> dict[str, str]:
    """One GPU in nvidia-smi's fields and units, so that a record reads alike however it was asked."""

    def ask(question: Callable[[], str]) -> str:
        try:
            return question()
        except nvml.NVMLError:
            return _UNKNOWN

    return {
        "name": _text(nvml.nvmlDeviceGetName(handle)),
        "uuid": _text(nvml.nvmlDeviceGetUUID(handle)),
        "pci.bus_id": _text(nvml.nvmlDeviceGetPciInfo(handle).busId),
        "driver_version": driver,
        "compute_cap": ask(lambda: ".".join(map(str, nvml.nvmlDeviceGetCudaComputeCapability(handle)))),
        "memory.total": ask(lambda: f"{nvml.nvmlDeviceGetMemoryInfo(handle).total // _MIB} MiB"),
        "clocks.sm": ask(lambda: f"{nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)} MHz"),
        "clocks.max.sm": ask(lambda: f"{nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)} MHz"),
        "power.limit": ask(lambda: f"{nvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000:.2f} W"),
    }


def _text(words: str | bytes) -> str:
    """Releases of nvidia-ml-py differ in whether they answer str or bytes."""
    return words if isinstance(words, str) else words.decode(errors="replace")


def _ask_smi() -> list[dict[str, str]]:
    """Records through nvidia-smi, in the order of the bus; empty where there is none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in answer.stdout.splitlines() if line.strip()]
    return [dict(zip(_FIELDS, row, strict=True)) for row in rows if len(row) == len(_FIELDS)]
