"""``lineproof train``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from ..host.needs import TRAINING_MODULES, Needs
from ._options import AsJson, BitDepth, Category, FitRule, Overlap, Quiet, TileSize, TrainingFrame, Verbose

NEEDS = Needs(modules=TRAINING_MODULES, writes="runs")


def train(
    context: Context,
    detector: Annotated[str, Argument(help="Detector; `lineproof models` lists them.")],
    *,
    data: Annotated[
        Path,
        Option(help="Data set: MVTec AD, a folder with good/, bad/ and masks/, or another layout of docs/data.md."),
    ],
    category: Category = None,
    preset: Annotated[
        str,
        Option(
            help="Parameters to begin from, such as paper or quick; `lineproof models DETECTOR` lists them. Others win "
            "over it."
        ),
    ] = "paper",
    backbone: Annotated[str | None, Option(help="Backbone, a network of timm; the paper's where left out.")] = None,
    weights: Annotated[
        str | None, Option(help="Weights of the backbone: imagenet, a .safetensors or .pth file, or a Python package.")
    ] = None,
    image_size: Annotated[
        str | None, Option(help="Size after the resize in pixels: HEIGHTxWIDTH, or the side of a square.")
    ] = None,
    crop: Annotated[
        str | None, Option(help="Size of the centre crop in pixels: HEIGHTxWIDTH, or the side of a square.")
    ] = None,
    fit: FitRule = None,
    frame: TrainingFrame = None,
    tiles: TileSize = None,
    overlap: Overlap = None,
    bit_depth: BitDepth = None,
    epochs: Annotated[int | None, Option(help="Largest number of epochs; the detector's own where left out.")] = None,
    settings: Annotated[
        list[str],
        Option(
            "--set",
            help="Parameter of the detector as KEY=VALUE; may be repeated. `lineproof models DETECTOR` lists the keys.",
        ),
    ] = [],  # noqa: B006
    holdout: Annotated[
        float, Option(help="Share of the good images that is held out for the threshold and the held-out loss.")
    ] = 0.2,
    refit: Annotated[
        bool,
        Option("--refit", help="Fit again on all good images once the held-out ones have set the threshold."),
    ] = False,
    seed: Annotated[
        int, Option(help="Seed of every random choice; the same seed gives the same weights on a CPU.")
    ] = 0,
    device: Annotated[str, Option(help="Device to train on: cpu, cuda, or cuda:N for the GPU with index N.")] = "cpu",
    time_limit: Annotated[float, Option(help="Minutes after which no new epoch starts; 0 for no limit.")] = 0.0,
    save_every: Annotated[
        float, Option(help="Minutes after which the state of the training is saved again; 0 never saves it.")
    ] = 10.0,
    workers: Annotated[
        int, Option(help="Number of processes that load and augment images; 0 loads them in the training process.")
    ] = 0,
    out: Annotated[
        Path | None, Option(help="Run folder; an unfinished run there is continued. Below ./runs where left out.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a detector on good images."""
    from ..core.spec import check_fit
    from ..detectors.training.from_folder import train_detector
    from ..detectors.training.options import TrainOptions
    from ._again import typed_line
    from ._console import Ui
    from ._parse import parse_frame_size, parse_image_size, parse_settings, parse_tiles

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    resize_px = parse_image_size(image_size, option="--image-size") if image_size else None
    crop_px = parse_image_size(crop, option="--crop") if crop else resize_px
    sizes = {"resize_px": resize_px, "crop_px": crop_px}
    parameters = {"backbone": backbone, "weights": weights, "epochs": epochs, **sizes, **parse_settings(settings)}
    options = TrainOptions(
        holdout=holdout,
        refit=refit,
        seed=seed,
        device=device,
        time_limit_s=60.0 * time_limit,
        save_every_s=60.0 * save_every,
        fit=check_fit(fit or "none"),
        frame=parse_frame_size(frame) if frame else None,
        tiles=parse_tiles(tiles, overlap=overlap),
        bit_depth=bit_depth,
        num_workers=workers,
        command=typed_line(context, without=("out", "as_json", "quiet", "verbose")),
    )
    with ui.progress() as progress:
        result = train_detector(
            detector, data, category=category, settings=parameters, out=out, preset=preset, options=options,
            say_data=ui.data, progress=progress,
        )  # fmt: skip
    ui.notice(result.conversions)
    ui.show(result)
