"""What the TensorRT builder and its engines share, without TensorRT."""

import types

from lineproof.host.tensorrt import ErrorLog, tensorrt_logger


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
