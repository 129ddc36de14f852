"""``lineproof verify``."""

from pathlib import Path
from typing import Annotated

from typer import Option

from ..host.needs import Needs
from ._options import (
    AcceptUndecided,
    AllowFallback,
    AsJson,
    BatchSize,
    BundleArgument,
    ComputeDtype,
    Device,
    EngineName,
    ExpectedPrecision,
    MinUsed,
    OtherData,
    OwnCategory,
    Quiet,
    Record,
    ReportPage,
    ResolutionName,
    Threads,
    Verbose,
)

NEEDS = Needs(has_engine=True)


def verify(
    bundle: BundleArgument = None,
    *,
    engine: EngineName = "auto",
    data: Annotated[
        Path | None, Option(help="Data set whose test images are compared besides the bundle's golden frames.")
    ] = None,
    category: OwnCategory = None,
    reference: Annotated[
        str | None,
        Option(
            help="Engine whose scores are the reference on --data; where left out torch, or a proved engine where "
            "PyTorch is missing; of an imported bundle original, the file that it was made of."
        ),
    ] = None,
    against: Annotated[
        str | None,
        Option(help="Library that trained an imported detector and is the reference on --data: anomalib."),
    ] = None,
    checkpoint: Annotated[Path | None, Option(help="With --against: the checkpoint that was imported.")] = None,
    anomalib_python: Annotated[
        Path | None, Option(help="With --against: the Python of the environment that anomalib is installed in.")
    ] = None,
    precision: ExpectedPrecision = None,
    batch: BatchSize = 1,
    accept_undecided: AcceptUndecided = False,
    record: Record = None,
    resolution: ResolutionName = "image",
    min_used: MinUsed = "90%",
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
    """Prove that an engine gives the reference's verdicts."""
    from ..bundle.reports import check_record
    from ..eval.masks import check_resolution
    from ..eval.parity.proof import record_parity
    from ..eval.parity.request import ParityRequest, foreign_reference, verify_as_asked
    from ..runtime.engine import EngineOptions
    from ._console import Ui
    from ._find import open_named
    from ._parse import parse_min_used

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    ui.check_places({"--report": report})
    options = EngineOptions(
        device=device, num_threads=threads, compute_dtype=compute_dtype, allow_fallback=allow_fallback
    )
    check_record(record)
    least_used = parse_min_used(min_used)
    opened = open_named(bundle, precision=precision)
    request = ParityRequest(
        engine=engine, options=options, data=data, category=category, reference=reference, batch=batch,
        resolution=check_resolution(resolution), other_data=other_data,
        foreign=foreign_reference(against, checkpoint=checkpoint, python=anomalib_python),
    )  # fmt: skip
    with ui.progress() as progress:
        parity = verify_as_asked(opened, request, say_data=ui.data, warn=ui.warn, progress=progress)
    ui.notice(parity.notices)
    ui.show(
        parity, report=report, state=parity.state, lines=parity.summary_lines(lists_all=verbose),
        keep=lambda: [record_parity(opened, parity, folder=record).warning],
    )  # fmt: skip
    parity.check(accept_undecided=accept_undecided)
    parity.used.check(least_used)
