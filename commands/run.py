"""``lineproof run``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

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
            help="Order of the channels in the files: rgb, bgr or mono (docs/frames.md); the bundle's own where left "
            "out."
        ),
    ] = None,
    out: Annotated[
        Path | None, Option(help="Folder for the verdicts (verdicts.jsonl) and heat maps (overlays/).")
    ] = None,
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
    from contextlib import ExitStack

    from ..line.filing import Filing
    from ..line.images import find_images
    from ..line.inspect_files import decision_of, inspect_files, not_judged_yet
    from ..line.inspector import open_line
    from ..line.sinks.base import open_sinks
    from ..report.overlays import painter
    from ..runtime.engine import EngineOptions
    from ._console import Ui, interruptible

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    options = EngineOptions(
        device=device, num_threads=threads, compute_dtype=compute_dtype, allow_fallback=allow_fallback
    )
    _check_options(out, append=append, skip_judged=skip_judged, threshold=threshold)
    images = find_images(paths, out=out)
    ui.note(*images.notes)
    with ExitStack() as stack:
        sinks = stack.enter_context(open_sinks(sink))
        line = stack.enter_context(
            open_line(
                bundle, engine=engine, options=options, threshold=threshold, allow_failed=allow_failed,
                require_proof=require_proof, order=order,
            )
        )  # fmt: skip
        ui.warn(*line.warnings())
        filing = stack.enter_context(Filing(out, decision_of(line), append=append)) if out else None
        ui.note(*(filing.notes if filing else ()))
        files = not_judged_yet(images.files, out) if out and skip_judged else images.files
        ui.note(*_skipped_words(len(images.files) - len(files), len(images.files)))
        should_stop = stack.enter_context(interruptible())
        progress = stack.enter_context(ui.progress(is_beside_results=True))
        stream = stack.enter_context(ui.stream("verdicts"))
        inspection = inspect_files(
            line, files, show=stream.item, filing=filing, paint=painter(line.bundle) if filing else None,
            sinks=sinks, num_skipped=len(images.files) - len(files), should_stop=should_stop, warn=ui.warn,
            progress=progress,
        )  # fmt: skip
        ui.notice(inspection.conversions)
        stream.summary = inspection.to_dict()
        inspection.check()


def _skipped_words(num_skipped: int, num_files: int) -> list[str]:
    words = f"{num_skipped} of {num_files} files were judged before and have not changed since: skipped."
    return [words] if num_skipped else []


def _check_options(out: Path | None, *, append: bool, skip_judged: bool, threshold: float | None) -> None:
    from ..core.errors import UsageError
    from ..core.threshold import check_threshold
    from ..line.filing import check_out

    if threshold is not None:
        check_threshold(threshold)
    if append and out is None:
        raise UsageError("--append was given without --out; it goes on in a folder of results: name that with --out.")
    if skip_judged and not append:
        raise UsageError(
            "--skip-judged was given without --append; it leaves out the images that have a verdict in --out: give "
            "both, or neither."
        )
    if out:
        check_out(out, append=append)
