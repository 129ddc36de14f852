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
    from functools import partial

    from ..bundle.reports import check_record
    from ..eval.good_parts import CalibrationRequest, calibrate_on
    from ..host.environment import user_name
    from ..runtime.engine import EngineOptions
    from ._console import Ui
    from ._find import open_named
    from ._parse import parse_min_used, parse_share

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    options = EngineOptions(
        device=device, num_threads=threads, compute_dtype=compute_dtype, allow_fallback=allow_fallback
    )
    request = CalibrationRequest(
        data=data, category=category, root=root, engine=engine, options=options,
        max_false_reject=parse_share(max_false_reject), min_used=parse_min_used(min_used), lists_all=verbose,
        other_data=other_data,
    )  # fmt: skip
    check_record(record)
    opened = open_named(bundle)
    with ui.progress() as progress:
        calibration = calibrate_on(opened, request, progress=progress)
    ui.data(calibration.data)
    ui.notice(calibration.notices)
    ui.conclude(calibration, keep=partial(calibration.keep, who=who or user_name(), record=record))
