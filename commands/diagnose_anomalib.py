"""``lineproof diagnose anomalib``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..host.needs import TRAINING_MODULES, Needs
from ._options import AsJson, Category, Quiet, ReportPage, Verbose

NEEDS = Needs(modules=(*TRAINING_MODULES, "onnxruntime"))


def diagnose_anomalib(
    checkpoint: Annotated[Path, Argument(help="Checkpoint of anomalib's Engine, such as lightning/model.ckpt.")],
    *,
    exported: Annotated[Path, Option(help="ONNX file that anomalib exported of it, such as weights/onnx/model.onnx.")],
    data: Annotated[Path, Option(help="Data set whose test images both judge; docs/data.md lists the layouts.")],
    category: Category = None,
    report: ReportPage = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say why a file that anomalib exported gives other verdicts than its checkpoint."""
    from ..data.dataset import check_contents, open_dataset
    from ..data.notes import DataNotes
    from ..importers.anomalib.diagnose import diagnose_anomalib
    from ._console import Ui

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    ui.check_places({"--report": report})
    dataset = check_contents(open_dataset(data, category=category), "image")
    ui.data(DataNotes.of(dataset))
    with ui.progress() as progress:
        diagnosis = diagnose_anomalib(checkpoint, exported=exported, dataset=dataset, progress=progress)
    ui.conclude(diagnosis, page=report)
