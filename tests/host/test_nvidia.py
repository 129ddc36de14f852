"""GPUs are found without a CUDA package, and a library's errors are kept."""

import ctypes
import types

from lineproof.host import nvidia
from lineproof.host.nvidia import ErrorLog, Gpu, find_gpus, tensorrt_logger


class Driver:
    """The calls of libcuda that are made, for two GPUs."""

    gpus = ((b"NVIDIA L4", 8, 9), (b"NVIDIA GeForce RTX 5090", 12, 0))

    def __init__(self, status=0):
        self.status = status

    def cuInit(self, _flags):  # noqa: N802
        return self.status

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.gpus)

    def cuDeviceGetName(self, name, _size, index):  # noqa: N802
        name.value = self.gpus[index][0]

    def cuDeviceGetAttribute(self, value, attribute, index):  # noqa: N802
        value._obj.value = self.gpus[index][{75: 1, 76: 2}[attribute]]


def test_a_machine_without_a_driver_is_said(monkeypatch):
    def no_library(file):
        raise OSError(file)

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    search = find_gpus()
    assert search.gpus == ()
    assert search.found.startswith("no NVIDIA driver")


def test_a_driver_without_a_gpu_is_said(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _file: Driver(status=100))
    assert find_gpus() == nvidia.GpuSearch((), "an NVIDIA driver without a usable GPU (cuInit returned 100)")


def test_gpus_are_named_in_cudas_order(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _file: Driver())
    search = find_gpus()
    assert search.gpus == (Gpu("NVIDIA L4", "sm_89"), Gpu("NVIDIA GeForce RTX 5090", "sm_120"))
    assert search.found == "NVIDIA L4 sm_89, NVIDIA GeForce RTX 5090 sm_120"


def test_errors_are_taken_once_oldest_first():
    log = ErrorLog()
    log.add("first\n  error")
    log.add("second")
    assert log.take() == "first error | second"
    assert log.take() == ""


def test_one_logger_per_module_keeps_errors_only():
    class ILogger:
        ERROR, INTERNAL_ERROR, WARNING = 1, 0, 2

    library = types.ModuleType("library")
    library.ILogger = ILogger
    logger, errors = tensorrt_logger(library)
    assert tensorrt_logger(library)[0] is logger
    logger.log(ILogger.WARNING, "a warning")
    logger.log(ILogger.ERROR, "an error")
    logger.log(ILogger.INTERNAL_ERROR, "a worse one")
    assert errors.take() == "an error | a worse one"
