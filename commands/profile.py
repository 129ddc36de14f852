"""``lineproof profile``."""

from functools import partial
from typing import Annotated

from typer import Option

from ..host.needs import Needs
from ._options import (
    AllowFallback,
    AsJson,
    BundleArgument,
    ComputeDtype,
    Device,
    ExpectedPrecision,
    Quiet,
    Record,
    ReportPage,
    Threads,
    Verbose,
)

NEEDS = Needs(has_engine=True)


def profile(
    bundle: BundleArgument = None,
    *,
    engine: Annotated[list[str], Option(help="Engine; repeat it to compare several side by side.")] = ["auto"],  # noqa: B006
    batch: Annotated[str, Option(help="Batch sizes to measure: 1, or several as in 1:4:8.")] = "1",
    runs: Annotated[int, Option(help="Number of timed calls per batch size.")] = 200,
    warmup: Annotated[int, Option(help="Number of untimed calls before the timed ones.")] = 20,
    cold_starts: Annotated[
        int, Option(help="Number of fresh processes that are timed from their start to the first verdict.")
    ] = 1,
    deadline_ms: Annotated[
        float | None,
        Option(help="Longest time in ms that a call may take (the line's takt); exit 5 where one is slower."),
    ] = None,
    precision: ExpectedPrecision = None,
    samples: Annotated[bool, Option("--samples", help="Put the time of every call into the JSON.")] = False,
    table: Annotated[
        str | None,
        Option(
            help="3 prints Table 3 of Zheng et al. 2022 with a measured row for every bundle in the current folder on "
            "every engine that works here."
        ),
    ] = None,
    record: Record = None,
    report: ReportPage = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    device: Device = 0,
    threads: Threads = 0,
    compute_dtype: ComputeDtype = "f32",
    allow_fallback: AllowFallback = False,
) -> None:
    """Measure latency, throughput, memory, cold start and parameters."""
    from ..bundle.reports import check_record
    from ..profiles.measure import ProfileRequest
    from ..report.speed_table import check_table, profile_bundles
    from ..runtime.engine import EngineOptions
    from ._console import Ui
    from ._find import open_bundles
    from ._parse import parse_batches

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    ui.check_places({"--report": report})
    options = EngineOptions(
        device=device, num_threads=threads, compute_dtype=compute_dtype, allow_fallback=allow_fallback
    )
    request = ProfileRequest(
        engines=tuple(engine),
        options=options,
        batches=parse_batches(batch),
        num_runs=runs,
        num_warmup=warmup,
        num_cold_starts=cold_starts,
        deadline_ms=deadline_ms,
        with_samples=samples,
    )
    check_record(record)
    check_table(table, request)
    opened = open_bundles(bundle, precision=precision, takes_all=bool(table))
    with ui.progress() as progress:
        result = profile_bundles(opened, request, table=table, progress=progress)
    ui.conclude(result, page=report, keep=partial(result.keep, record=record))
