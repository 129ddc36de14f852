"""``lineproof badcases``."""

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
    ResolutionName,
    TestData,
    Threads,
    Verbose,
    ViewName,
)

NEEDS = Needs(has_engine=True, writes=".")


def badcases(
    target: Annotated[Path, Argument(help="Bundle, or file of outputs that evaluate saved.")],
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
    top: Annotated[int, Option(help="Largest number of images shown of each kind.")] = 20,
    out: Annotated[Path, Option(help="HTML file to write.")] = Path("badcases.html"),
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
    """Show false accepts, false rejects and hot spots outside the masks."""
    from ..eval.accuracy.request import EvaluationRequest
    from ..eval.masks import check_resolution
    from ..report.gallery import show_bad_cases
    from ..runtime.engine import EngineOptions
    from ._console import Ui
    from ._parse import parse_min_used

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    ui.check_places({"--out": out})
    options = EngineOptions(
        device=device, num_threads=threads, compute_dtype=compute_dtype, allow_fallback=allow_fallback
    )
    request = EvaluationRequest(
        data=data, category=category, engine=engine, options=options, batch=batch, threshold=threshold,
        corrections=corrections, fpr_limit=fpr_limit, resolution=check_resolution(resolution),
        min_used=parse_min_used(min_used), lists_all=verbose, other_data=other_data,
    )  # fmt: skip
    with ui.progress() as progress:
        cases = show_bad_cases(target, request, top=top, out=out, view=view, progress=progress)
    ui.data(*cases.data)
    ui.notice(cases.notices)
    ui.conclude(cases)
