"""``lineproof verify``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from ..bundle.store import Bundle
    from ..data.dataset import Dataset
    from ._console import Ui


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
            "PyTorch is missing."
        ),
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
    from ..eval.parity.proof import pick_reference, record_parity
    from ..eval.parity.verify import verify as compare
    from ..runtime.engine import EngineOptions
    from ..runtime.ranking import resolve_auto
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
    name = resolve_auto(opened, engine, options=options)
    dataset, reference_name = None, None
    if data:
        dataset = _read(data, category, opened, ui)
        reference_name, notice = pick_reference(opened, reference, engine=name)
        ui.warn(notice)
    with ui.progress() as progress:
        parity = compare(
            opened, engine=name, options=options, dataset=dataset, reference=reference_name, batch=batch,
            resolution=check_resolution(resolution), other_data=other_data, progress=progress,
        )  # fmt: skip
    ui.notice(parity.notices)
    ui.show(
        parity, report=report, state=parity.state, lines=parity.summary_lines(lists_all=verbose),
        keep=lambda: [record_parity(opened, parity, folder=record).warning],
    )  # fmt: skip
    parity.check(accept_undecided=accept_undecided)
    parity.used.check(least_used)


def _read(data: Path, category: str | None, bundle: "Bundle", ui: "Ui") -> "Dataset":
    """Open the data set, check its masks, and say on stderr what it holds and what it lacks."""
    from ..data.dataset import check_contents, open_category
    from ..data.notes import DataNotes

    dataset = check_contents(open_category(data, category, own=bundle.manifest.training.category))
    ui.data(DataNotes.of(dataset))
    return dataset
