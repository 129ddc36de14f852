"""ONNX Runtime sessions that are what was asked for, or an error."""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from typing import Any

from ..bundle.store import Bundle
from ..core.errors import BundleError, EnvironmentMissingError
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
    """Exceptions that ONNX Runtime raises; they have no base class of their own."""
    state = ort.capi.onnxruntime_pybind11_state
    names = "Fail InvalidArgument InvalidGraph InvalidProtobuf NoSuchFile NotImplemented RuntimeException EPFail"
    return (RuntimeError, ValueError, *(getattr(state, name) for name in names.split()))


def open_session(ort: Any, bundle: Bundle, providers: list[Provider], options: EngineOptions) -> Any:
    """Open model.onnx with these providers, the first one being what was asked for.

    Raises:
        BundleError: ONNX Runtime cannot read or run the graph.
        EnvironmentMissingError: the session does not use the provider that was asked for, or leaves nodes that
            compute on the CPU, and ``options.allow_fallback`` is False.
    """
    wanted = providers[0][0]
    settings = _settings(ort, options)
    if wanted not in ort.get_available_providers():
        return _fall_back(ort, bundle, settings, wanted=wanted, words="this build has it not", options=options)
    notes = io.StringIO()
    with caught_stderr() as log, contextlib.redirect_stdout(notes):
        try:
            # Without this the wheel does not find the CUDA libraries that pip installed beside it.
            if wanted != CPU:
                ort.preload_dlls()
            session, problem = _create(ort, bundle, settings, providers), ""
        except failures(ort) as error:
            session, problem = None, str(error)
    words = " ".join(f"{problem} {log.words()}".split())
    if session is None and wanted == CPU:
        raise BundleError(f"{bundle.model_path}: ONNX Runtime cannot open the graph: {words} Export it again.")
    if session is None or wanted not in session.get_providers():
        return _fall_back(ort, bundle, settings, wanted=wanted, words=words, options=options)
    sys.stderr.write(log.text)
    _refuse_stray_nodes(session, wanted, options)
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


def _fall_back(ort: Any, bundle: Bundle, settings: Any, *, wanted: str, words: str, options: EngineOptions) -> Any:
    if not options.allow_fallback:
        raise EnvironmentMissingError(
            f"ONNX Runtime was asked for {wanted} and would run on the CPU instead. It said: {words or 'nothing'} "
            f"It has {', '.join(ort.get_available_providers())}. {_fix(wanted)} Or accept the CPU with "
            "--allow-fallback."
        )
    return _create(ort, bundle, settings, [(CPU, {})])


def _fix(wanted: str) -> str:
    if wanted == TENSORRT:
        return (
            "Install onnxruntime-gpu with CUDA 13, cuDNN 9 and TensorRT 10 (libnvinfer.so.10; TensorRT 11 does not "
            "serve it): pip install 'onnxruntime-gpu[cuda,cudnn]' 'tensorrt-cu13<11'."
        )
    return f"Install it with its CUDA libraries: {install('gpu')} 'onnxruntime-gpu[cuda,cudnn]'."


def nodes_per_provider(session: Any) -> dict[str, list[str]]:
    """Operator types by the provider that runs them, as ONNX Runtime assigned them."""
    assigned: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        assigned.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
    return assigned


def stray_operators(assigned: dict[str, list[str]], wanted: str) -> Counter[str]:
    """Operators that would compute elsewhere than asked; those that only compute shapes are let pass.

    Args:
        assigned: operator types by provider.
        wanted: the provider that was asked for; where it runs nothing at all, everything is stray.
    """
    if wanted not in assigned:
        return Counter(operator for operators in assigned.values() for operator in operators)
    return Counter(operator for operator in assigned.get(CPU, ()) if operator not in _SHAPE_OPERATORS)


def _refuse_stray_nodes(session: Any, wanted: str, options: EngineOptions) -> None:
    if wanted == CPU or options.allow_fallback:
        return
    stray = stray_operators(nodes_per_provider(session), wanted)
    if stray:
        parts = ", ".join(f"{count} {operator}" for operator, count in sorted(stray.items()))
        raise EnvironmentMissingError(
            f"{wanted} was loaded, but does not run {parts}: these nodes of the graph would run elsewhere. Export "
            "again without these operators, choose another engine, or accept it with --allow-fallback."
        )
