"""Several profiles side by side, as text."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.table import aligned
from .report import ProfileComparison, ProfileReport

_LATENCY_COLUMNS = (
    "engine", "precision", "batch", "p50 ms", "p90", "p95", "p99", "p99.9", "max", "FPS", "host MB", "device MB",
)  # fmt: skip
_METHOD_COLUMNS = ("method", "engine", "extra parameters (M)", "constants (MB)", "GFLOPs", "time (ms)", "FPS")


def latency_table(comparison: ProfileComparison) -> str:
    """Table of the latency percentiles per engine and batch size, with the ratio of medians to the first engine."""
    ratios = {(entry["engine"], entry["batch"]): entry["median_ratio"] for entry in comparison.ratios()}
    rows = []
    for report in comparison.reports:
        for item in report.batches:
            latency, memory = item.latency, item.memory
            times = (latency.p50, latency.p90, latency.p95, latency.p99, latency.p999, latency.max)
            sizes = (memory.host_bytes, memory.device_bytes) if memory else (None, None)
            rows.append(
                (
                    report.engine,
                    report.precision,
                    str(item.batch),
                    *(f"{value:.3f}" for value in times),
                    f"{item.fps:.1f}",
                    *("-" if size is None else f"{size / 1e6:.0f}" for size in sizes),
                    f"{ratios.get((report.engine, item.batch), 1.0):.3f}",
                )
            )
    return aligned((*_LATENCY_COLUMNS, f"p50 / {comparison.reports[0].engine}"), rows)


def method_table(reports: Sequence[ProfileReport]) -> str:
    """Table of methods side by side: parameters besides the backbone, constants, operations, median time and FPS.

    The columns are those that papers compare methods by. Time and FPS are those of each report's first batch size.

    Args:
        reports: reports of one machine; reports of several are not comparable.
    """
    rows = [
        (
            report.detector,
            report.engine,
            f"{report.figures.extra_parameters / 1e6:.2f}",
            f"{report.figures.constants_bytes / 1e6:.1f}",
            "-" if report.figures.gflop is None else f"{report.figures.gflop:.2f}",
            f"{report.batches[0].latency.p50:.2f}",
            f"{report.batches[0].fps:.1f}",
        )
        for report in reports
    ]
    return aligned(_METHOD_COLUMNS, rows)
