"""``lineproof run``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..host.needs import Needs
from ._options import AllowFallback, AsJson, ComputeDtype, Device, EngineName, Quiet, Threads, Verbose

NEEDS = Needs(has_engine=True)


def run(
    bundle: Annotated[Path, Argument(help="Bundle.")],
    paths: Annotated[list[Path], Argument(help="Images, or folders of images.")],
    *,
    engine: EngineName = "auto",
    threshold: Annotated[float | None, Option(help="Instead of the bundle's.")] = None,
    order: Annotated[str | None, Option(help="bgr: the files hold blue first; see docs/frames.md.")] = None,
    out: Annotated[Path | None, Option(help="Folder for verdicts.jsonl and overlays/.")] = None,
    append: Annotated[bool, Option("--append", help="Go on in an --out that holds results of this decision.")] = False,
    skip_judged: Annotated[
        bool, Option("--skip-judged", help="With --append: not those judged there and unchanged since.")
    ] = False,
    allow_failed: Annotated[bool, Option("--allow-failed", help="Run a bundle whose parity failed.")] = False,
    require_proof: Annotated[
        bool, Option("--require-proof", help="Refuse an engine that is not proved for this decision.")
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
    from ..report.overlays import painter
    from ..runtime.engine import EngineOptions
    from ._console import Ui, interruptible

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    options = EngineOptions(
        device=device, num_threads=threads, compute_dtype=compute_dtype, allow_fallback=allow_fallback
    )
    _check_options(out, append=append, skip_judged=skip_judged, threshold=threshold)
    found = find_images(paths, out=out)
    ui.note(*found.notes)
    with ExitStack() as stack:
        line = stack.enter_context(
            open_line(
                bundle, engine=engine, options=options, threshold=threshold, allow_failed=allow_failed,
                require_proof=require_proof, order=order,
            )
        )  # fmt: skip
        ui.warn(*line.warnings())
        filing = stack.enter_context(Filing(out, decision_of(line), append=append)) if out else None
        ui.note(*(filing.notes if filing else ()))
        files = not_judged_yet(found.files, out) if out and skip_judged else found.files
        num_skipped = len(found.files) - len(files)
        ui.note(*_skipped_words(num_skipped, len(found.files)))
        should_stop = stack.enter_context(interruptible())
        progress = stack.enter_context(ui.progress(is_beside_results=True))
        stream = stack.enter_context(ui.stream("verdicts"))
        result = inspect_files(
            line, files, show=stream.item, filing=filing, paint=painter(line.bundle) if filing else None,
            num_skipped=num_skipped, should_stop=should_stop,
            warn=ui.warn, progress=progress,
        )  # fmt: skip
        ui.notice(result.conversions)
        stream.summary = result.to_dict()
        result.check()


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
        raise UsageError("--append goes on in a folder of results: name it with --out.")
    if skip_judged and not append:
        raise UsageError("--skip-judged goes with --append: it asks what --out holds.")
    if out:
        check_out(out, append=append)
