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
    data: Annotated[Path, Option(help="Folder of good images, a training run, or a set with a validation split.")],
    category: OwnCategory = None,
    root: Annotated[Path | None, Option(help="Where the data set of the run in --data lies now, if moved.")] = None,
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
    share, least = parse_share(max_false_reject), parse_min_used(min_used)
    check_record(record)
    opened = open_named(bundle)
    source = CalibrationSource(data=data, category=category, root=root, is_other_accepted=other_data)
    with ui.progress() as progress:
        found = calibrate_on(opened, source, engine=engine, max_false_reject=share, options=options, progress=progress)
    ui.data(found.data)
    ui.notice(found.notices)
    # With too few of the images the threshold is shown and not set; `found.check` says so at the end.
    is_enough = found.used.share >= least
    ui.show(
        found, lines=found.summary_lines(lists_all=verbose),
        keep=lambda: [keep_calibration(opened, found, who=who or user_name(), folder=record)] if is_enough else [],
    )  # fmt: skip
    found.check(min_used=least)
