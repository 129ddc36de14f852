"""``lineproof run``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..core.interrupt import interruptible
from ..host.needs import Needs
from ._options import (
    AllowFallback,
    AsJson,
    ComputeDtype,
    Device,
    EngineName,
    OtherThreshold,
    Quiet,
    Threads,
    Verbose,
    ViewName,
)

NEEDS = Needs(has_engine=True)


def run(
    bundle: Annotated[Path, Argument(help="Bundle folder.")],
    paths: Annotated[list[Path], Argument(help="Images, or folders of images.")],
    *,
    engine: EngineName = "auto",
    threshold: OtherThreshold = None,
    order: Annotated[
        str | None,
        Option(
            help="Order of the channels in the files: rgb, bgr or mono; of scans with colours depth+bgr or xyz+bgr "
            "(docs/frames.md). The bundle's own where left out."
        ),
    ] = None,
    out: Annotated[
        Path | None, Option(help="Folder for the verdicts (verdicts.jsonl) and heat maps (overlays/).")
    ] = None,
    view: ViewName = None,
    sink: Annotated[
        list[str],
        Option(
            help="Place that takes every verdict as well, as KIND=PLACE, such as csv=verdicts.csv; may be repeated."
        ),
    ] = [],  # noqa: B006
    append: Annotated[
        bool,
        Option("--append", help="Go on in an --out that holds results of the same bundle, engine and threshold."),
    ] = False,
    skip_judged: Annotated[
        bool,
        Option(
            "--skip-judged", help="With --append: leave out images that have a verdict there and are unchanged since."
        ),
    ] = False,
    allow_failed: Annotated[
        bool, Option("--allow-failed", help="Run an engine although its last verify on this bundle failed.")
    ] = False,
    require_proof: Annotated[
        bool,
        Option("--require-proof", help="Refuse an engine whose verdicts are not proved for this bundle and threshold."),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    device: Device = 0,
    threads: Threads = 0,
    compute_dtype: ComputeDtype = "f32",
    allow_fallback: AllowFallback = False,
) -> None:
    """Inspect images: verdicts as JSON lines, heat maps as overlays."""
    from functools import partial

    from ..core.errors import UsageError
    from ..line.request import InspectionRequest, open_inspection
    from ..report.painter import painter
    from ..runtime.engine import EngineOptions
    from ._console import Ui

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    if view and not out:
        raise UsageError("--view was given without --out; it says how heat maps are drawn, which --out keeps.")
    options = EngineOptions(
        device=device, num_threads=threads, compute_dtype=compute_dtype, allow_fallback=allow_fallback
    )
    request = InspectionRequest(
        bundle=bundle, paths=tuple(paths), engine=engine, options=options, threshold=threshold, order=order, out=out,
        sinks=tuple(sink), append=append, skip_judged=skip_judged, allow_failed=allow_failed,
        require_proof=require_proof,
    )  # fmt: skip
    with (
        open_inspection(request, painter=partial(painter, view=view), note=ui.note, warn=ui.warn) as opened,
        interruptible() as should_stop,
        ui.progress(is_beside_results=True) as progress,
        ui.stream("verdicts") as stream,
    ):
        inspection = opened.inspect(show=stream.item, should_stop=should_stop, progress=progress)
        ui.notice(inspection.conversions)
        stream.summary = inspection.to_dict()
        inspection.check()
