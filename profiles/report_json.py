"""JSON types of a profile, as ``profile --json`` prints it and profile.json holds it."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from ..bundle.record import ProofState
from .cold_start import ColdStart
from .latency import DeadlineJson, Latency, SamplesJson


class BatchJson(TypedDict):
    """One engine at one batch size; times in ms, memory in 10⁶ bytes, null where not measured."""

    batch: int
    num_runs: int
    latency_ms: Annotated[dict[str, float], Latency]
    upload_ms: Annotated[dict[str, float], Latency]
    execute_ms: Annotated[dict[str, float], Latency]
    download_ms: Annotated[dict[str, float], Latency]
    device_ms: Annotated[dict[str, float], Latency] | None
    harness_ms: Annotated[dict[str, float], Latency]
    fps: float
    deadline: DeadlineJson | None
    peak_host_mb: float | None
    device_mb: float | None
    samples: NotRequired[SamplesJson]


class ProfileJson(BatchJson):
    """One engine on one bundle; the figures of the first batch size also stand at the top level."""

    bundle: str
    model_sha256: str
    decision: str
    parity: ProofState
    detector: str
    engine: str
    precision: str
    compute_dtype: str
    batches: list[BatchJson]
    missed_deadline: bool
    cold_start_ms: float | None
    cold_starts: list[Annotated[dict[str, Any], ColdStart]]
    model_mb: float
    plan_mb: float
    backbone: str
    backbone_parameters_m: float
    extra_parameters_m: float
    constants_mb: float
    flops: dict[str, int]
    total_gflops: float | None
    method: dict[str, Any]
    engine_details: dict[str, Any]
    environment: dict[str, Any]
