"""``lineproof calibrate``."""

from pathlib import Path
from typing import Annotated

from typer import Option

from ..host.needs import Needs
from ._options import (
    AllowFallback,
    AsJson,
    BundleArgument,
    ComputeDtype,
    Device,
    EngineName,
    MaxFalseReject,
    MinUsed,
    OtherData,
    OwnCategory,
    Quiet,
    Record,
    Threads,
    Verbose,
    Who,
)

NEEDS = Needs(has_engine=True)


def calibrate(
    bundle: BundleArgument = None,
    *,
    data: Annotated[
        Path,
        Option(
            help="Good images that were not trained on: a folder of them, a run folder (its held-out images), or a "
            "data set with a validation split."
        ),
    ],
    category: OwnCategory = None,
    root: Annotated[
        Path | None, Option(help="With a run folder in --data: where its data set lies now, if it was moved.")
    ] = None,
    engine: EngineName = "auto",
    max_false_reject: MaxFalseReject = "1%",
    min_used: MinUsed = "90%",
    who: Who = None,
    record: Record = None,
    other_data: OtherData = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    device: Device = 0,
    threads: Threads = 0,
    compute_dtype: ComputeDtype = "f32",
    allow_fallback: AllowFallback = False,
) -> None:
    """Set the threshold of one engine from held-out good parts."""
    from ..bundle.reports import check_record
    from ..eval.calibrate import keep_calibration
    from ..eval.good_parts import CalibrationSource, calibrate_on
    from ..host.environment import user_name
    from ..runtime.engine import EngineOptions
    from ._console import Ui
    from ._find import open_named
    from ._parse import parse_min_used, parse_share

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    options = EngineOptions(
        device=device, num_threads=threads, compute_dtype=compute_dtype, allow_fallback=allow_fallback
    )
    share, least_used = parse_share(max_false_reject), parse_min_used(min_used)
    check_record(record)
    opened = open_named(bundle)
    source = CalibrationSource(data=data, category=category, root=root, is_other_accepted=other_data)
    with ui.progress() as progress:
        calibration = calibrate_on(
            opened, source, engine=engine, max_false_reject=share, options=options, progress=progress
        )
    ui.data(calibration.data)
    ui.notice(calibration.notices)
    # With too few of the images the threshold is shown and not set; `check` says so at the end.
    is_enough = calibration.used.share >= least_used
    ui.show(
        calibration, lines=calibration.summary_lines(lists_all=verbose),
        keep=lambda: [
            keep_calibration(opened, calibration, who=who or user_name(), folder=record)
        ] if is_enough else [],
    )  # fmt: skip
    calibration.check(min_used=least_used)
