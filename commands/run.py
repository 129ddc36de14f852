"""``lineproof run``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ._options import AllowFallback, AsJson, ComputeDtype, Device, EngineName, Quiet, Threads, Verbose


def run(
    bundle: Annotated[Path, Argument(help="Bundle.")],
    paths: Annotated[list[Path], Argument(help="Images, or folders of images.")],
    *,
    engine: EngineName = "auto",
    threshold: Annotated[float | None, Option(help="Instead of the bundle's.")] = None,
    out: Annotated[Path | None, Option(help="Folder for verdicts.jsonl and overlays/.")] = None,
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
    from ..runtime.engine import EngineOptions
    from ..workflows.inspection import inspect_files, open_line
    from ._console import Ui

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    options = EngineOptions(device, threads, compute_dtype, allow_fallback)
    with (
        ui.progress() as progress,
        open_line(
            bundle,
            engine=engine,
            options=options,
            threshold=threshold,
            allow_failed=allow_failed,
            require_proof=require_proof,
        ) as line,
    ):
        ui.warn(*line.warnings())
        found = inspect_files(line, paths, out=out, progress=progress)
    ui.say(found.sentences(), found.to_dict())
    found.check()
