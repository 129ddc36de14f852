"""Profiling of engines on a bundle: latency, throughput, cold start, memory, size, operations.

All engines, and the one that measures the harness itself, are open together. First a fresh process per engine gives
cold start and peak memory while the open engines are idle; then the open engines take turns in short blocks.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..bundle.reports import file_report
from ..bundle.store import Bundle
from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..host.environment import describe_environment
from ..runtime.engine import Engine, EngineOptions, check_batch_size, harness_engine, open_engine, proof_name
from ..runtime.ranking import resolve_auto, share_options
from .cold_start import ColdStart, measure_cold_start
from .frames import tiled_frames
from .latency import Samples, check_deadline_ms, count_missed, summarise
from .report import BatchProfile, ProfileComparison, ProfileReport, measure_sizes
from .timing import Clock, Schedule, time_in_turn

PROFILE = "profile.json"


def profile(  # noqa: PLR0913 (the caller's choices, by name)
    bundle: Bundle,
    *,
    engine: str,
    options: EngineOptions | None = None,
    batches: Sequence[int] = (1,),
    num_runs: int = 200,
    num_warmup: int = 20,
    num_cold_starts: int = 1,
    deadline_ms: float | None = None,
    record: bool = True,
    progress: Progress = silent,
) -> ProfileReport:
    """Profile one engine on the golden frames.

    Args:
        bundle: bundle to profile.
        engine: name of the engine, or ``"auto"``.
        options: choices about the engine; None for the defaults.
        batches: batch sizes.
        num_runs: number of timed calls per batch size.
        num_warmup: number of untimed calls before them.
        num_cold_starts: number of fresh processes; with 0 cold start and peak memory are not measured.
        deadline_ms: time in ms that a call may take, copies included; None for no deadline.
        record: whether the report is appended to the bundle's profile.json.
        progress: called after each block of calls.

    Raises:
        UsageError: there is no such engine, no batch, or a batch that the bundle does not take.
        EnvironmentMissingError: the engine cannot run here.
    """
    comparison = profile_many(
        bundle,
        (engine,),
        options=options,
        batches=batches,
        schedule=Schedule(num_runs=num_runs, num_warmup=num_warmup),
        num_cold_starts=num_cold_starts,
        deadline_ms=deadline_ms,
        record=record,
        progress=progress,
    )
    return comparison.reports[0]


def profile_many(  # noqa: PLR0913 (the caller's choices, by name)
    bundle: Bundle,
    engines: Sequence[str],
    *,
    options: EngineOptions | None = None,
    batches: Sequence[int] = (1,),
    schedule: Schedule | None = None,
    num_cold_starts: int = 1,
    deadline_ms: float | None = None,
    record: bool = True,
    progress: Progress = silent,
    clock: Clock = time.perf_counter_ns,
) -> ProfileComparison:
    """Profile several engines side by side, on the golden frames.

    Args:
        bundle: bundle to profile.
        engines: names of the engines; the first is the baseline of the ratios. ``"auto"`` is allowed.
        options: choices about the engines, shared out as ``runtime.ranking.share_options`` says; None for the
            defaults.
        batches: batch sizes.
        schedule: numbers of timed and untimed calls, and the size of the blocks; None for the defaults.
        num_cold_starts: number of fresh processes per engine; with 0 cold start and peak memory are not measured.
        deadline_ms: time in ms that a call may take, copies included; None for no deadline.
        record: whether each report is appended to the bundle's profile.json. A command passes False, prints first and
            then calls ``keep_profiles``.
        progress: called after each block of calls.
        clock: monotonic clock in ns.

    Raises:
        UsageError: there is no such engine, one is named twice, there is no batch, or the bundle does not take one.
        EnvironmentMissingError: an engine cannot run here.
    """
    request = _request(bundle, engines, options, batches, schedule, deadline_ms)
    reports = _measure(bundle, request, num_cold_starts, progress, clock)
    if record:
        for report in reports:
            bundle.append_report(PROFILE, report.to_dict())
    return ProfileComparison(reports)


def keep_profiles(bundle: Bundle, reports: Sequence[ProfileReport], *, record: Path | None = None) -> tuple[str, ...]:
    """File reports that were printed.

    Args:
        bundle: bundle that was measured.
        reports: reports to file.
        record: folder that gets them; None files them in the bundle's profile.json.

    Returns:
        The warnings of reports that could not be filed, each once.
    """
    warnings = [file_report(bundle, PROFILE, report.to_dict(), record=record) for report in reports]
    return tuple(dict.fromkeys(filter(None, warnings)))


def _measure(
    bundle: Bundle, request: _Request, num_cold_starts: int, progress: Progress, clock: Clock
) -> tuple[ProfileReport, ...]:
    # Before anything runs: afterwards the load would be that of the measurement itself.
    environment = {**describe_environment(), "load_average": _load_average()}
    with ExitStack() as stack:
        opened = _open_all(bundle, request, stack)
        cold = {name: _cold_starts(bundle, name, request, num_cold_starts, progress) for name in request.names}
        samples = {
            batch: time_in_turn(
                opened, tiled_frames(bundle, batch), schedule=request.schedule, progress=progress, clock=clock
            )
            for batch in request.batches
        }
        details = {name: item.describe() for name, item in opened.items()}
    return tuple(
        _report(bundle, name, request, samples, cold[name], details[name], environment) for name in request.names
    )


@final
@dataclass(frozen=True, kw_only=True)
class _Request:
    """A checked request.

    Attributes:
        names: names of the engines, ``"auto"`` resolved.
        options: options of each engine by its name, also of the one that measures the harness.
        batches: batch sizes.
        schedule: numbers of timed and untimed calls, and the size of the blocks.
        deadline_ms: time in ms that a call may take, or None.
    """

    names: tuple[str, ...]
    options: Mapping[str, EngineOptions]
    batches: tuple[int, ...]
    schedule: Schedule
    deadline_ms: float | None

    def method(self) -> dict[str, Any]:
        """How the figures were measured, as JSON values for the report."""
        return {
            **dataclasses.asdict(self.schedule),
            "engines_in_turn": list(self.options),
            "timer": "time.perf_counter_ns",
            "percentiles": "nearest rank; no sample is left out",
            "fps": "frames divided by the summed time of all timed calls",
            "frames": "the golden frames, repeated until the batch is full",
            "garbage_collection": "off within blocks, on between them",
        }


def _request(
    bundle: Bundle,
    engines: Sequence[str],
    options: EngineOptions | None,
    batches: Sequence[int],
    schedule: Schedule | None,
    deadline_ms: float | None,
) -> _Request:
    names = tuple(resolve_auto(bundle, name, options=options) for name in engines)
    if not names or len(set(names)) != len(names):
        raise UsageError(f"Engines to profile: {', '.join(names) or 'none'}; expected one or more, each once.")
    if not batches or len(set(batches)) != len(batches):
        raise UsageError(f"Batch sizes to profile: {list(batches)}; expected one or more, each once, such as 1:4:8.")
    if deadline_ms is not None:
        check_deadline_ms(deadline_ms)
    for batch in batches:
        check_batch_size(bundle, batch)
    opened = tuple(dict.fromkeys((*names, harness_engine())))
    shared = dict(zip(opened, share_options(opened, options or EngineOptions()), strict=True))
    return _Request(
        names=names, options=shared, batches=tuple(batches), schedule=schedule or Schedule(), deadline_ms=deadline_ms
    )


def _open_all(bundle: Bundle, request: _Request, stack: ExitStack) -> dict[str, Engine]:
    return {
        name: stack.enter_context(closing(open_engine(bundle, name, options=options)))
        for name, options in request.options.items()
    }


def _cold_starts(
    bundle: Bundle, name: str, request: _Request, num_cold_starts: int, progress: Progress
) -> tuple[ColdStart, ...]:
    cold_starts = []
    for done in range(num_cold_starts):
        progress(f"cold start of {name}", done, num_cold_starts)
        cold_starts.append(measure_cold_start(bundle, name, options=request.options[name], batches=request.batches))
    if num_cold_starts:
        progress(f"cold start of {name}", num_cold_starts, num_cold_starts)
    return tuple(cold_starts)


def _report(  # noqa: PLR0913 (a report gathers everything)
    bundle: Bundle,
    name: str,
    request: _Request,
    samples: Mapping[int, Mapping[str, Samples]],
    cold_starts: tuple[ColdStart, ...],
    details: dict[str, Any],
    environment: dict[str, Any],
) -> ProfileReport:
    memory = {item.batch: item for start in cold_starts[:1] for item in start.memory}
    batches = tuple(
        BatchProfile(
            batch=batch,
            samples=by_engine[name],
            harness=summarise(by_engine[harness_engine()].total_ns),
            deadline=None if request.deadline_ms is None else count_missed(by_engine[name], request.deadline_ms),
            memory=memory.get(batch),
        )
        for batch, by_engine in samples.items()
    )
    return ProfileReport(
        bundle=bundle.manifest.name,
        model_sha256=bundle.model_sha256,
        decision=bundle.manifest.decision,
        parity=bundle.manifest.parity_of(proof_name(name, request.options[name])),
        detector=bundle.manifest.detector.name,
        engine=name,
        precision=bundle.manifest.precision,
        compute_dtype=request.options[name].compute_dtype,
        batches=batches,
        cold_starts=cold_starts,
        sizes=measure_sizes(bundle.manifest, name),
        figures=bundle.manifest.figures,
        method=request.method(),
        engine_details=details,
        environment=environment,
    )


def _load_average() -> list[float] | None:
    """Load averages of 1, 5 and 15 minutes; None where the system has none."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None
