"""Ranking of the engines: which one ``auto`` means, and which options each of several engines gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from ..bundle.store import Bundle
from ..core.errors import EnvironmentMissingError
from ..host.extras import install
from .engine import EngineOptions, availability, engine_type, names_of, proof_name

AUTO = "auto"
#: Rank of an engine for ``auto`` by the state of its proof, the smaller first; any other state ranks 1.
_RANKS = {"passed": 0, "failed": 2}

#: Says of a bundle and an engine's name whether the engine comes into question.
Filter = Callable[[Bundle, str], bool]


def fits(bundle: Bundle, name: str) -> bool:
    """Whether an engine runs the bundle's precision and, where it needs a plan, the bundle holds one for it."""
    engine = engine_type(name)
    has_plan = not engine.needs_plan or any(plan.engine == name for plan in bundle.manifest.plans)
    return has_plan and bundle.manifest.precision in engine.precisions


def is_proved(bundle: Bundle, name: str) -> bool:
    """Whether an engine's last verify passed for the bundle's decision, in its default arithmetic."""
    return bundle.manifest.parity_of(name) == "passed"


def is_here(bundle: Bundle, name: str) -> bool:
    """Whether an engine can run on this machine."""
    del bundle
    return availability(name).is_available


def rank_engines(bundle: Bundle, *filters: Filter) -> tuple[str, ...]:
    """The engines that ``auto`` may take and that pass every filter, the preferred first.

    Args:
        bundle: bundle to run.
        filters: filters, asked in this order: those that cost little should come before ``is_here``.
    """
    names = sorted(_candidates(), key=lambda name: -engine_type(name).preference)
    return tuple(name for name in names if all(passes(bundle, name) for passes in filters))


def _candidates() -> tuple[str, ...]:
    return names_of(lambda engine: engine.preference > 0)


def resolve_auto(bundle: Bundle, name: str, *, options: EngineOptions | None = None) -> str:
    """Turn ``"auto"`` into the name of the best engine here; any other name is returned as it is.

    The best is the preferred one of those that are proved for the bundle's decision. Where none is proved, it is the
    preferred one that did not fail its last verify, then any. An engine that needs a plan counts only where the bundle
    holds one for it.

    Args:
        bundle: bundle to run; its proofs count.
        name: name of an engine, or ``"auto"``.
        options: choices about the engine, whose arithmetic the proof must be for; None for the defaults.

    Raises:
        EnvironmentMissingError: the name is ``"auto"`` and no engine can run here.
    """
    if name != AUTO:
        return name
    here = rank_engines(bundle, fits, is_here)
    if not here:
        looked_for = ", ".join(rank_engines(bundle))
        raise EnvironmentMissingError(
            f"No engine is available here; looked for {looked_for}. "
            f"Install one: {install('cpu')}, or {install('openvino')}."
        )
    options = options or EngineOptions()
    # Of equals the first: a minimum keeps the order.
    return min(here, key=lambda name: _RANKS.get(bundle.manifest.parity_of(proof_name(name, options)), 1))


def reference_options(name: str, options: EngineOptions) -> EngineOptions:
    """Options of a reference engine beside an engine under test: the defaults, save the threads where it takes them.

    GPU, arithmetic and fallback are choices about the engine under test; the reference's scores must not depend on
    them.

    Args:
        name: name of the reference engine.
        options: options of the engine under test.

    Raises:
        UsageError: there is no engine of that name.
    """
    return EngineOptions(num_threads=options.num_threads if engine_type(name).takes_threads else 0)


def share_options(engines: Sequence[str], options: EngineOptions) -> tuple[EngineOptions, ...]:
    """Options of each of several engines that run side by side, in their order.

    The GPU goes to those that use one and the threads to those that take a number of them. Where none of the engines
    can honour an option, all get it, so that the first one refuses it by name. All get the arithmetic, and an engine
    that lacks it refuses, since with another one it would silently compute other numbers. The harness, which has
    nothing to choose, gets the defaults.

    Args:
        engines: names of the engines.
        options: choices of the caller.

    Raises:
        UsageError: there is no engine of one of the names.
    """
    types = [engine_type(name) for name in engines]
    has_gpu, has_threads = any(item.uses_gpu for item in types), any(item.takes_threads for item in types)
    shared = []
    for item in types:
        device = options.device if item.uses_gpu or not has_gpu else 0
        num_threads = options.num_threads if item.takes_threads or not has_threads else 0
        own = dataclasses.replace(options, device=device, num_threads=num_threads)
        shared.append(EngineOptions() if item.is_harness else own)
    return tuple(shared)
