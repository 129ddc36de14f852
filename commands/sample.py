"""``lineproof sample``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..host.needs import Needs
from ._options import AsJson, Quiet, Verbose

NEEDS = Needs(writes=".")


def sample(
    directory: Annotated[Path, Argument(help="Folder that gets the sample.")],
    *,
    is_3d: Annotated[
        bool, Option("--3d", help="Scans instead of images: point clouds, images, masks and the camera's calibration.")
    ] = False,
    seed: Annotated[int, Option(help="The same seed draws the same images.")] = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the built-in sample: an object and a texture, six kinds of defect each; or with --3d two scanned parts."""
    from ..data.sample.write import write_sample
    from ..data.sample.write_3d import write_sample_3d
    from ._console import Ui

    ui = Ui(as_json=as_json, is_quiet=quiet, is_verbose=verbose)
    with ui.progress() as progress:
        write = write_sample_3d if is_3d else write_sample
        categories = write(directory, seed=seed, progress=progress)
    ui.say([str(directory / name) for name in categories], {"directory": str(directory), "categories": categories})
