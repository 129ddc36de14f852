"""``lineproof evaluate``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..host.needs import Needs
from ._options import (
    AllowFallback,
    AsJson,
    BatchSize,
    ComputeDtype,
    Corrections,
    Device,
    EngineName,
    FprLimit,
    MinUsed,
    OtherData,
    OtherThreshold,
    OwnCategory,
    Quiet,
    ReportPage,
    ResolutionName,
    TestData,
    Threads,
    Verbose,
    ViewName,
)

NEEDS = Needs(has_engine=True)


def evaluate(
    targets: Annotated[
        list[Path] | None,
        Argument(
            help="Bundles, or files of outputs that evaluate saved; the newest *.bundle in the current folder where "
            "left out."
        ),
    ] = None,
    *,
    data: TestData = None,
    category: OwnCategory = None,
    engine: EngineName = "auto",
    batch: BatchSize = 1,
    threshold: OtherThreshold = None,
    corrections: Corrections = None,
    fpr_limit: FprLimit = 0.3,
    resolution: ResolutionName = "image",
    min_used: MinUsed = "90%",
    table: Annotated[
        str | None, Option(help="Table of Zheng et al. 2022 to print with the measured rows in it: 1, 2, 5 or 6.")
    ] = None,
    table_file: Annotated[Path | None, Option(help="File that gets this table as well: .md or .csv.")] = None,
    save_outputs: Annotated[
        Path | None, Option(help="Keep scores and anomaly maps in this .npz file, or in this folder.")
    ] = None,
    report: ReportPage = None,
    view: ViewName = None,
    other_data: OtherData = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    device: Device = 0,
    threads: Threads = 0,
    compute_dtype: ComputeDtype = "f32",
    allow_fallback: AllowFallback = False,
) -> None:
    """Measure accuracy on a data set, beside the paper's tables."""
    from functools import partial

    from ..core.errors import UsageError
    from ..eval.accuracy.request import EvaluationRequest
    from ..eval.masks import check_resolution
    from ..report.accuracy_table import check_table_file, tabulate
    from ..report.examples import Examples
    from ..runtime.engine import EngineOptions
    from ._console import Ui
    from ._find import newest_bundle
    from ._parse import parse_min_used

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    if view and not report:
        raise UsageError("--view was given without --report; it says how that page shows scans.")
    ui.check_places({"--report": report, "--table-file": table_file, "--save-outputs": save_outputs})
    options = EngineOptions(
        device=device, num_threads=threads, compute_dtype=compute_dtype, allow_fallback=allow_fallback
    )
    check_table_file(table_file, table)
    request = EvaluationRequest(
        data=data, category=category, engine=engine, options=options, batch=batch, threshold=threshold,
        corrections=corrections, fpr_limit=fpr_limit, resolution=check_resolution(resolution),
        min_used=parse_min_used(min_used), lists_all=verbose, other_data=other_data,
    )  # fmt: skip
    examples = Examples(view)
    with ui.progress() as progress:
        result = tabulate(
            targets or [newest_bundle()],
            request,
            table=table,
            save=save_outputs,
            show=examples.add if report else None,
            progress=progress,
        )
    ui.data(*result.evaluation.data)
    ui.notice(result.evaluation.notices)
    ui.conclude(result, page=report, keep=partial(result.keep, table_file=table_file), sections=examples.sections)
