"""``lineproof compare``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..host.needs import Needs
from ._options import (
    AllowFallback,
    AsJson,
    BatchSize,
    ComputeDtype,
    Device,
    FprLimit,
    MinUsed,
    OtherData,
    OwnCategory,
    Quiet,
    ReportPage,
    ResolutionName,
    TestData,
    Threads,
    Verbose,
)

NEEDS = Needs(has_engine=True)


def compare(
    left: Annotated[Path, Argument(help="Bundle, or file of outputs that evaluate saved.")],
    right: Annotated[
        Path, Argument(help="Bundle or file to compare it with; the left bundle again for two engines of one bundle.")
    ],
    *,
    data: TestData = None,
    category: OwnCategory = None,
    engine: Annotated[
        list[str], Option(help="Engine of both sides; given twice, the left one's and the right one's.")
    ] = ["auto"],  # noqa: B006
    batch: BatchSize = 1,
    fpr_limit: FprLimit = 0.3,
    resolution: ResolutionName = "image",
    min_used: MinUsed = "90%",
    resamples: Annotated[int, Option(help="Number of bootstrap resamples behind the confidence intervals.")] = 1000,
    seed: Annotated[int, Option(help="Seed of the resampling; the same seed gives the same intervals.")] = 0,
    report: ReportPage = None,
    other_data: OtherData = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    device: Device = 0,
    threads: Threads = 0,
    compute_dtype: ComputeDtype = "f32",
    allow_fallback: AllowFallback = False,
) -> None:
    """Compare two engines or two bundles on a data set, with confidence intervals and tests."""
    from functools import partial

    from ..eval.accuracy.compare import ComparisonRequest
    from ..eval.accuracy.compare import compare as compare_sides
    from ..eval.accuracy.request import EvaluationRequest
    from ..eval.masks import check_resolution
    from ..metrics.statistics import Resampling
    from ..report.compare_page import write_compare_page
    from ..runtime.engine import EngineOptions
    from ._console import Ui
    from ._parse import parse_engine_pair, parse_min_used

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    ui.check_places({"--report": report})
    options = EngineOptions(
        device=device, num_threads=threads, compute_dtype=compute_dtype, allow_fallback=allow_fallback
    )
    left_engine, right_engine = parse_engine_pair(engine)
    resampling = Resampling(resamples, seed, fpr_limit)
    shared = EvaluationRequest(
        data=data, category=category, engine=left_engine, options=options, batch=batch,
        resolution=check_resolution(resolution), min_used=parse_min_used(min_used), lists_all=verbose,
        other_data=other_data,
    )  # fmt: skip
    request = ComparisonRequest(left=left, right=right, shared=shared, right_engine=right_engine, resampling=resampling)
    page = partial(write_compare_page, path=report) if report else None
    with ui.progress() as progress:
        result = compare_sides(request, show=page, progress=progress)
    ui.data(*result.data)
    ui.notice(result.notices)
    ui.conclude(result)
