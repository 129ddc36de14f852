"""``lineproof import anomalib``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..host.needs import TRAINING_MODULES, Needs
from ._options import AsJson, BitDepth, Category, FitRule, Overlap, Quiet, TileSize, TrainingFrame, Verbose

NEEDS = Needs(modules=TRAINING_MODULES, writes="runs")


def import_anomalib(
    checkpoint: Annotated[
        Path, Argument(help="Checkpoint of anomalib's Engine, such as weights/lightning/model.ckpt.")
    ],
    *,
    data: Annotated[
        Path, Option(help="Data set with good images of the part, for the size of the frames and for golden frames.")
    ],
    category: Category = None,
    score_scale: Annotated[
        str,
        Option(
            help="Units of the scores: native, the detector's own; or anomalib, 0 to 1 as its Engine.predict gives."
        ),
    ] = "native",
    fit: FitRule = None,
    frame: TrainingFrame = None,
    tiles: TileSize = None,
    overlap: Overlap = None,
    bit_depth: BitDepth = None,
    crop: Annotated[
        str | None,
        Option(help="Centre crop after the resize: HEIGHTxWIDTH; only for a checkpoint that does not say it."),
    ] = None,
    out: Annotated[Path | None, Option(help="Run folder; a new one below ./runs where left out.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a run of a checkpoint of anomalib; anomalib itself is not needed."""
    from ..core.spec import check_fit
    from ..data.dataset import check_contents, open_dataset
    from ..importers.anomalib.run import ImportOptions, check_score_scale, import_anomalib
    from ._console import Ui
    from ._parse import parse_frame_size, parse_image_size, parse_tiles

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    options = ImportOptions(
        score_scale=check_score_scale(score_scale),
        fit=check_fit(fit or "none"),
        frame=parse_frame_size(frame) if frame else None,
        bit_depth=bit_depth,
        tiles=parse_tiles(tiles, overlap=overlap),
        crop=parse_image_size(crop, option="--crop") if crop else None,
    )
    dataset = check_contents(open_dataset(data, category=category), "image")
    with ui.progress() as progress:
        result = import_anomalib(checkpoint, dataset=dataset, out=out, options=options, progress=progress)
    ui.data(result.data)
    ui.notice(result.conversions)
    ui.show(result)
