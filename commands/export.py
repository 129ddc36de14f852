"""``lineproof export``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..host.needs import EXPORT_MODULES, Needs
from ._options import AcceptUndecided, AsJson, FitRule, MaxFalseReject, Overlap, Quiet, TileSize, Verbose

NEEDS = Needs(modules=EXPORT_MODULES, has_engine=True, writes=".")


def export(
    source: Annotated[
        str, Argument(help="Detector (its newest run below ./runs), a run folder, or a bundle to build a plan for.")
    ],
    *,
    checkpoint: Annotated[
        Path | None, Option(help="Run folder of the detector to export instead of the newest.")
    ] = None,
    frame: Annotated[
        str | None, Option(help="Size of the camera's frames in pixels: HEIGHTxWIDTH, or HEIGHTxWIDTHx1 for mono.")
    ] = None,
    fit: FitRule = None,
    tiles: TileSize = None,
    overlap: Overlap = None,
    batch: Annotated[
        str, Option(help="Largest number of frames per call, alone or as the last of smallest:usual:largest.")
    ] = "1:1:8",
    precision: Annotated[str, Option(help="Precision that is written into the graph: fp32 or fp16.")] = "fp32",
    engine: Annotated[str, Option(help="Engine that the bundle is meant for; onnx for none in particular.")] = "onnx",
    target: Annotated[
        list[str], Option(help="GPU architecture to build a trt-rtx plan for, such as sm_89; may be repeated.")
    ] = [],  # noqa: B006
    max_false_reject: MaxFalseReject = "1%",
    sample: Annotated[
        bool, Option("--sample", help="Train the detector on the built-in sample first, with quick settings.")
    ] = False,
    reference: Annotated[
        bool, Option(help="Carry the PyTorch weights in the bundle, so that verify can compare with them.")
    ] = True,
    verify: Annotated[bool, Option(help="Verify the bundle on its golden frames.")] = True,
    out: Annotated[
        Path | None, Option(help="Folder of the bundle; named after category and detector where left out.")
    ] = None,
    replace: Annotated[
        bool, Option("--replace", help="Replace a bundle that holds a calibration, proofs, plans or profiles.")
    ] = False,
    accept_undecided: AcceptUndecided = False,
    data: Annotated[Path | None, Option(help="Folder of the run's data set, where that was moved.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Export a trained detector to a bundle, and prove it."""
    from ..core.spec import check_fit
    from ..export.options import ExportOptions
    from ..sweep.chain import ExportRequest, export_and_prove
    from ._console import Ui
    from ._parse import parse_batches, parse_frame, parse_share, parse_tiles

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    options = ExportOptions(
        frame=parse_frame(frame) if frame else None,
        max_batch=parse_batches(batch)[-1],
        precision=precision,
        max_false_reject=parse_share(max_false_reject),
        has_reference=reference,
        fit=None if fit is None else check_fit(fit),
        tiles=parse_tiles(tiles, overlap=overlap),
        data=data,
    )
    request = ExportRequest(
        source=source,
        checkpoint=checkpoint,
        is_sample=sample,
        out=out,
        engine=engine,
        targets=tuple(target),
        is_verified=verify,
        is_replacing=replace,
        accept_undecided=accept_undecided,
    )
    with ui.progress() as progress:
        proof = export_and_prove(request, options=options, progress=progress)
    ui.data(proof.data)
    ui.notice(proof.conversions)
    ui.show(proof)
    proof.check(accept_undecided=accept_undecided)
