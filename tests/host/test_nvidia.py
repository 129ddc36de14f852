"""GPUs are found without a CUDA package, in CUDA's order, and each is joined to what the driver tells about it."""

import ctypes
import dataclasses
import subprocess
import sys
import types
import uuid

import pytest

from lineproof.host import nvidia
from lineproof.host.environment import describe_environment
from lineproof.host.nvidia import Gpu, describe_gpus, find_gpus


@dataclasses.dataclass(frozen=True)
class Card:
    """One GPU of a machine: how fast it is decides its place in CUDA's default order, its bus that in NVML's."""

    name: str
    capability: tuple[int, int]
    bus: int
    speed: int

    @property
    def raw(self):
        return bytes([self.bus]) * 16

    @property
    def uuid(self):
        return f"GPU-{uuid.UUID(bytes=self.raw)}"


#: The slow card sits on the first bus: NVML lists it first and CUDA last.
L4 = Card("NVIDIA L4", (8, 9), 0x17, 1)
RTX = Card("NVIDIA GeForce RTX 5090", (12, 0), 0xCA, 9)
ON_THE_BUS = (L4, RTX)


class Driver:
    """The calls of libcuda that are made; it reads the environment as the real one does."""

    def __init__(self, environment, status=0, has_uuid=True):
        self.status, self.has_uuid = status, has_uuid
        is_by_bus = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        cards = sorted(ON_THE_BUS, key=lambda card: card.bus if is_by_bus else -card.speed)
        self.cards = self._visible(cards, environment.get("CUDA_VISIBLE_DEVICES"))

    @staticmethod
    def _visible(cards, words):
        if words is None:
            return cards
        visible = []
        for word in filter(None, words.split(",")):
            named = [card for card in cards if word.startswith("GPU-") and card.uuid.startswith(word)]
            visible += named if word.startswith("GPU-") else [cards[int(word)]]
        return visible

    def cuInit(self, _flags):  # noqa: N802
        return self.status

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.cards)

    def cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = index

    def cuDeviceGetName(self, name, _size, device):  # noqa: N802
        name.value = self.cards[device.value].name.encode()

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        value._obj.value = self.cards[device.value].capability[attribute - 75]

    def cuDeviceGetUuid(self, raw, device):  # noqa: N802
        raw.raw = self.cards[device.value].raw if self.has_uuid else bytes(16)
        return 0 if self.has_uuid else 801

    def cuDeviceGetPCIBusId(self, place, _size, device):  # noqa: N802
        place.value = f"0000:{self.cards[device.value].bus:02X}:00.0".encode()
        return 0


class Nvml(types.ModuleType):
    """The calls of nvidia-ml-py that are made, in the order of the bus."""

    NVML_CLOCK_SM = 1

    class NVMLError(Exception):
        pass

    def __init__(self, cards=ON_THE_BUS, *, can_start=True):
        super().__init__("pynvml")
        self.cards, self.can_start, self.num_open = cards, can_start, 0

    def nvmlInit(self):  # noqa: N802
        if not self.can_start:
            raise self.NVMLError("driver not loaded")
        self.num_open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.num_open -= 1

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return "580.95"

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetName(self, card):  # noqa: N802
        return card.name

    def nvmlDeviceGetUUID(self, card):  # noqa: N802
        return card.uuid.encode()

    def nvmlDeviceGetPciInfo(self, card):  # noqa: N802
        return types.SimpleNamespace(busId=f"00000000:{card.bus:02X}:00.0".encode())

    def nvmlDeviceGetCudaComputeCapability(self, card):  # noqa: N802
        return card.capability

    def nvmlDeviceGetMemoryInfo(self, card):  # noqa: N802
        return types.SimpleNamespace(total=card.speed << 30)

    def nvmlDeviceGetClockInfo(self, card, kind):  # noqa: N802
        return 100 * card.speed + kind

    def nvmlDeviceGetMaxClockInfo(self, card, kind):  # noqa: N802
        return 1000 * card.speed + kind

    def nvmlDeviceGetPowerManagementLimit(self, card):  # noqa: N802
        if card is L4:
            raise self.NVMLError("not supported")
        return 575_000


@pytest.fixture
def machine(monkeypatch):
    """A machine with two GPUs: call it with the environment and, where NVML is to answer, with that."""

    def build(environment=(), *, nvml=None, smi=None, status=0, has_uuid=True):
        driver = Driver(dict(environment), status, has_uuid)
        monkeypatch.setattr(ctypes, "CDLL", lambda _file: driver)
        monkeypatch.setitem(sys.modules, "pynvml", nvml)

        def run(command, **_options):
            if smi is None:
                raise FileNotFoundError(command[0])
            return types.SimpleNamespace(stdout=smi)

        monkeypatch.setattr(subprocess, "run", run)

    return build


def smi_line(card):
    """A line of nvidia-smi, with its fields in the order that is asked for."""
    capability = ".".join(map(str, card.capability))
    return f"{card.name}, {card.uuid}, 00000000:{card.bus:02X}:00.0, 580.95, {capability}, 1 MiB, 2 MHz, 3 MHz, 4 W\n"


def test_a_machine_without_a_driver_is_said(monkeypatch):
    def no_library(file):
        raise OSError(file)

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    search = find_gpus()
    assert search.gpus == ()
    assert search.description.startswith("no NVIDIA driver")


def test_a_driver_without_a_gpu_is_said(machine):
    machine(status=100)
    assert find_gpus() == nvidia.GpuSearch((), "an NVIDIA driver without a usable GPU (cuInit returned 100)")


def test_gpus_are_named_in_cudas_order(machine):
    machine()
    search = find_gpus()
    assert search.gpus == (
        Gpu(name=RTX.name, sm="sm_120", uuid=RTX.uuid, pci_bus_id="0000:CA:00.0"),
        Gpu(name=L4.name, sm="sm_89", uuid=L4.uuid, pci_bus_id="0000:17:00.0"),
    )
    assert search.description == "NVIDIA GeForce RTX 5090 sm_120, NVIDIA L4 sm_89"


@pytest.mark.parametrize("source", ["pynvml", "nvidia-smi"])
@pytest.mark.parametrize(
    ("environment", "cards"),
    [
        ({}, (RTX, L4)),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, (L4, RTX)),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, (L4, RTX)),
        ({"CUDA_VISIBLE_DEVICES": "1"}, (L4,)),
        ({"CUDA_VISIBLE_DEVICES": f"{L4.uuid},{RTX.uuid}"}, (L4, RTX)),
        ({"CUDA_VISIBLE_DEVICES": RTX.uuid[:12]}, (RTX,)),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1,0"}, (RTX, L4)),
    ],
)
@pytest.mark.parametrize("has_uuid", [True, False])
def test_the_record_names_the_gpu_that_an_index_means(machine, environment, cards, source, has_uuid):
    nvml, smi = (Nvml(), None) if source == "pynvml" else (None, "".join(map(smi_line, ON_THE_BUS)))
    machine(environment, nvml=nvml, smi=smi, has_uuid=has_uuid)
    described = describe_gpus()
    assert [record["cuda_index"] for record in described] == list(range(len(cards)))
    assert [record["uuid"] for record in described] == [card.uuid for card in cards]
    assert [record["name"] for record in described] == [gpu.name for gpu in find_gpus().gpus]
    assert {record["source"] for record in described} == {source}
    if nvml:
        assert nvml.num_open == 0


def test_a_record_reads_as_that_of_nvidia_smi(machine):
    machine(nvml=Nvml())
    rtx, l4 = describe_environment()["gpus"]
    assert rtx == {
        "cuda_index": 0, "name": RTX.name, "uuid": RTX.uuid, "pci.bus_id": "00000000:CA:00.0",
        "driver_version": "580.95", "compute_cap": "12.0", "memory.total": "9216 MiB", "clocks.sm": "901 MHz",
        "clocks.max.sm": "9001 MHz", "power.limit": "575.00 W", "source": "pynvml",
    }  # fmt: skip
    assert l4["power.limit"] == "[N/A]"


def test_where_nvml_cannot_start_nvidia_smi_is_asked(machine):
    machine(nvml=Nvml(can_start=False), smi="".join(map(smi_line, ON_THE_BUS)))
    assert [(record["name"], record["source"]) for record in describe_gpus()] == [
        (RTX.name, "nvidia-smi"),
        (L4.name, "nvidia-smi"),
    ]


def test_a_gpu_that_cuda_alone_knows_is_recorded(machine):
    machine()
    first, second = describe_gpus()
    assert (first["name"], first["uuid"], first["compute_cap"], first["source"]) == (RTX.name, RTX.uuid, "12.0", "cuda")
    assert first["power.limit"] == "[N/A]"
    assert (second["cuda_index"], second["name"]) == (1, L4.name)


def test_gpus_that_cuda_does_not_show_have_no_index(machine):
    machine({"CUDA_VISIBLE_DEVICES": ""}, nvml=Nvml())
    assert [(record["name"], "cuda_index" in record) for record in describe_gpus()] == [
        (L4.name, False),
        (RTX.name, False),
    ]
