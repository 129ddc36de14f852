"""ONNX Runtime sessions that run on the provider that was asked for, or end in an error."""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ..bundle.store import Bundle
from ..core.errors import BadInputError, BundleError, EnvironmentMissingError
from ..host.extras import install
from .engine import EngineOptions
from .native_log import caught_stderr

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
#: Operators that ONNX Runtime puts on the CPU on purpose: they compute shapes, not pixels.
_SHAPE_OPERATORS = frozenset(
    (
        "Shape", "Size", "Constant", "ConstantOfShape", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Cast",
        "Reshape", "Range", "Equal", "Where", "Add", "Sub", "Mul", "Div", "Floor", "Ceil", "Min", "Max", "Identity",
        "Expand", "ReduceProd",
    )
)  # fmt: skip

Provider = tuple[str, dict[str, str]]


def import_onnxruntime() -> Any:
    """Import onnxruntime.

    Returns:
        The module.

    Raises:
        EnvironmentMissingError: it is not installed, or a library that it links against is missing.
    """
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        raise EnvironmentMissingError(
            f"onnxruntime cannot be imported ({error}). Install it: {install('cpu')}, or on a GPU machine: "
            f"{install('gpu')}; never both, they are one module."
        ) from error
    return onnxruntime


def failures(ort: Any) -> tuple[type[Exception], ...]:
    """Exceptions that ONNX Runtime raises: it has no base class for them.

    Args:
        ort: the module onnxruntime.
    """
    state = ort.capi.onnxruntime_pybind11_state
    names = "Fail InvalidArgument InvalidGraph InvalidProtobuf NoSuchFile NotImplemented RuntimeException EPFail"
    return (RuntimeError, ValueError, *(getattr(state, name) for name in names.split()))


def open_file(path: Path) -> Any:
    """Open an ONNX file that is no bundle's, on the CPU and with the library's own settings.

    Args:
        path: the file; weights beside it are found there.

    Raises:
        BadInputError: there is no such file, or ONNX Runtime cannot open it.
        EnvironmentMissingError: ONNX Runtime is not installed.
    """
    ort = import_onnxruntime()
    if not path.is_file():
        seen = "is a folder" if path.is_dir() else "does not exist"
        raise BadInputError(f"{path} {seen}; expected an ONNX file. Check the path.")
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    with caught_stderr() as log:
        try:
            return ort.InferenceSession(str(path), settings, providers=[CPU])
        except failures(ort) as error:
            problem = str(error)
    words = " ".join(f"{problem} {log.words()}".split())
    raise BadInputError(
        f"{path}: ONNX Runtime cannot open it: {words} Expected a whole ONNX file, with the file of its weights beside "
        "it where it has one."
    )


def open_session(ort: Any, bundle: Bundle, providers: list[Provider], options: EngineOptions) -> Any:
    """Open the bundle's model.onnx.

    Args:
        ort: the module onnxruntime.
        bundle: bundle to open.
        providers: execution providers with their options; the first one is the one that was asked for.
        options: choices of the caller.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        BundleError: ONNX Runtime cannot read or run the graph.
        EnvironmentMissingError: the session does not use the first provider, or leaves nodes that compute to the CPU,
            and ``options.allow_fallback`` is False.
    """
    provider = providers[0][0]
    settings = _settings(ort, options)
    if provider not in ort.get_available_providers():
        return _fall_back(
            ort, bundle, settings, provider=provider, words="This build does not have it.", options=options
        )
    notes = io.StringIO()
    with caught_stderr() as log, contextlib.redirect_stdout(notes):
        try:
            # Without this the wheel does not find the CUDA libraries that pip installed beside it.
            if provider != CPU:
                ort.preload_dlls()
            session, problem = _create(ort, bundle, settings, providers), ""
        except failures(ort) as error:
            session, problem = None, str(error)
    words = " ".join(f"{problem} {log.words()}".split())
    if session is None and provider == CPU:
        raise BundleError(f"{bundle.model_path}: ONNX Runtime cannot open the graph: {words} Export it again.")
    if session is None or provider not in session.get_providers():
        return _fall_back(ort, bundle, settings, provider=provider, words=words, options=options)
    sys.stderr.write(log.text)
    _refuse_stray_nodes(session, provider, options)
    return session


def _settings(ort: Any, options: EngineOptions) -> Any:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.num_threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return settings


def _create(ort: Any, bundle: Bundle, settings: Any, providers: list[Provider]) -> Any:
    # enable_fallback=0: otherwise the Python layer prints a line, retries on the CPU and says nothing more.
    session = ort.InferenceSession(str(bundle.model_path), settings, providers=providers, enable_fallback=0)
    session.disable_fallback()
    return session


def _fall_back(ort: Any, bundle: Bundle, settings: Any, *, provider: str, words: str, options: EngineOptions) -> Any:
    if not options.allow_fallback:
        raise EnvironmentMissingError(
            f"ONNX Runtime was asked for {provider} and would run on the CPU instead. It said: {words or 'nothing'} "
            f"It has {', '.join(ort.get_available_providers())}. {_fix(provider)} Or accept the CPU with "
            "--allow-fallback."
        )
    return _create(ort, bundle, settings, [(CPU, {})])


def _fix(provider: str) -> str:
    if provider == TENSORRT:
        return (
            "Install onnxruntime-gpu with CUDA 13, cuDNN 9 and TensorRT 10 (libnvinfer.so.10; TensorRT 11 does not "
            "serve it): pip install 'onnxruntime-gpu[cuda,cudnn]' 'tensorrt-cu13<11'."
        )
    return f"Install it with its CUDA libraries: {install('gpu')} 'onnxruntime-gpu[cuda,cudnn]'."


def nodes_per_provider(session: Any) -> dict[str, list[str]]:
    """Operator types of a session's nodes by the provider that ONNX Runtime assigned them to."""
    assigned: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        assigned.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
    return assigned


def stray_operators(assigned: dict[str, list[str]], provider: str) -> Counter[str]:
    """Count the operators that would compute elsewhere than asked; those that only compute shapes do not count.

    Args:
        assigned: operator types by provider.
        provider: provider that was asked for. Where it runs no node at all, every operator counts.

    Returns:
        Number of nodes by operator type.
    """
    if provider not in assigned:
        return Counter(operator for operators in assigned.values() for operator in operators)
    return Counter(operator for operator in assigned.get(CPU, ()) if operator not in _SHAPE_OPERATORS)


def _refuse_stray_nodes(session: Any, provider: str, options: EngineOptions) -> None:
    if provider == CPU or options.allow_fallback:
        return
    stray = stray_operators(nodes_per_provider(session), provider)
    if stray:
        parts = ", ".join(f"{count} {operator}" for operator, count in sorted(stray.items()))
        raise EnvironmentMissingError(
            f"{provider} was loaded, but does not run {parts}: these nodes of the graph would run elsewhere. Export "
            "again without these operators, choose another engine, or accept it with --allow-fallback."
        )
