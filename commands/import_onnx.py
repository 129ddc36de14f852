"""``lineproof import onnx``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..host.needs import EXPORT_MODULES, Needs
from ._options import AcceptUndecided, AsJson, Category, MaxFalseReject, Quiet, Verbose

NEEDS = Needs(modules=EXPORT_MODULES, has_engine=True, writes=".")


def import_onnx(
    model: Annotated[Path, Argument(help="ONNX file of a detector; weights beside it are found there.")],
    *,
    preprocessing: Annotated[
        Path, Option(help="JSON file that says what the model takes and gives; the page of this command has one.")
    ],
    data: Annotated[
        Path, Option(help="Data set with good images that the model was not trained on, for threshold and proof.")
    ],
    category: Category = None,
    threshold: Annotated[
        float | None, Option(help="Threshold in units of the score; calibrated on the good images where left out.")
    ] = None,
    max_false_reject: MaxFalseReject = "1%",
    batch: Annotated[
        int | None, Option(help="Largest number of frames per call; 8, or 1 where the model takes no more.")
    ] = None,
    reference: Annotated[
        bool, Option(help="Carry the model's own file in the bundle, so that verify --data can compare with it.")
    ] = True,
    verify: Annotated[bool, Option(help="Verify the bundle on its golden frames.")] = True,
    out: Annotated[
        Path | None, Option(help="Folder of the bundle; named after category and file where left out.")
    ] = None,
    replace: Annotated[
        bool, Option("--replace", help="Replace a bundle that holds a calibration, proofs, plans or profiles.")
    ] = False,
    accept_undecided: AcceptUndecided = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a bundle of any detector's ONNX file, and prove it."""
    from ..importers.onnx_file.options import ImportOptions
    from ..sweep.imported import ImportRequest, import_and_prove
    from ._console import Ui
    from ._parse import parse_share

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    options = ImportOptions(
        max_batch=batch,
        max_false_reject=parse_share(max_false_reject),
        threshold=threshold,
        has_reference=reference,
    )
    request = ImportRequest(
        source=model, preprocessing=preprocessing, data=data, category=category, out=out, is_verified=verify,
        is_replacing=replace, accept_undecided=accept_undecided,
    )  # fmt: skip
    with ui.progress() as progress:
        proof = import_and_prove(request, options=options, progress=progress)
    ui.data(proof.data)
    ui.notice(proof.conversions)
    ui.show(proof)
    proof.check(accept_undecided=accept_undecided)
