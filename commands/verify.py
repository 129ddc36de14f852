"""``lineproof verify``."""

from pathlib import Path
from typing import Annotated

from typer import Option

from ._options import (
    AllowFallback,
    AsJson,
    BatchSize,
    BundleArgument,
    Category,
    ComputeDtype,
    Device,
    EngineName,
    ExpectedPrecision,
    Quiet,
    ReportPage,
    Threads,
    Verbose,
)


def verify(
    bundle: BundleArgument = None,
    *,
    engine: EngineName = "auto",
    data: Annotated[Path | None, Option(help="Data set whose test pictures are compared as well.")] = None,
    category: Category = None,
    reference: Annotated[str, Option(help="Engine that gives the reference on --data.")] = "torch",
    precision: ExpectedPrecision = None,
    batch: BatchSize = 1,
    report: ReportPage = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    device: Device = 0,
    threads: Threads = 0,
    compute_dtype: ComputeDtype = "f32",
    allow_fallback: AllowFallback = False,
) -> None:
    """Prove that an engine gives the reference's verdicts."""
    from ..data.dataset import open_dataset
    from ..eval.parity import check
    from ..eval.verify import verify as compare
    from ..runtime.engine import EngineOptions
    from ..workflows.find import open_named
    from ._console import Ui

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    options = EngineOptions(device, threads, compute_dtype, allow_fallback)
    dataset = open_dataset(data, category=category) if data else None
    with ui.progress() as progress:
        found = compare(
            open_named(bundle, precision=precision), engine=engine, options=options, dataset=dataset,
            reference=reference, batch=batch, progress=progress,
        )  # fmt: skip
    ui.show(found, report=report, passed=found.passed)
    check(found)
